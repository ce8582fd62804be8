//! Random plans of requests and disruptions, executed on real servers and compared with a small
//! model of a thread.
//!
//! | variable                    | meaning                                                    |
//! |-----------------------------|------------------------------------------------------------|
//! | `ASSISTD_MODEL_TRANSITIONS` | how many transitions to execute (default 2000)             |
//! | `ASSISTD_MODEL_SEED`        | seed of the first plan (default: random; printed)          |
//! | `ASSISTD_MODEL_PLAN`        | path of one plan to replay instead                         |
//!
//! A plan that fails is reduced, printed and saved to `tests/it/model/plans`. Plans that are
//! committed there are replayed first.

mod driver;
mod plan;
mod reference;
mod system;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;

use plan::Plan;
use system::System;

const PLANS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/model/plans");

/// Plans that are executed concurrently, each on a system of its own.
const LANES: usize = 6;

/// How long to look for a smaller plan that fails.
const TIME_TO_REDUCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn threads_behave_like_the_reference_whatever_happens() {
    if let Some(path) = variable::<PathBuf>("ASSISTD_MODEL_PLAN") {
        return replay(&path).await;
    }
    for path in committed_plans() {
        replay(&path).await;
    }
    let budget = variable("ASSISTD_MODEL_TRANSITIONS").unwrap_or(2000);
    let seed: u64 = variable("ASSISTD_MODEL_SEED").unwrap_or_else(rand::random);
    eprintln!("ASSISTD_MODEL_SEED={seed}");
    if let Some((plan, cause)) = find_failure(seed, budget).await {
        report(plan, cause).await;
    }
}

/// Executes generated plans until one fails or this many transitions are executed.
async fn find_failure(seed: u64, transitions: usize) -> Option<(Plan, String)> {
    let executed = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let lanes = (0..LANES).map(async |lane| {
        let mut system = System::start().await;
        for n in (lane..).step_by(LANES) {
            if executed.load(Ordering::Relaxed) >= transitions || has_failed.load(Ordering::Relaxed)
            {
                break;
            }
            let plan = Plan::generate(seed.wrapping_add(n as u64));
            executed.fetch_add(plan.0.len(), Ordering::Relaxed);
            if let Err(cause) = try_execute(&mut system, &plan).await {
                has_failed.store(true, Ordering::Relaxed);
                return Some((plan, cause));
            }
        }
        None
    });
    join_all(lanes).await.into_iter().flatten().next()
}

async fn replay(path: &Path) {
    let plan = std::fs::read_to_string(path).expect("the file is readable");
    let plan: Plan = serde_json::from_str(&plan).expect("the file has a plan");
    let mut system = System::start().await;
    if let Err(cause) = try_execute(&mut system, &plan).await {
        panic!("{}: {cause}", path.display());
    }
}

/// Executes the plan; an error says what the reference does not allow.
async fn try_execute(system: &mut System, plan: &Plan) -> Result<(), String> {
    let executed = AssertUnwindSafe(driver::execute(system, plan)).catch_unwind();
    executed
        .await
        .map_err(|panic| match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic
                .downcast_ref()
                .copied()
                .unwrap_or("a panic")
                .to_owned(),
        })
}

/// Reduces a plan that fails, saves it and panics.
async fn report(mut plan: Plan, mut cause: String) {
    eprintln!("a plan fails: {cause}\n{}", plan.to_json());
    let mut system = System::start().await;
    let deadline = Instant::now() + TIME_TO_REDUCE;
    let mut size = plan.0.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < plan.0.len() && Instant::now() < deadline {
            let smaller = plan.without(start, size);
            match try_execute(&mut system, &smaller).await {
                Err(error) => (plan, cause) = (smaller, error),
                Ok(()) => start += size,
            }
        }
        size /= 2;
    }
    let path = Path::new(PLANS).join("failed.json");
    std::fs::write(&path, plan.to_json()).expect("the source tree is writable");
    panic!(
        "{cause}\n{}\nreplay: ASSISTD_MODEL_PLAN={}",
        plan.to_json(),
        path.display()
    );
}

fn committed_plans() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(PLANS).expect("the folder is committed");
    let paths = entries.map(|entry| entry.expect("the folder is readable").path());
    let mut plans: Vec<PathBuf> = paths
        .filter(|path| path.extension() == Some("json".as_ref()))
        .collect();
    plans.sort();
    plans
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    let Ok(value) = value.parse() else {
        panic!("{name}={value} is not valid")
    };
    Some(value)
}
