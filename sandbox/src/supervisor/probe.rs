//! Finds out how sessions can be confined here: builds one, and looks at it from outside and from
//! inside. Nothing is believed that was not seen.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use sandbox_protocol::Report;
use sandbox_protocol::Tier;
use sandbox_protocol::VERSION;
use serde::Deserialize;
use tokio::time::timeout;

use crate::confine::landlock::ABI_WITH_SCOPES;
use crate::confine::limits::NO_CORE_BYTES;
use crate::python::Venv;
use crate::settings::Settings;
use crate::settings::TierChoice;
use crate::supervisor::WorkerError;
use crate::supervisor::kernel_link::Order;
use crate::supervisor::kernel_link::Said;
use crate::supervisor::session_factory::Newborn;
use crate::supervisor::session_factory::NoSession;
use crate::supervisor::session_factory::Nursery;

/// How long the look from inside may take.
const PROBE_TIME: Duration = Duration::from_secs(30);

/// Namespaces that a session of the strongest tier has of its own, as `/proc/PID/ns` names them.
const NAMESPACES: &[&str] = &["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// What would help where a session gets no namespaces.
const ALLOW_NAMESPACES: &str = "in a container, allow clone, unshare, setns, mount, umount2, \
    pivot_root and mount_setattr by its seccomp profile, and by AppArmor where that is enabled; \
    on the host, allow unprivileged user namespaces";

/// Tries what a session must not be able to do, and prints which attempts were refused.
const PROBE: &str = r#"
import ctypes, json, os, socket
def refused(attempt):
    try:
        attempt()
    except OSError:
        return True
    return False
def home(folder):
    if all(any((path + "/").startswith(f"{folder}/{name}/") for path in OWN) for name in os.listdir(folder)):
        raise OSError
def unshare():
    if ctypes.CDLL(None).unshare(0x10000000):
        raise OSError
print(json.dumps({
    "network": all(refused(lambda f=f: socket.socket(f, socket.SOCK_DGRAM))
                   for f in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)),
    "secrets": refused(lambda: open("/etc/shadow").read()),
    "home": all(refused(lambda d=d: home(d)) for d in ("/root", "/home")),
    "programs": refused(lambda: open("/usr/assistd-probe", "x")),
    "namespaces": refused(unshare),
    "signals": refused(lambda: os.kill(SUPERVISOR, 0)),
    "workspace": not refused(lambda: os.remove(open("/mnt/data/.probe", "w").name)),
}))
"#;

/// What [`PROBE`] prints.
#[derive(Debug, Deserialize)]
struct Inside {
    network: bool,
    secrets: bool,
    home: bool,
    programs: bool,
    namespaces: bool,
    signals: bool,
    workspace: bool,
}

/// Where sessions come from, and how they are confined.
pub struct Built {
    /// Makes sessions of the tier that the report names.
    pub nursery: Nursery,
    /// What is told of the worker.
    pub report: Report,
}

/// What was seen.
#[derive(Default)]
struct Findings {
    layers: Vec<String>,
    missing: Vec<String>,
    /// What a worker must not do without.
    fatal: Vec<String>,
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
            Err(WorkerError::Unconfined(why)) => refused.push(why),
            Err(error) => return Err(error),
        }
    }
    Err(WorkerError::Unconfined(format!(
        "sessions cannot be confined here: {}",
        refused.join("; ")
    )))
}

