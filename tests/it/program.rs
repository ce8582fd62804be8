//! The program from the command line: settings, commands, start and shutdown.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use embedded_postgres::Embedded;
use embedded_postgres::Options;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::client::{Client, id};
use crate::eventually;
use crate::process::PROGRAM;
use crate::process::ServerProcess;
use crate::process::assistd;
use crate::process::assistd_at;
use crate::process::output;
use crate::process::text;

fn server_runs(data_dir: &Path) -> bool {
    data_dir.join("postgres/postmaster.pid").exists()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("assistd.toml");
    std::fs::write(&file, "postgres_bin = \"/from-file\"\n")
        .expect("the temporary folder is writable");
    let place = |command: &mut std::process::Command| {
        let output = output(command.args(["keys", "list"]));
        assert!(!output.status.success());
        text(&output)
    };
    let with_file = || {
        let mut command = assistd(folder.path());
        command
            .env("ASSISTD_CONFIG", &file)
            .env_remove("ASSISTD_POSTGRES_BIN");
        command
    };
    let printed = place(&mut with_file());
    assert!(printed.contains("/from-file: "), "{printed}");
    let printed = place(with_file().env("ASSISTD_POSTGRES_BIN", "/from-environment"));
    assert!(printed.contains("/from-environment: "), "{printed}");
    let printed = place(
        with_file()
            .env("ASSISTD_POSTGRES_BIN", "/from-environment")
            .args(["--postgres-bin", "/from-flag"]),
    );
    assert!(printed.contains("/from-flag: "), "{printed}");
    // Compose files pass unset variables as empty strings.
    let printed = place(with_file().env("ASSISTD_POSTGRES_BIN", ""));
    assert!(printed.contains("/from-file: "), "{printed}");
}

#[test]
fn a_signal_stops_the_server_and_its_database_in_good_order() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = ServerProcess::start(&mut assistd(folder.path()));
        assert!(server_runs(folder.path()));
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(!server_runs(folder.path()));
    }
}

/// Writes a program that an idle server takes for a sandbox worker; its path.
fn write_fake_worker(folder: &Path) -> std::path::PathBuf {
    let program = folder.join("worker");
    std::fs::write(&program, "#!/bin/sh\necho ready\nexec cat\n")
        .expect("the temporary folder is writable");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, executable).expect("the file is ours");
    program
}

#[test]
fn a_server_at_rest_stops_without_a_warning_when_its_terminal_or_its_manager_says_so() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let program = write_fake_worker(folder.path());
    let log = folder.path().join("log");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = ServerProcess::start(
            assistd(folder.path())
                .env("ASSISTD_SANDBOX", "embedded")
                .env("ASSISTD_SANDBOX_PROGRAM", &program)
                .env("ASSISTD_EMBEDDING_MODEL", "off")
                .process_group(0)
                .stderr(std::fs::File::create(&log).expect("the folder is writable")),
        );
        let logged = || std::fs::read_to_string(&log).expect("the log is UTF-8");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !logged().contains("the sandbox worker is ready") {
            assert!(std::time::Instant::now() < deadline, "{}", logged());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        server.signal_group(signal);
        assert_eq!(server.wait().code(), Some(0));
        let logged = logged();
        assert!(logged.contains("stopping"), "{logged}");
        assert!(
            !logged.contains("WARN") && !logged.contains("ERROR"),
            "{logged}"
        );
    }
}

