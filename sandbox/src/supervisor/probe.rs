//! Finds the strongest tier that works here: creates a session, and verifies its confinement from
//! outside (`/proc`) and from inside (attempts that must fail).

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
use crate::python::VenvError;
use crate::settings::Settings;
use crate::settings::TierChoice;
use crate::supervisor::kernel_link::KernelMessage;
use crate::supervisor::kernel_link::KernelRequest;
use crate::supervisor::session_factory::ForkedSession;
use crate::supervisor::session_factory::SessionFactory;
use crate::supervisor::zygote_process::SessionError;

/// Time limit of the attempts from inside.
const PROBE_TIME: Duration = Duration::from_secs(30);

/// Namespaces of a session in the namespaces tier, by their names in `/proc/PID/ns`.
const NAMESPACES: &[&str] = &["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Remedy if a session gets no namespaces.
const NAMESPACES_REMEDY: &str = "in a container, allow clone, unshare, setns, mount, umount2, \
    pivot_root and mount_setattr by its seccomp profile, and by AppArmor where that is enabled; \
    on the host, allow unprivileged user namespaces";

/// Attempts what a session must not be able to do, and prints which attempts were refused.
const PROBE_CODE: &str = r#"
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

/// The output of [`PROBE_CODE`].
#[derive(Debug, Deserialize)]
struct ProbeResult {
    network: bool,
    secrets: bool,
    home: bool,
    programs: bool,
    namespaces: bool,
    signals: bool,
    workspace: bool,
}

/// Why no session can be created here; the message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Venv(#[from] VenvError),
    #[error(transparent)]
    Python(SessionError),
    /// Sessions cannot be confined as required.
    #[error("{0}")]
    Unconfined(String),
}

/// A session factory whose sessions were verified.
pub struct VerifiedFactory {
    pub factory: SessionFactory,
    /// Its `sessions` and `sessions_max` are still 0.
    pub report: Report,
}

/// The confinement of a session.
#[derive(Default)]
struct Findings {
    layers: Vec<String>,
    missing: Vec<String>,
    /// Missing layers without which the worker must not serve.
    fatal: Vec<String>,
}

/// Creates a session factory of the strongest tier that works and that the settings allow.
pub async fn create_factory(settings: Arc<Settings>) -> Result<VerifiedFactory, ProbeError> {
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
            Ok(verified) => return Ok(verified),
            Err(ProbeError::Unconfined(reason)) => refused.push(reason),
            Err(error) => return Err(error),
        }
    }
    Err(ProbeError::Unconfined(format!(
        "sessions cannot be confined here: {}",
        refused.join("; ")
    )))
}

async fn try_tier(
    settings: &Arc<Settings>,
    venv: &Venv,
    tier: Tier,
    refused: &[String],
) -> Result<VerifiedFactory, ProbeError> {
    let unconfined = |reason: &dyn std::fmt::Display| {
        let remedy = match tier {
            Tier::Namespaces => format!(" ({NAMESPACES_REMEDY})"),
            Tier::Container | Tier::Unsafe => String::new(),
        };
        ProbeError::Unconfined(format!("{}: {reason}{remedy}", tier_name(tier)))
    };
    let factory = SessionFactory::new(settings.clone(), venv, tier);
    let python = factory
        .python_version()
        .await
        .map_err(|error| match error {
            SessionError::Python(_) => ProbeError::Python(error),
            SessionError::Other(_) => unconfined(&error),
        })?;
    venv.check_version(&python)?;
    let mut session = factory.fork().await.map_err(|error| unconfined(&error))?;
    let mut findings = Findings::default();
    findings.inspect_process(&session, tier, settings);
    match run_probe(&mut session, venv).await {
        Ok(result) => findings.evaluate_probe(&result, tier),
        Err(error) => return Err(unconfined(&error)),
    }
    if tier == Tier::Unsafe {
        findings.missing.append(&mut findings.fatal);
        tracing::warn!("sessions are NOT isolated; development only");
    }
    if !findings.fatal.is_empty() {
        return Err(unconfined(&findings.fatal.join(", ")));
    }
    findings.missing.extend_from_slice(refused);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(VerifiedFactory {
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
        factory,
    })
}

