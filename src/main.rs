//! The program `assistd`.

use std::process::ExitCode;

use assistd::config::Cli;
use assistd::server::EXTRACT;

/// Returns the memory of ended streams sooner than the allocator of the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Transparent huge pages would round the small arenas of the allocator up to megabytes and double
    // the memory. An error is ignored, as it only costs memory.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    // Before anything else: this process reads untrusted documents, and must not read settings.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|command| command == EXTRACT)
    {
        return documents::child::serve();
    }
    assistd::cli::run(Cli::load())
}
