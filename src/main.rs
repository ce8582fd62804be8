//! The program `assistd`; see [`assistd::cli`].

use std::process::ExitCode;

use assistd::config::Cli;

/// Frees memory of ended streams sooner than the system's allocator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    assistd::cli::run(Cli::load()).await
}