async fn try_tier(
    settings: &Arc<Settings>,
    venv: &Venv,
    tier: Tier,
    refused: &[String],
) -> Result<Built, WorkerError> {
    let unconfined = |why: &dyn std::fmt::Display| {
        let help = match tier {
            Tier::Namespaces => format!(" ({ALLOW_NAMESPACES})"),
            Tier::Container | Tier::Unsafe => String::new(),
        };
        WorkerError::Unconfined(format!("{}: {why}{help}", name(tier)))
    };
    let nursery = Nursery::new(settings.clone(), venv, tier);
    let python = nursery.python().await.map_err(|error| match error {
        NoSession::Python(_) => WorkerError::Warmth(error),
        NoSession::Other(_) => unconfined(&error),
    })?;
    venv.check_version(&python)?;
    let mut newborn = nursery.make().await.map_err(|error| unconfined(&error))?;
    let mut findings = Findings::default();
    findings.look_from_outside(&newborn, tier, settings);
    match look_from_inside(&mut newborn, venv).await {
        Ok(inside) => findings.look_from_inside(&inside, tier),
        Err(error) => return Err(unconfined(&error)),
    }
    if tier == Tier::Unsafe {
        findings.missing.append(&mut findings.fatal);
        tracing::warn!("sessions are not kept in: for development only");
    }
    if !findings.fatal.is_empty() {
        return Err(unconfined(&findings.fatal.join(", ")));
    }
    findings.missing.extend_from_slice(refused);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(Built {
        report: Report {
            version: VERSION,
            tier,
            layers: findings.layers,
            missing: findings.missing,
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

impl Findings {
    fn look_from_outside(&mut self, newborn: &Newborn, tier: Tier, settings: &Settings) {
        let pid = newborn.vitals.python_pid().unwrap_or_default();
        let of = |what: &str| format!("/proc/{pid}/{what}");
        let own = tier == Tier::Namespaces;
        for kind in NAMESPACES {
            let theirs = fs::read_link(of(&format!("ns/{kind}"))).ok();
            let ours = fs::read_link(format!("/proc/self/ns/{kind}")).ok();
            let differ = theirs.is_some() && theirs != ours;
            self.note(&format!("{kind} namespace"), differ, own);
        }
        let root = |path: &str| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let own_root = root(&of("root/")).is_some_and(|theirs| Some(theirs) != root("/"));
        self.note("root of its own", own_root, own);
        if newborn.processes && own {
            self.layers.push("process list of its own".into());
        }
        if newborn.user.is_some() {
            self.layers.push("user of its own".into());
        }

        let status = fs::read_to_string(of("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.strip_prefix(':')?.trim())
        };
        self.note("syscall filter", field("Seccomp") == Some("2"), true);
        self.note("no new privileges", field("NoNewPrivs") == Some("1"), true);
        let none = |set| field(set).is_some_and(|bits| bits.trim_matches('0').is_empty());
        let powerless = ["CapInh", "CapPrm", "CapEff", "CapAmb"]
            .into_iter()
            .all(none);
        self.note("no capabilities", powerless, true);
        let environment = fs::read(of("environ"));
        let empty = environment.is_ok_and(|bytes| bytes.is_empty());
        self.note("empty environment", empty, true);
        let limits = fs::read_to_string(of("limits")).unwrap_or_default();
        let limited = |name: &str, value: u64| {
            limits.lines().any(|line| {
                line.strip_prefix(name)
                    .and_then(|rest| rest.split_whitespace().next())
                    == Some(value.to_string().as_str())
            })
        };
        let holds = limited("Max processes", settings.processes)
            && limited("Max open files", settings.open_files)
            && limited("Max core file size", NO_CORE_BYTES);
        self.note("resource limits", holds, true);

        match newborn.landlock {
            0 => self.note(
                "Landlock (Linux 5.13 or newer, enabled by lsm=)",
                false,
                !own,
            ),
            version => self.layers.push(format!("Landlock {version}")),
        }
        if (1..ABI_WITH_SCOPES).contains(&newborn.landlock) {
            self.missing
                .push("scopes of Landlock: they need Linux 6.12".into());
        }
        if !own {
            let alone = only_loopback();
            self.note(
                "no network interface but lo (run the container without a network)",
                alone,
                true,
            );
        }
    }

    fn look_from_inside(&mut self, inside: &Inside, tier: Tier) {
        let own = tier == Tier::Namespaces;
        self.note("no network", inside.network, true);
        self.note("no secrets of the system", inside.secrets, true);
        self.note("no home folders", inside.home, true);
        self.note("read-only programs", inside.programs, true);
        self.note("no further namespaces", inside.namespaces, true);
        // The number of a worker that is its container's first process names, in a process namespace,
        // the session's own first process: there is no name for the worker at all.
        let nameless = own && std::process::id() == 1;
        // Without a process namespace it takes Landlock's scopes or a user of its own.
        self.note("no signals to the worker", inside.signals || nameless, own);
        if !inside.workspace {
            self.fatal.push("a writable /mnt/data is missing".into());
        }
    }

    /// Notes a layer that holds or does not; `needed` ones must.
    fn note(&mut self, layer: &str, holds: bool, needed: bool) {
        match (holds, needed) {
            (true, _) => self.layers.push(layer.into()),
            (false, true) => self.fatal.push(format!("missing: {layer}")),
            (false, false) => self.missing.push(layer.into()),
        }
    }
}

/// Runs [`PROBE`] in the session.
async fn look_from_inside(newborn: &mut Newborn, venv: &Venv) -> Result<Inside, NoSession> {
    // Python may be installed below a home folder.
    let own = serde_json::json!([venv.base, venv.path]).to_string();
    let code = PROBE
        .replace("SUPERVISOR", &std::process::id().to_string())
        .replace("OWN", &own);
    let look = async {
        newborn
            .link
            .send(&Order::Run { id: 1, code: &code })
            .await?;
        let mut printed = String::new();
        loop {
            match newborn.link.ear.next().await? {
                Said::Text { text, .. } => printed.push_str(&text),
                Said::Done { .. } => return Ok(printed),
                Said::Ready | Said::Warm | Said::Image { .. } => {}
            }
        }
    };
    let printed = timeout(PROBE_TIME, look)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error: io::Error| NoSession::new(format!("a probe did not end: {error}")))?;
    serde_json::from_str(printed.trim())
        .map_err(|_| NoSession::new(format!("a probe failed: {}", printed.trim())))
}

/// Whether this process can reach no network interface but its own loopback.
fn only_loopback() -> bool {
    let Ok(table) = fs::read_to_string("/proc/self/net/dev") else {
        return false;
    };
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .all(|(name, _)| name.trim() == "lo")
}

fn name(tier: Tier) -> &'static str {
    match tier {
        Tier::Namespaces => "namespaces",
        Tier::Container => "container",
        Tier::Unsafe => "unsafe",
    }
}
