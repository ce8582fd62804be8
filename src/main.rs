//! The program `assistd`; see [`assistd::cli`].

use std::process::ExitCode;

use assistd::config::Cli;

/// Frees memory of ended streams sooner than the system's allocator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages round the allocator's small arenas up to megabytes: memory would double for
    // nothing. A kernel that refuses costs memory only.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    assistd::cli::run(Cli::load()).await
}
