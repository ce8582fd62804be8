//! CPU time between two moments, by process.

use crate::BenchError;
use crate::process;
use crate::subject::Subject;
use crate::subject::Upstream;
use nix::unistd::Pid;
use std::time::Duration;
use tokio::time::Instant;

/// The CPU time of an interval.
pub(crate) struct Cost {
    /// CPU time of the server process, or of all replicas.
    pub(crate) server: Duration,
    /// CPU time of the database's processes, if they are local.
    pub(crate) database: Option<Duration>,
    /// Cores used by processes that have no part in the benchmark.
    pub(crate) other_processes: f64,
}

#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    server: Duration,
    database: Option<Duration>,
    harness: Duration,
    machine: Duration,
}

fn read(subject: &Subject, upstream: &Upstream) -> Result<Reading, BenchError> {
    let postmaster = subject.database.as_ref().and_then(|db| db.postmaster());
    Ok(Reading {
        at: Instant::now(),
        server: subject.cpu(),
        database: postmaster.map(process::cpu_with_children),
        harness: process::cpu(Pid::this()) + process::cpu(upstream.pid()),
        machine: process::cpu_of_machine()?,
    })
}

/// Measures from its creation to [`Meter::stop`].
pub(crate) struct Meter {
    start: Reading,
}

impl Meter {
    pub(crate) fn start(subject: &Subject, upstream: &Upstream) -> Result<Self, BenchError> {
        let start = read(subject, upstream)?;
        Ok(Self { start })
    }

    pub(crate) fn stop(self, subject: &Subject, upstream: &Upstream) -> Result<Cost, BenchError> {
        let (start, end) = (self.start, read(subject, upstream)?);
        let server = end.server.saturating_sub(start.server);
        let database = end
            .database
            .zip(start.database)
            .map(|(end, start)| end.saturating_sub(start));
        let known = server + database.unwrap_or_default() + (end.harness - start.harness);
        let other_cpu = (end.machine - start.machine).saturating_sub(known);
        Ok(Cost {
            server,
            database,
            other_processes: other_cpu.as_secs_f64() / (end.at - start.at).as_secs_f64(),
        })
    }
}
