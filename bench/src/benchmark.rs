//! A whole benchmark: every step alternately on the server under test and on the null server, then the
//! steps of the sandbox worker and Jupyter, then those of vector stores.

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

/// Time limit of a step on one server.
const STEP_TIMEOUT: Duration = Duration::from_secs(180);

/// Runs the steps whose names start with `only`, or those of the plan.
pub(crate) async fn measure(
    tested: Kind,
    programs: Option<&Programs>,
    assets: &Assets,
    plan: &Plan,
    only: Option<&str>,
) -> Result<Report, BenchError> {
    let mut report = Report::new(tested.name());
    let mut steps = Step::ALL.to_vec();
    steps.retain(|step| match only {
        Some(prefix) => step.to_string().starts_with(prefix),
        None => plan.thorough || *step != Step::Crash,
    });
    steps.retain(|step| *step != Step::CodeRun || programs.is_some());
    if !steps.is_empty() {
        measure_servers(&steps, tested.clone(), plan, &mut report).await?;
    }
    match programs {
        Some(programs) => sandbox::measure(programs, plan, only, &mut report).await?,
        None => eprintln!("there is no sandbox worker to measure"),
    }
    if matches!(tested, Kind::Assistd { .. }) {
        retrieval::measure(&tested, assets, plan, only, &mut report).await?;
    }
    Ok(report)
}

async fn measure_servers(
    steps: &[Step],
    tested: Kind,
    plan: &Plan,
    report: &mut Report,
) -> Result<(), BenchError> {
    let upstream = Upstream::start().await?;
    let mut tested = Subject::start(tested, upstream.address).await?;
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
        for _ in 0..step.rounds(plan) {
            let figures = run_step(step, plan, &upstream, &mut tested).await;
            report.add_tested(step, figures);
            if !step.needs_database() {
                let figures = run_step(step, plan, &upstream, &mut null).await;
                report.add_other("null", step, figures);
            }
        }
        eprintln!("{step}: {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn run_step(
    step: Step,
    plan: &Plan,
    upstream: &Upstream,
    subject: &mut Subject,
) -> Result<Figures, BenchError> {
    let running = step.run(plan, upstream, subject);
    timeout(STEP_TIMEOUT, running)
        .await
        .unwrap_or(Err(BenchError::Unexpected("the step did not end in time")))
}