#[test]
fn keys_are_made_listed_and_revoked_beside_a_running_server_and_survive_its_death() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let server = ServerProcess::start(&mut assistd(folder.path()));
    assert!(
        server.greeting.contains("any is accepted"),
        "{}",
        server.greeting
    );

    let created = output(assistd(folder.path()).args(["keys", "create", "--project", "acme"]));
    assert!(created.status.success(), "{}", text(&created));
    let key = String::from_utf8(created.stdout).expect("a key is UTF-8");
    assert!(key.starts_with("sk-assistd-"), "{key}");

    server.signal(Signal::SIGKILL);
    server.wait();
    assert!(server_runs(folder.path()), "the database keeps running");

    let server = ServerProcess::start(&mut assistd(folder.path()));
    assert!(
        server.greeting.contains("API keys  required"),
        "{}",
        server.greeting
    );
    let listed = output(assistd(folder.path()).args(["keys", "list"]));
    let listed = text(&listed);
    assert!(listed.contains("acme"), "{listed}");
    assert!(!listed.contains(key.trim()), "{listed}");

    let id = listed
        .split_whitespace()
        .find(|word| word.starts_with("key_"))
        .expect("the key's id is listed");
    let revoked = output(assistd(folder.path()).args(["keys", "revoke", id]));
    assert!(revoked.status.success(), "{}", text(&revoked));
    let unknown = output(assistd(folder.path()).args(["keys", "revoke", "key_none"]));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("key key_none not found"));

    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn keys_of_the_settings_are_accepted_from_the_start_and_again() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let seeds = "acme:key-of-acme,other:key-of-other,acme:second-of-acme";
    for _ in 0..2 {
        let server = ServerProcess::start(assistd(folder.path()).env("ASSISTD_API_KEYS", seeds));
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
    let listed = text(&output(assistd(folder.path()).args(["keys", "list"])));
    assert_eq!(listed.matches("acme").count(), 2, "{listed}");
    assert_eq!(listed.matches("key_").count(), 3, "{listed}");

    let taken = output(assistd(folder.path()).env("ASSISTD_API_KEYS", "other:key-of-acme"));
    assert_eq!(taken.status.code(), Some(1));
    let printed = text(&taken);
    assert!(printed.contains("belongs to another project"), "{printed}");
    assert!(!printed.contains("key-of-acme"), "{printed}");
}

#[test]
fn others_can_reach_the_server_only_when_there_are_keys() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let open = |keys: &str| {
        let mut command = assistd(folder.path());
        command
            .env("ASSISTD_LISTEN", "0.0.0.0:0")
            .env("ASSISTD_API_KEYS", keys);
        command
    };
    let refused = output(&mut open(""));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("refusing to serve on 0.0.0.0:0"));
    assert!(!server_runs(folder.path()), "the database was stopped");

    let server = ServerProcess::start(&mut open("acme:key-of-acme"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_doctor_finds_a_healthy_server_healthy_and_says_what_is_wrong_otherwise() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let healthy = output(assistd(folder.path()).arg("doctor"));
    assert_eq!(healthy.status.code(), Some(0), "{}", text(&healthy));

    let sick = output(
        assistd(folder.path())
            .env("ASSISTD_BLOBS", "/dev/null/files")
            // Nothing listens on the discard port.
            .env("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
            .arg("doctor"),
    );
    assert_eq!(sick.status.code(), Some(1));
    let printed = text(&sick);
    assert!(
        printed.contains("FAIL  files: /dev/null/files"),
        "{printed}"
    );
    assert!(printed.contains("FAIL  upstream default"), "{printed}");
    assert!(printed.contains("ok    pgvector"), "{printed}");
}

#[tokio::test]
async fn replicas_that_start_together_share_one_database() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let embedded = Embedded::start(&Options {
        data_dir: folder.path().to_owned(),
        bin_dir: None,
        user: "nobody".to_owned(),
        connections: 40,
    })
    .await
    .expect("the database starts; `make setup` installs it");
    let options = embedded.connect_options();
    let socket = options
        .get_socket()
        .expect("embedded databases listen on a Unix socket");
    let url = format!(
        "postgres://assistd@localhost/assistd?host={}",
        socket.display()
    );

    let replicas: Vec<_> = (0..4)
        .map(|_| {
            let mut command = assistd(folder.path());
            command
                .env("DATABASE_URL", &url)
                .env("ASSISTD_API_KEYS", "acme:key-of-acme")
                .env("ASSISTD_DATABASE_CONNECTIONS", "4");
            std::thread::spawn(move || ServerProcess::start(&mut command))
        })
        .collect();
    for replica in replicas {
        let replica = replica.join().expect("every replica starts");
        assert!(replica.greeting.contains("PostgreSQL at "));
        replica.signal(Signal::SIGTERM);
        assert_eq!(replica.wait().code(), Some(0));
    }
    embedded.stop().await;
}

#[test]
fn a_database_that_is_not_there_is_named_without_its_password() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let url = "postgres://somebody:hidden@127.0.0.1:9/somewhere";
    let output = output(assistd(folder.path()).env("DATABASE_URL", url));
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output);
    assert!(printed.contains("127.0.0.1:9/somewhere"), "{printed}");
    assert!(!printed.contains("hidden"), "{printed}");
}