impl Findings {
    fn inspect_process(&mut self, session: &ForkedSession, tier: Tier, settings: &Settings) {
        let pid = session.processes.python_pid().unwrap_or_default();
        let of = |what: &str| format!("/proc/{pid}/{what}");
        let has_namespaces = tier == Tier::Namespaces;
        for kind in NAMESPACES {
            let session_namespace = fs::read_link(of(&format!("ns/{kind}"))).ok();
            let own_namespace = fs::read_link(format!("/proc/self/ns/{kind}")).ok();
            let differ = session_namespace.is_some() && session_namespace != own_namespace;
            self.record(&format!("{kind} namespace"), differ, has_namespaces);
        }
        let root = |path: &str| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let has_own_root = root(&of("root/")).is_some_and(|it| Some(it) != root("/"));
        self.record("root of its own", has_own_root, has_namespaces);
        if session.has_process_list && has_namespaces {
            self.layers.push("process list of its own".into());
        }
        if session.user.is_some() {
            self.layers.push("user of its own".into());
        }

        let status = fs::read_to_string(of("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.strip_prefix(':')?.trim())
        };
        self.record("syscall filter", field("Seccomp") == Some("2"), true);
        self.record("no new privileges", field("NoNewPrivs") == Some("1"), true);
        let none = |set| field(set).is_some_and(|bits| bits.trim_matches('0').is_empty());
        let has_no_capabilities = ["CapInh", "CapPrm", "CapEff", "CapAmb"]
            .into_iter()
            .all(none);
        self.record("no capabilities", has_no_capabilities, true);
        let environment = fs::read(of("environ"));
        let empty = environment.is_ok_and(|bytes| bytes.is_empty());
        self.record("empty environment", empty, true);
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
        self.record("resource limits", holds, true);

        match session.landlock {
            0 => self.record(
                "Landlock (Linux 5.13 or newer, enabled by lsm=)",
                false,
                !has_namespaces,
            ),
            version => self.layers.push(format!("Landlock {version}")),
        }
        if (1..ABI_WITH_SCOPES).contains(&session.landlock) {
            self.missing
                .push("Landlock scopes (Linux 6.12 or newer)".into());
        }
        if !has_namespaces {
            self.record(
                "no network interface but lo (run the container without a network)",
                has_only_loopback(),
                true,
            );
        }
    }

    fn evaluate_probe(&mut self, result: &ProbeResult, tier: Tier) {
        let has_namespaces = tier == Tier::Namespaces;
        self.record("no network", result.network, true);
        self.record("no secrets of the system", result.secrets, true);
        self.record("no home folders", result.home, true);
        self.record("read-only programs", result.programs, true);
        self.record("no further namespaces", result.namespaces, true);
        // If the worker has process id 1, that number means the session's own init inside its
        // process namespace, and no number names the worker.
        let is_unnameable = has_namespaces && std::process::id() == 1;
        // Without a process namespace it takes Landlock scopes or a user of its own.
        let no_signals = result.signals || is_unnameable;
        self.record("no signals to the worker", no_signals, has_namespaces);
        if !result.workspace {
            self.fatal.push("a writable /mnt/data is missing".into());
        }
    }

    /// Records whether a layer holds; a missing one is fatal if it is `required`.
    fn record(&mut self, layer: &str, holds: bool, required: bool) {
        match (holds, required) {
            (true, _) => self.layers.push(layer.into()),
            (false, true) => self.fatal.push(format!("missing: {layer}")),
            (false, false) => self.missing.push(layer.into()),
        }
    }
}

/// Runs [`PROBE_CODE`] in the session.
async fn run_probe(session: &mut ForkedSession, venv: &Venv) -> Result<ProbeResult, SessionError> {
    // Python may be installed below a home folder, which is then visible.
    let own = serde_json::json!([venv.base, venv.path]).to_string();
    let code = PROBE_CODE
        .replace("SUPERVISOR", &std::process::id().to_string())
        .replace("OWN", &own);
    let exchange = async {
        let request = KernelRequest::Run { id: 1, code: &code };
        session.link.send(&request).await?;
        let mut printed = String::new();
        loop {
            match session.link.messages.next().await? {
                KernelMessage::Text { text, .. } => printed.push_str(&text),
                KernelMessage::Done { .. } => return Ok(printed),
                KernelMessage::Ready | KernelMessage::Warm | KernelMessage::Image { .. } => {}
            }
        }
    };
    let printed = timeout(PROBE_TIME, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error: io::Error| {
            SessionError::new(format!("the probe did not complete: {error}"))
        })?;
    serde_json::from_str(printed.trim())
        .map_err(|_| SessionError::new(format!("the probe failed: {}", printed.trim())))
}

/// Whether this process sees no network interface except loopback.
fn has_only_loopback() -> bool {
    let Ok(table) = fs::read_to_string("/proc/self/net/dev") else {
        return false;
    };
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .all(|(name, _)| name.trim() == "lo")
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Namespaces => "namespaces",
        Tier::Container => "container",
        Tier::Unsafe => "unsafe",
    }
}
