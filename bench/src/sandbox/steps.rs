//! The steps for sessions and kernels.

use super::Cell;
use super::IMPORTS;
use super::PLOT;
use super::Programs;
use super::TRIVIAL;
use super::jupyter::Jupyter;
use super::worker::Worker;
use crate::BenchError;
use crate::load::median;
use crate::load::percentile;
use crate::process;
use crate::report::Report;
use crate::steps::Figures;
use crate::steps::Plan;
use std::fmt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

/// Time limit of a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(300);

/// Time in which the worker forks a replacement for a used session.
const REFILL: Duration = Duration::from_millis(300);

/// Time in which the operating system frees an ended session.
const CLEARING: Duration = Duration::from_millis(100);

/// Idle sessions for measuring memory: a worker's default limit.
const IDLE: usize = 16;

/// Sessions that are opened at once.
const BURST: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A trivial cell in a new session.
    New,
    /// The same without pauses, so that pre-forked sessions are seldom available.
    WithoutPause,
    /// The same with a worker that pre-forks no sessions.
    WithoutSpares,
    /// Trivial cells in one session.
    Live,
    /// The usual imports in a new session.
    Imports,
    /// A plot in a new session.
    Plot,
    /// The memory of idle sessions.
    Memory,
    /// Many new sessions at once.
    Burst,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::New,
        Self::WithoutPause,
        Self::WithoutSpares,
        Self::Live,
        Self::Imports,
        Self::Plot,
        Self::Memory,
        Self::Burst,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::New => "sandbox.new",
            Self::WithoutPause => "sandbox.hurried",
            Self::WithoutSpares => "sandbox.forked",
            Self::Live => "sandbox.live",
            Self::Imports => "sandbox.imports",
            Self::Plot => "sandbox.plot",
            Self::Memory => "sandbox.memory",
            Self::Burst => "sandbox.burst",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs the steps whose names start with `only`, or all.
pub(crate) async fn measure(
    programs: &Programs,
    plan: &Plan,
    only: Option<&str>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let wanted = |step: &Step| only.is_none_or(|prefix| step.name().starts_with(prefix));
    let steps: Vec<Step> = Step::ALL.into_iter().filter(wanted).collect();
    if steps.is_empty() {
        return Ok(());
    }
    let mut runner = StepRunner {
        worker: Worker::start(&programs.worker, None).await?,
        bare: Worker::start(&programs.worker, Some(0)).await?,
        jupyter: match &programs.jupyter {
            Some(python) => Some(Jupyter::start(python).await?),
            None => None,
        },
        plan,
        ours: Figures::default(),
        theirs: Figures::default(),
    };
    runner.warm_up().await?;
    for step in steps {
        let (start, other_cpu) = (Instant::now(), process::cpu_of_other_processes());
        let result = timeout(STEP_TIMEOUT, runner.run(step)).await;
        let in_time = result.is_ok();
        let result = result.unwrap_or(Err(BenchError::Unexpected("the step did not end in time")));
        let elapsed = start.elapsed().as_secs_f64();
        let other_cpu = process::cpu_of_other_processes().saturating_sub(other_cpu);
        let [mut ours, mut theirs] = [&mut runner.ours, &mut runner.theirs].map(std::mem::take);
        ours.other_processes = other_cpu.as_secs_f64() / elapsed;
        theirs.other_processes = ours.other_processes;
        report.add_tested(step, result.map(|()| ours));
        report.add_other("jupyter", step, Ok(theirs));
        eprintln!("{step}: {elapsed:.1} s");
        if !in_time {
            // Replies to earlier requests may still arrive.
            break;
        }
    }
    match runner.jupyter {
        Some(jupyter) => jupyter.end().await,
        None => Ok(()),
    }
}

struct StepRunner<'a> {
    /// Default settings except for the number of sessions.
    worker: Worker,
    /// Without pre-forked sessions.
    bare: Worker,
    jupyter: Option<Jupyter>,
    plan: &'a Plan,
    ours: Figures,
    theirs: Figures,
}

