//! The program `assistd`; see [`assistd::cli`].

use std::process::ExitCode;

use assistd::config::Cli;
use assistd::server::EXTRACT;

/// Frees memory of ended streams sooner than the system's allocator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages round the allocator's small arenas up to megabytes: memory would double for
    // nothing. A kernel that refuses costs memory only.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    // In its own process, before anything else: it reads what others sent.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|command| command == EXTRACT)
    {
        return documents::child::serve();
    }
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    assistd::cli::run(Cli::load()).await
}
