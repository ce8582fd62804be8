//! A whole benchmark: every step alternately on the server under test, on the one it is compared with if
//! there is one, and on the null server; then the steps of the sandbox worker and Jupyter, then those of
//! vector stores.

use crate::BenchError;
use crate::report::Report;
use crate::retrieval;
use crate::retrieval::Assets;
use crate::sandbox;
use crate::sandbox::Programs;
use crate::steps::Figures;
use crate::steps::Plan;
use crate::steps::Step;
use crate::subject::Kind;
use crate::subject::Subject;
use crate::subject::Upstream;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::timeout;

/// Time limit of a step on one server, besides the duration of its load.
const STEP_TIMEOUT: Duration = Duration::from_secs(180);

/// The servers of a benchmark, besides the null server.
pub(crate) struct Servers {
    pub(crate) tested: Kind,
    /// The server that the tested one is compared with. With it, only steps of servers are run.
    pub(crate) base: Option<Kind>,
}

/// Runs the steps whose names start with `only`, or those of the plan.
pub(crate) async fn measure(
    servers: &Servers,
    programs: Option<&Programs>,
    assets: &Assets,
    plan: &Plan,
    only: Option<&str>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let mut steps = Step::ALL.to_vec();
    steps.retain(|step| match only {
        Some(prefix) => step.to_string().starts_with(prefix),
        None => plan.thorough || *step != Step::Crash,
    });
    steps.retain(|step| *step != Step::CodeRun || programs.is_some());
    steps.retain(|step| is_possible(*step, &servers.tested));
    if !steps.is_empty() {
        measure_servers(&steps, servers, plan, report).await?;
    }
    if servers.base.is_some() || servers.tested.replicas() > 1 {
        return Ok(());
    }
    match programs {
        Some(programs) => sandbox::measure(programs, plan, only, report).await?,
        None => eprintln!("there is no sandbox worker to measure"),
    }
    if matches!(servers.tested, Kind::Assistd { .. }) {
        retrieval::measure(&servers.tested, assets, plan, only, report).await?;
    }
    Ok(())
}

/// Whether a step can be run on such a server.
fn is_possible(step: Step, kind: &Kind) -> bool {
    match step {
        Step::Flow(_) => true,
        Step::Start => kind.is_embedded() && kind.replicas() == 1,
        _ => kind.replicas() == 1,
    }
}

async fn measure_servers(
    steps: &[Step],
    servers: &Servers,
    plan: &Plan,
    report: &mut Report,
) -> Result<(), BenchError> {
    let upstream = Upstream::start().await?;
    let mut tested = start(&servers.tested, plan, &upstream).await?;
    let mut base = match &servers.base {
        Some(kind) => Some(start(kind, plan, &upstream).await?),
        None => None,
    };
    let mut null = Subject::start(Kind::Null, upstream.address).await?;
    // Without a warm-up, the first figures would measure a cold server.
    let warm_up = [Step::WarmUp]
        .into_iter()
        .filter(|step| !steps.contains(step));
    for step in warm_up.chain(steps.iter().copied()) {
        if step.needs_database() && tested.database.is_none() {
            continue;
        }
        let start = Instant::now();
        for round in 0..step.rounds(plan) {
            let mut base = base.as_mut();
            // Neither server always comes first.
            if round % 2 == 1
                && let Some(base) = base.take()
            {
                report.add_base(step, run_step(step, plan, &upstream, base).await);
            }
            let figures = run_step(step, plan, &upstream, &mut tested).await;
            report.add_tested(step, figures);
            if let Some(base) = base {
                report.add_base(step, run_step(step, plan, &upstream, base).await);
            }
            if !step.needs_database() {
                let figures = run_step(step, plan, &upstream, &mut null).await;
                report.add_other("null", step, figures);
            }
        }
        eprintln!("{step}: {:.1} s", start.elapsed().as_secs_f64());
    }
    if plan.shows_tables
        && let Some(database) = &tested.database
    {
        report.add_tables(database.tables().await?);
    }
    Ok(())
}

/// Starts a server and fills its tables if the plan says so.
async fn start(kind: &Kind, plan: &Plan, upstream: &Upstream) -> Result<Subject, BenchError> {
    let subject = Subject::start(kind.clone(), upstream.address).await?;
    if let Some(growth) = &plan.growth {
        let start = Instant::now();
        growth.fill(&subject).await?;
        eprintln!("growth: {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(subject)
}

async fn run_step(
    step: Step,
    plan: &Plan,
    upstream: &Upstream,
    subject: &mut Subject,
) -> Result<Figures, BenchError> {
    let running = step.run(plan, upstream, subject);
    timeout(STEP_TIMEOUT + plan.stretch, running)
        .await
        .unwrap_or(Err(BenchError::Unexpected("the step did not end in time")))
}
