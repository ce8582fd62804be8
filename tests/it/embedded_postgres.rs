//! The embedded database keeps committed data, whichever process is killed.

use std::path::Path;

use embedded_postgres::Embedded;
use embedded_postgres::Options;
use embedded_postgres::PostgresError;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlx::ConnectOptions as _;
use sqlx::PgConnection;

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        bin_dir: None,
        user: "nobody".to_owned(),
        connections: 10,
    }
}

async fn start(data_dir: &Path) -> Embedded {
    Embedded::start(&options(data_dir))
        .await
        .expect("the database starts; `make setup` installs it")
}

async fn connect(embedded: &Embedded) -> PgConnection {
    let connection = embedded.connect_options().connect().await;
    connection.expect("the database lets us in")
}

/// Commits a row.
async fn write(connection: &mut PgConnection, value: i32) {
    sqlx::raw_sql("create table if not exists kept (value integer)")
        .execute(&mut *connection)
        .await
        .expect("the temporary folder is writable");
    sqlx::query("insert into kept values ($1)")
        .bind(value)
        .execute(connection)
        .await
        .expect("the database answers");
}

async fn written(connection: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar("select value from kept order by value")
        .fetch_all(connection)
        .await
        .expect("the database answers")
}

/// The postmaster's process id from its lock file.
fn postmaster(data_dir: &Path) -> Pid {
    let text = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid"));
    let text = text.expect("a running server has an id file");
    let pid = text.lines().next().and_then(|line| line.parse().ok());
    Pid::from_raw(pid.expect("its first line is the process id"))
}

fn is_gone(pid: Pid) -> bool {
    kill(pid, None).is_err()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let embedded = start(folder.path()).await;
    write(&mut connect(&embedded).await, 1).await;
    let first = postmaster(folder.path());
    embedded.stop().await;
    assert!(is_gone(first), "a stopped server has been waited for");

    let embedded = start(folder.path()).await;
    assert_eq!(written(&mut connect(&embedded).await).await, [1]);
    embedded.stop().await;
}

#[tokio::test]
async fn a_folder_is_served_by_one_process_only() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let embedded = start(folder.path()).await;
    match Embedded::start(&options(folder.path())).await {
        Err(error @ PostgresError::InUse { pid, .. }) => {
            assert_eq!(pid.map(i32::unsigned_abs), Some(std::process::id()));
            assert!(error.to_string().contains("another assistd"), "{error}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    write(&mut connect(&embedded).await, 1).await;
    let running = embedded_postgres::connect_to_running(&options(folder.path()));
    let mut beside = running
        .expect("the folder is served")
        .connect()
        .await
        .expect("a second process may connect");
    assert_eq!(written(&mut beside).await, [1]);
    embedded.stop().await;
}

#[tokio::test]
async fn a_killed_server_is_started_again_with_everything_that_was_committed() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let embedded = start(folder.path()).await;
    write(&mut connect(&embedded).await, 1).await;
    let killed = postmaster(folder.path());
    kill(killed, Signal::SIGKILL).expect("the server is running");

    let mut connection = loop {
        match embedded.connect_options().connect().await {
            Ok(connection) if postmaster(folder.path()) != killed => break connection,
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    assert_eq!(written(&mut connection).await, [1]);
    write(&mut connection, 2).await;
    let second = postmaster(folder.path());
    embedded.stop().await;
    assert!(is_gone(second), "so is one that was started again");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let deep = folder.path().join("a-long-name-for-a-folder/".repeat(8));
    let embedded = start(&deep).await;
    write(&mut connect(&embedded).await, 1).await;
    let options = embedded.connect_options();
    let socket = options
        .get_socket()
        .expect("embedded databases listen on a Unix socket");
    let socket = socket.to_owned();
    embedded.stop().await;
    assert!(
        !socket.exists(),
        "what is outside of the folder is cleared away"
    );
}

#[tokio::test]
async fn the_remains_of_an_interrupted_creation_are_cleared_away() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let draft = folder.path().join("postgres.draft-0123");
    std::fs::create_dir(&draft).expect("the temporary folder is writable");
    std::fs::write(draft.join("PG_VERSION"), "18\n").expect("the temporary folder is writable");
    let embedded = start(folder.path()).await;
    assert!(!draft.exists());
    embedded.stop().await;
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    start(folder.path()).await.stop().await;
    std::fs::write(folder.path().join("postgres/PG_VERSION"), "9\n")
        .expect("the temporary folder is writable");
    let error = Embedded::start(&options(folder.path()))
        .await
        .expect_err("it was made by another version");
    assert!(error.to_string().contains("PostgreSQL 9"), "{error}");
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_one_is_named() {
    let error = Embedded::start(&options(Path::new("/dev/null")))
        .await
        .expect_err("not a folder");
    assert!(error.to_string().contains("/dev/null"), "{error}");
}
