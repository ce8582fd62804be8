//! The extraction process as a program of its own, for tests and development.

use std::process::ExitCode;

fn main() -> ExitCode {
    documents::child::serve()
}
