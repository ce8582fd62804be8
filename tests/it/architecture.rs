//! The direction of imports. Rust lets the modules of a crate import each other freely, so this test
//! enforces it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Every module at the root from the top down, with those of ours that it may name besides itself.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("main", &["cli", "config", "server"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "server",
            "config",
            "telemetry",
            "http",
            "engine",
            "transfer",
            "webhooks",
            "files",
            "models",
            "sandbox_client",
            "store",
            "domain",
        ],
    ),
    (
        "server",
        &[
            "config",
            "telemetry",
            "http",
            "service",
            "engine",
            "webhooks",
            "retrieval",
            "events",
            "jobs",
            "files",
            "models",
            "sandbox_client",
            "store",
            "domain",
        ],
    ),
    ("config", &[]),
    ("telemetry", &[]),
    (
        "http",
        &[
            "service",
            "retrieval",
            "events",
            "files",
            "models",
            "wire",
            "domain",
        ],
    ),
    (
        "service",
        &["retrieval", "events", "files", "wire", "store", "domain"],
    ),
    (
        "engine",
        &[
            "retrieval",
            "events",
            "files",
            "models",
            "sandbox_client",
            "store",
            "domain",
        ],
    ),
    ("transfer", &["files", "wire", "store", "domain"]),
    ("webhooks", &["jobs", "wire", "store", "domain"]),
    ("retrieval", &["jobs", "files", "models", "store", "domain"]),
    ("events", &["store", "domain"]),
    ("jobs", &["files", "store", "domain"]),
    ("files", &["store", "domain"]),
    ("models", &["domain"]),
    ("sandbox_client", &["domain"]),
    ("wire", &["domain"]),
    ("store", &["domain"]),
    ("domain", &[]),
];

/// Files besides `store` that may have SQL: they inspect the database server, not its tables.
const SQL: &[&str] = &["cli/database.rs", "cli/doctor.rs"];

struct Source {
    /// The path below `src`.
    path: String,
    /// The module at the root that it belongs to.
    module: String,
    /// The text without comment lines.
    code: String,
}

fn sources() -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("the folder exists") {
            let path = entry.expect("the file is readable").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let sources = paths.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).expect("the file is readable");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let path = path
            .strip_prefix(&root)
            .expect("the path is below the root");
        let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
        let module = path.split(['/', '.']).next().unwrap_or_default().to_owned();
        Source {
            module,
            code: code.collect::<Vec<_>>().join("\n"),
            path,
        }
    });
    sources.collect()
}

#[test]
fn modules_name_only_those_below_them() {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(?:crate|assistd)::(\{|\w+)").expect("the pattern is valid")
    });
    // Test modules at the end of a file may use `super`.
    static SUPER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\bsuper::[^*]").expect("the pattern is valid"));
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for Source { path, module, code } in sources() {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(known, _)| *known == module) else {
            wrong.push(format!("{path}: the module {module} is not in the table"));
            continue;
        };
        seen.insert(module.clone());
        for named in NAMED.captures_iter(&code) {
            let named = &named[1];
            if named != module && !allowed.contains(&named) {
                wrong.push(format!("{path} names {named}"));
            }
        }
        // Paths to outside of the file's folder must start with `crate`, so that the pattern finds them.
        let depth = path.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
        if code.contains("super::super") || depth == 0 && SUPER.is_match(&code) {
            wrong.push(format!(
                "{path} climbs with `super` where `crate` says more"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let known: BTreeSet<_> = MAY_NAME
        .iter()
        .map(|(module, _)| (*module).to_owned())
        .collect();
    assert_eq!(seen, known, "the table names modules that are gone");
}

/// The files that match, except those of the allowed modules and files.
fn elsewhere(pattern: &str, allowed: &[&str]) -> Vec<String> {
    let pattern = Regex::new(pattern).expect("the pattern is valid");
    let found = sources().into_iter().filter(|source| {
        let is_allowed = allowed.contains(&&*source.module) || allowed.contains(&&*source.path);
        pattern.is_match(&source.code) && !is_allowed
    });
    found.map(|source| source.path).collect()
}

#[test]
fn all_sql_is_in_the_store() {
    let sql = "sqlx::query|raw_sql|QueryBuilder";
    let allowed = [SQL, &["store"]].concat();
    assert_eq!(elsewhere(sql, &allowed), [""; 0]);
    assert_eq!(
        elsewhere(sql, &["store"]).len(),
        SQL.len(),
        "the list is too long"
    );
}

/// The statements in a text that write the table `runs`: each from its verb to the end of its string
/// literal.
fn statements_on_runs(code: &str) -> Vec<String> {
    static WRITE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)\b(update|insert into|delete from) runs\b[^"]*"#)
            .expect("a valid pattern")
    });
    let statements = WRITE.find_iter(code);
    statements.map(|found| found.as_str().to_owned()).collect()
}

