//! Finds out how sessions can be confined here: builds one, and looks at it from outside and from
//! inside. Nothing is believed that was not seen.

use std::fs;
use std::sync::Arc;

use sandbox_protocol::Report;
use sandbox_protocol::Tier;
use sandbox_protocol::VERSION;

use crate::python::Venv;
use crate::settings::Settings;
use crate::settings::TierChoice;
use crate::supervisor::WorkerError;
use crate::supervisor::nursery::Newborn;
use crate::supervisor::nursery::Nursery;

/// Where sessions come from, and how they are confined.
pub struct Built {
    /// Makes sessions of the tier that the report names.
    pub nursery: Nursery,
    /// What is told of the worker.
    pub report: Report,
}

/// Builds a session in the strongest tier that holds and is allowed.
pub async fn build(settings: Arc<Settings>) -> Result<Built, WorkerError> {
    let venv = Venv::find(settings.python.as_deref())?;
    let tiers: &[Tier] = match settings.tier {
        TierChoice::Auto => &[Tier::Namespaces, Tier::Container],
        TierChoice::Namespaces => &[Tier::Namespaces],
        TierChoice::Container => &[Tier::Container],
        TierChoice::Unsafe => &[Tier::Unsafe],
    };
    let mut refused = Vec::new();
    for &tier in tiers {
        match try_tier(&settings, &venv, tier, &refused).await {
            Ok(built) => return Ok(built),
            Err(WorkerError::Unconfined(why)) => refused.push(format!("{}: {why}", name(tier))),
            Err(error) => return Err(error),
        }
    }
    Err(WorkerError::Unconfined(refused.join("; ")))
}

async fn try_tier(
    settings: &Arc<Settings>,
    venv: &Venv,
    tier: Tier,
    refused: &[String],
) -> Result<Built, WorkerError> {
    let nursery = Nursery::new(settings.clone(), venv, tier);
    let unconfined = |error: crate::supervisor::nursery::NoSession| WorkerError::Unconfined(error.to_string());
    let python = nursery.python().await.map_err(unconfined)?;
    venv.check_version(&python)?;
    let newborn = nursery.make().await.map_err(unconfined)?;
    let _ = &newborn as &Newborn;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(Built {
        report: Report {
            version: VERSION,
            tier,
            layers: Vec::new(),
            missing: refused.to_vec(),
            python,
            kernel: kernel.trim().to_owned(),
            sessions_max: 0,
            sessions: 0,
            idle_seconds: settings.idle_seconds,
            cell_seconds: settings.cell_seconds,
        },
        nursery,
    })
}

fn name(tier: Tier) -> &'static str {
    match tier {
        Tier::Namespaces => "namespaces",
        Tier::Container => "container",
        Tier::Unsafe => "unsafe",
    }
}
