//! What is done with sessions and kernels.

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

/// No step may take longer than this.
const STEP_LIMIT: Duration = Duration::from_secs(300);

/// By then the worker has made another spare for the one that was taken.
const REFILL: Duration = Duration::from_millis(300);

/// By then the kernel has cleared up after a session that ended.
const CLEARING: Duration = Duration::from_millis(100);

/// Idle sessions whose memory is measured: as many as a worker has by default.
const IDLE: usize = 16;

/// Sessions that are asked for at once.
const BURST: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A trivial cell in a new session.
    New,
    /// The same without a pause, so that there are seldom spares.
    Hurried,
    /// The same by a worker that keeps no spares.
    Forked,
    /// Trivial cells in one session.
    Live,
    /// The usual imports in a new session.
    Imports,
    /// A plot in a new session.
    Plot,
    /// What idle sessions take.
    Memory,
    /// Many new sessions at the same time.
    Burst,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::New,
        Self::Hurried,
        Self::Forked,
        Self::Live,
        Self::Imports,
        Self::Plot,
        Self::Memory,
        Self::Burst,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::New => "sandbox.new",
            Self::Hurried => "sandbox.hurried",
            Self::Forked => "sandbox.forked",
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

/// Takes the steps whose names begin with `only`, or all.
pub(crate) async fn sit(
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
    let mut sitting = Sitting {
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
    sitting.warm_up().await?;
    for step in steps {
        let (start, strange) = (Instant::now(), process::cpu_of_strangers());
        let taken = timeout(STEP_LIMIT, sitting.take(step)).await;
        let in_time = taken.is_ok();
        let taken = taken.unwrap_or(Err(BenchError::Unexpected("the step did not end in time")));
        let elapsed = start.elapsed().as_secs_f64();
        let strange = process::cpu_of_strangers().saturating_sub(strange);
        let [mut ours, mut theirs] = [&mut sitting.ours, &mut sitting.theirs].map(std::mem::take);
        ours.strangers = strange.as_secs_f64() / elapsed;
        theirs.strangers = ours.strangers;
        report.add_tested(step, taken.map(|()| ours));
        report.add_other("jupyter", step, Ok(theirs));
        eprintln!("{step}: {elapsed:.1} s");
        if !in_time {
            // Answers to what it asked may still come.
            break;
        }
    }
    match sitting.jupyter {
        Some(jupyter) => jupyter.end().await,
        None => Ok(()),
    }
}

struct Sitting<'a> {
    /// With its default settings, but for the number of sessions.
    worker: Worker,
    /// Without spares.
    bare: Worker,
    jupyter: Option<Jupyter>,
    plan: &'a Plan,
    ours: Figures,
    theirs: Figures,
}

impl Sitting<'_> {
    /// Brings the packages of both into the memory of the machine, and Jupyter's cache of fonts
    /// into its folder.
    async fn warm_up(&mut self) -> Result<(), BenchError> {
        self.worker.first_cell(&PLOT).await?;
        self.bare.first_cell(&PLOT).await?;
        if let Some(jupyter) = &mut self.jupyter {
            jupyter.first_cell(&PLOT).await?;
        }
        Ok(())
    }

    async fn take(&mut self, step: Step) -> Result<(), BenchError> {
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
            Step::Hurried => self.hurried().await,
            Step::Forked => self.forked().await,
            Step::Live => self.live().await,
            Step::Memory => self.memory().await,
            Step::Burst => self.burst().await,
        }
    }

    /// First cells of so many sessions and kernels by turns, one at a time.
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

    async fn hurried(&mut self) -> Result<(), BenchError> {
        let mut ours = Vec::new();
        for _ in 0..self.plan.cells {
            ours.push(self.worker.first_cell(&TRIVIAL).await?);
        }
        self.put_times("hurried", &ours, &[]);
        Ok(())
    }

    async fn forked(&mut self) -> Result<(), BenchError> {
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
        let mut session = self.worker.door.open().await?;
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

    /// Memory is the proportional set size: what processes share is divided among them.
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
            sessions.push(self.bare.door.open().await?);
        }
        for (name, cell) in [("idle", &TRIVIAL), ("plot", &PLOT)] {
            for session in &mut sessions {
                session.run(cell).await?.check(cell)?;
            }
            // Everything but what was there before is of the sessions.
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
            let door = self.worker.door.clone();
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

/// Figures of sessions or kernels that were asked for at once: when each had run its cell, in
/// milliseconds from the start of all, and the memory they then took.
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