#[test]
fn two_files_write_runs_and_the_queue_changes_a_status_only_when_it_claims_or_commits() {
    let (api, queue) = ("store/runs.rs", "store/run_queue.rs");
    let mut in_queue = Vec::new();
    for source in sources() {
        let statements = statements_on_runs(&source.code);
        if source.path == queue {
            in_queue = statements;
        } else if source.path != api {
            assert_eq!(statements, [""; 0], "{} writes runs", source.path);
        }
    }
    // A claim begins a run; a commit ends it or hands it to the caller. Renewal, release and
    // suspension move leases and due times alone.
    let set_status = Regex::new(r"\bstatus =\s+(case|coalesce)").expect("a valid pattern");
    let (writes, others): (Vec<_>, Vec<_>) = in_queue
        .into_iter()
        .partition(|statement| set_status.is_match(statement));
    assert_eq!(writes.len(), 2, "{writes:#?}");
    assert!(
        writes
            .iter()
            .any(|claim| claim.contains("attempt = attempt + 1"))
    );
    assert!(
        writes
            .iter()
            .any(|commit| commit.contains("status = any (string_to_array(change.from_statuses"))
    );
    assert!(others.len() >= 6, "{others:#?}");
    for statement in others {
        assert!(!statement.contains("status ="), "{statement}");
    }
}

#[test]
fn transactions_are_opened_by_the_pool_alone() {
    // sqlx's own functions leave a connection in a transaction if their future is dropped.
    let own = r"PgPool\b|\bsqlx::Transaction\b|\{.*\bAcquire\b|TransactionManager|\.begin_with\(";
    assert_eq!(
        // The listener of notifications reconnects through a pool of sqlx's kind.
        elsewhere(
            own,
            &["store/chunks.rs", "store/notifications.rs", "store/pool.rs"]
        ),
        [""; 0]
    );
    let alone = [
        "cli/database.rs",
        "store/pool.rs",
        "store/vector_store_indexes.rs",
    ];
    assert_eq!(elsewhere("PgConnection::connect", &alone), [""; 0]);
}

#[test]
fn nothing_is_spawned_that_shutdown_does_not_wait_for() {
    // All of them keep and await the task's handle, except the task that waits for signals.
    let waits = [
        "cli/serve.rs",
        "http/connections/stall.rs",
        "sandbox_client/embedded.rs",
        "server/http.rs",
    ];
    assert_eq!(
        elsewhere(r"tokio::spawn\b|untime\.spawn\b", &waits),
        [""; 0]
    );
}

#[test]
fn http_is_served_in_one_place() {
    assert_eq!(
        elsewhere(
            r"\baxum::",
            &["http", "models/tests.rs", "wire/json/mod.rs"]
        ),
        [""; 0]
    );
}

#[test]
fn the_settings_alone_are_read_from_the_environment() {
    // The variables of the process that extracts documents are internal.
    let allowed = ["config", "main.rs"];
    assert_eq!(elsewhere(r"env::(var|args)", &allowed), [""; 0]);
}

#[test]
fn handlers_have_at_most_twenty_lines() {
    let handlers = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("http/handlers/"));
    let mut count = 0;
    for Source { path, code, .. } in handlers {
        for handler in code.split("\npub async fn ").skip(1) {
            let name = handler.split('(').next().unwrap_or_default();
            // The signature ends with the first line that opens the body, the body with a brace
            // that is not indented.
            let body = handler.lines().skip_while(|line| !line.ends_with('{'));
            let length = body.skip(1).take_while(|line| *line != "}").count();
            assert!(length <= 20, "{path}: {name} has {length} lines");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} handlers found");
}
