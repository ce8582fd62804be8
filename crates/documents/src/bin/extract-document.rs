//! The child process alone, as tests and developers start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    documents::child::serve()
}