#[test]
fn a_start_with_keys_that_exist_leaves_no_error_in_the_databases_log() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    for _ in 0..2 {
        let mut command = assistd(folder.path());
        let seeds = "acme:key-of-acme,other:key-of-other";
        let server = ServerProcess::start(command.env("ASSISTD_API_KEYS", seeds));
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
    let logs = std::fs::read_dir(folder.path().join("postgres/log")).expect("the path exists");
    for log in logs {
        let path = log.expect("the file is readable").path();
        let log = std::fs::read_to_string(path).expect("the file is readable");
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn too_few_open_files_are_refused_with_the_limit_and_what_to_do() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let server = assistd(folder.path());
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -n 256 && exec \"$0\""])
        .arg(server.get_program())
        .env("ASSISTD_DATA_DIR", folder.path());
    let refused = output(&mut limited);
    assert_eq!(refused.status.code(), Some(1));
    let printed = text(&refused);
    assert!(
        printed.contains("may have 256 files open and needs 576"),
        "{printed}"
    );
    assert!(printed.contains("ulimit -n"), "{printed}");
    assert!(
        !folder.path().join("postgres").exists(),
        "nothing was started"
    );
}

#[test]
fn a_wrong_variable_is_named_with_its_format_and_without_a_secret() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let refused = output(assistd(folder.path()).env("ASSISTD_RUN_EXPIRY", "abc"));
    let printed = text(&refused);
    let named = "`ASSISTD_RUN_EXPIRY`: invalid value \"abc\": expected a duration, such as";
    assert!(
        !refused.status.success() && printed.contains(named),
        "{printed}"
    );
    let refused = output(assistd(folder.path()).env("ASSISTD_ADMIN_KEY", "secret"));
    let printed = text(&refused);
    assert!(
        printed.contains("`ASSISTD_ADMIN_KEY`: expected at least 16"),
        "{printed}"
    );
    assert!(!printed.contains("secret"), "{printed}");
}

/// Copies the program to a folder that is in no source tree; its path.
fn elsewhere(folder: &Path) -> std::path::PathBuf {
    let program = folder.join("assistd");
    let built = env!("CARGO_BIN_EXE_assistd");
    // Copying onto a hard link of the program would truncate the program.
    assert!(!program.exists());
    // Hard links do not work across file systems.
    if std::fs::hard_link(built, &program).is_err() {
        std::fs::copy(built, &program).expect("the disk has space");
    }
    program
}

#[test]
fn what_set_up_has_installed_is_found_from_the_working_folder() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let project = folder.path().join("project");
    let model = project.join(".venv/models/all-minilm-l6-v2");
    std::fs::create_dir_all(&model).expect("the temporary folder is writable");
    let program = elsewhere(folder.path());
    let diagnose = |project: &Path| {
        let mut command = std::process::Command::new(&program);
        for (name, value) in assistd(folder.path()).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // The URL of the discard port keeps the command from starting a database.
        let url = "postgres://somebody@127.0.0.1:9/somewhere";
        command
            .env("DATABASE_URL", url)
            .arg("doctor")
            .current_dir(project);
        text(&output(&mut command))
    };
    // The empty folder is found, but is not a usable model.
    let printed = diagnose(&project);
    assert!(printed.contains("FAIL  embeddings: "), "{printed}");
    let printed = diagnose(folder.path());
    assert!(
        printed.contains("warn  embeddings: there is no model"),
        "{printed}"
    );
}

#[tokio::test]
async fn files_are_indexed_after_the_program_was_replaced() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let program = folder.path().join("assistd");
    std::fs::copy(PROGRAM, &program).expect("the temporary folder has space");
    let data = folder.path().join("data");
    let mut command = assistd_at(&program, &data);
    let server = ServerProcess::start(command.env("ASSISTD_EMBEDDING_MODEL", "off"));
    std::fs::remove_file(&program).expect("the file is ours");
    let client = Client::new(server.origin(), "any");
    let file = id(&client.upload("notes.txt", "Kelp floats.").await);
    let store = client
        .post("/vector_stores", json!({"file_ids": [file]}))
        .await;
    let path = format!("/vector_stores/{}", id(&store));
    eventually("an indexed file", async || {
        let counts = client.get(&path).await["file_counts"].clone();
        (counts["completed"] == 1).then_some(())
    })
    .await;
}