impl StepRunner<'_> {
    /// Loads both programs' packages into the page cache, and fills Jupyter's font cache.
    async fn warm_up(&mut self) -> Result<(), BenchError> {
        self.worker.first_cell(&PLOT).await?;
        self.bare.first_cell(&PLOT).await?;
        if let Some(jupyter) = &mut self.jupyter {
            jupyter.first_cell(&PLOT).await?;
        }
        Ok(())
    }

    async fn run(&mut self, step: Step) -> Result<(), BenchError> {
        let (cells, kernels) = (self.plan.cells, self.plan.kernels);
        match step {
            Step::New => self.first_cells("new", &TRIVIAL, cells, kernels).await,
            Step::Imports => {
                let (cells, kernels) = (cells / 4, kernels / 2);
                self.first_cells("imports", &IMPORTS, cells, kernels).await
            }
            Step::Plot => {
                let (cells, kernels) = (cells / 4, kernels / 2);
                self.first_cells("plot", &PLOT, cells, kernels).await
            }
            Step::WithoutPause => self.without_pause().await,
            Step::WithoutSpares => self.without_spares().await,
            Step::Live => self.live().await,
            Step::Memory => self.memory().await,
            Step::Burst => self.burst().await,
        }
    }

    /// Executes first cells in sessions and kernels alternately, one at a time.
    async fn first_cells(
        &mut self,
        name: &str,
        cell: &Cell,
        sessions: usize,
        kernels: usize,
    ) -> Result<(), BenchError> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let rounds = kernels.max(1);
        for _ in 0..rounds {
            for _ in 0..sessions.div_ceil(rounds) {
                sleep(REFILL).await;
                ours.push(self.worker.first_cell(cell).await?);
            }
            if let Some(jupyter) = &mut self.jupyter {
                theirs.push(jupyter.first_cell(cell).await?);
            }
        }
        self.put_times(name, &ours, &theirs);
        Ok(())
    }

    async fn without_pause(&mut self) -> Result<(), BenchError> {
        let mut ours = Vec::new();
        for _ in 0..self.plan.cells {
            ours.push(self.worker.first_cell(&TRIVIAL).await?);
        }
        self.put_times("hurried", &ours, &[]);
        Ok(())
    }

    async fn without_spares(&mut self) -> Result<(), BenchError> {
        let mut ours = Vec::new();
        for _ in 0..self.plan.cells {
            sleep(CLEARING).await;
            ours.push(self.bare.first_cell(&TRIVIAL).await?);
        }
        self.put_times("forked", &ours, &[]);
        self.ours
            .put("sandbox.start", self.bare.start.as_secs_f64() * 1e3);
        Ok(())
    }

    async fn live(&mut self) -> Result<(), BenchError> {
        const AT_A_TIME: usize = 20;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut session = self.worker.address.open().await?;
        session.run(&TRIVIAL).await?;
        for _ in 0..(2 * self.plan.cells).div_ceil(AT_A_TIME) {
            for _ in 0..AT_A_TIME {
                let begun = Instant::now();
                let shown = session.run(&TRIVIAL).await?;
                ours.push(begun.elapsed().as_secs_f64() * 1e3);
                shown.check(&TRIVIAL)?;
            }
            if let Some(jupyter) = &mut self.jupyter {
                theirs.extend(jupyter.live_cells(&TRIVIAL, AT_A_TIME).await?);
            }
        }
        session.close().await?;
        self.put_times("live", &ours, &theirs);
        Ok(())
    }

    /// Memory is the proportional set size: shared memory is divided among its processes.
    async fn memory(&mut self) -> Result<(), BenchError> {
        let own = self.bare.processes();
        let Some(mib) = process::pss_mib(&own) else {
            return Err(BenchError::Unexpected(
                "only root may read the memory of the worker's processes",
            ));
        };
        self.ours.put("sandbox.memory.worker", mib);
        let mut sessions = Vec::new();
        for _ in 0..IDLE {
            sessions.push(self.bare.address.open().await?);
        }
        for (name, cell) in [("idle", &TRIVIAL), ("plot", &PLOT)] {
            for session in &mut sessions {
                session.run(cell).await?.check(cell)?;
            }
            // The increase is the memory of the sessions.
            let mut processes = self.bare.processes();
            processes.retain(|pid| !own.contains(pid));
            let mib = process::pss_mib(&processes).ok_or(BenchError::Nothing)?;
            let name = format!("sandbox.memory.{name}");
            self.ours.put(name.clone(), mib / IDLE as f64);
            if let Some(jupyter) = &mut self.jupyter {
                let kernels = self.plan.kernels.min(IDLE);
                let (_, mib) = jupyter.burst(cell, kernels).await?;
                self.theirs.put(name, mib / kernels as f64);
            }
        }
        for session in sessions {
            session.close().await?;
        }
        Ok(())
    }

    async fn burst(&mut self) -> Result<(), BenchError> {
        sleep(REFILL).await;
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..BURST {
            let door = self.worker.address.clone();
            tasks.spawn(async move {
                let mut session = door.open().await?;
                session.run(&TRIVIAL).await?.check(&TRIVIAL)?;
                Ok::<_, BenchError>((session, begun.elapsed().as_secs_f64() * 1e3))
            });
        }
        let (mut sessions, mut ms) = (Vec::new(), Vec::new());
        while let Some(joined) = tasks.join_next().await {
            match joined.expect("sessions do not panic") {
                Ok((session, elapsed)) => {
                    sessions.push(session);
                    ms.push(elapsed);
                }
                Err(error) => eprintln!("one of {BURST} sessions: {error}"),
            }
        }
        let mib = process::pss_mib(&self.worker.processes());
        put_burst(&mut self.ours, &ms, mib);
        for session in sessions {
            session.close().await?;
        }
        if let Some(jupyter) = &mut self.jupyter
            && self.plan.thorough
        {
            let (ms, mib) = jupyter.burst(&TRIVIAL, BURST).await?;
            put_burst(&mut self.theirs, &ms, Some(mib));
        }
        Ok(())
    }

    fn put_times(&mut self, name: &str, ours: &[f64], theirs: &[f64]) {
        for (figures, ms) in [(&mut self.ours, ours), (&mut self.theirs, theirs)] {
            if !ms.is_empty() {
                figures.put(format!("sandbox.{name}.p50"), median(ms));
                figures.put(format!("sandbox.{name}.p99"), percentile(ms, 0.99));
            }
        }
    }
}

/// Adds figures of sessions or kernels opened at once: when each had executed its cell, in milliseconds
/// from the start of all, and their memory.
fn put_burst(figures: &mut Figures, ms: &[f64], mib: Option<f64>) {
    let last = percentile(ms, 1.0);
    figures.put("sandbox.burst.good", ms.len() as f64);
    figures.put("sandbox.burst.p50", median(ms));
    figures.put("sandbox.burst.last", last);
    figures.put("sandbox.burst.rate", ms.len() as f64 / last * 1e3);
    if let Some(mib) = mib {
        figures.put("sandbox.burst.memory", mib);
    }
}
