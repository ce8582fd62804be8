//! One sitting: every step on the server under test and on the null server by turns.

use crate::BenchError;
use crate::report::Report;
use crate::steps::Figures;
use crate::steps::Plan;
use crate::steps::Step;
use crate::subject::Kind;
use crate::subject::Subject;
use crate::subject::Upstream;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::timeout;

/// No step may take longer than this on one server.
const STEP_LIMIT: Duration = Duration::from_secs(180);

/// Takes the steps whose names begin with `only`, or those of the plan.
pub(crate) async fn sit(
    tested: Kind,
    plan: &Plan,
    only: Option<&str>,
) -> Result<Report, BenchError> {
    let upstream = Upstream::start().await?;
    let mut tested = Subject::start(tested, upstream.address).await?;
    let mut null = Subject::start(Kind::Null, upstream.address).await?;
    let mut report = Report::new(tested.name);
    for step in Step::ALL {
        let wanted = match only {
            // Without the warm-up the first figures would be of a cold server.
            Some(prefix) => step == Step::WarmUp || step.to_string().starts_with(prefix),
            None => plan.thorough || step != Step::Crash,
        };
        if !wanted || (step.needs_database() && tested.database.is_none()) {
            continue;
        }
        let start = Instant::now();
        for _ in 0..step.rounds(plan) {
            let figures = take(step, plan, &upstream, &mut tested).await;
            report.add_tested(step, figures);
            if !step.needs_database() {
                report.add_null(step, take(step, plan, &upstream, &mut null).await);
            }
        }
        eprintln!("{step}: {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(report)
}

async fn take(
    step: Step,
    plan: &Plan,
    upstream: &Upstream,
    subject: &mut Subject,
) -> Result<Figures, BenchError> {
    let taking = step.take(plan, upstream, subject);
    timeout(STEP_LIMIT, taking)
        .await
        .unwrap_or(Err(BenchError::Unexpected("the step did not end in time")))
}
