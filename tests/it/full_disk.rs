//! A full disk is reported to clients and in the log, and the server recovers once there is space.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::client::{Client, Reply, id};
use crate::cluster::Db;
use crate::process::{self, ServerProcess};
use crate::{eventually, with_timeout};

/// A server in its own mount namespace, with a small tmpfs that vanishes with it.
struct OnSmallDisk {
    process: ServerProcess,
    client: Client,
    disk: PathBuf,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl OnSmallDisk {
    /// Starts a server with a disk of `size` bytes; settings may refer to the disk's folder.
    fn start(size: &str, settings: impl FnOnce(&Path) -> Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (disk, log) = (folder.path().join("disk"), folder.path().join("log"));
        std::fs::create_dir(&disk).expect("the mount point can be made");
        let mut server = process::assistd(&folder.path().join("data"));
        server.envs(settings(&disk));
        let mut command = Command::new("unshare");
        if !Uid::effective().is_root() {
            command.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        command
            .args(["--mount", "sh", "-c"])
            .arg(r#"mount -t tmpfs -o "mode=711,size=$0" tmpfs "$1" && exec "$2""#)
            .args([size.as_ref(), disk.as_os_str(), server.get_program()])
            .stderr(File::create(&log).expect("the log can be made"));
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let process = ServerProcess::start(&mut command);
        Self {
            client: Client::new(process.origin(), "any-key"),
            process,
            disk,
            log,
            _folder: folder,
        }
    }

    /// The disk's path outside of the mount namespace.
    fn disk(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.pid()));
        root.join(self.disk.strip_prefix("/").expect("the path is absolute"))
    }

    /// Fills the disk; the path of the file that fills it.
    fn fill(&self) -> PathBuf {
        let path = self.disk().join("filler");
        let mut file = File::create(&path).expect("the disk is mounted");
        let block = vec![1; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }

    /// Waits until the log has this text.
    async fn logs(&self, text: &str) {
        eventually(text, || async {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            log.contains(text).then_some(())
        })
        .await;
    }

    async fn new_thread(&self) -> Reply {
        let body = json!({});
        let sent = self.client.send(Method::POST, "/threads", Some(&body));
        with_timeout("an answer", sent)
            .await
            .expect("the server answers")
    }
}

/// Checks that the reply is a retryable error about full storage.
fn assert_full(reply: &Reply) {
    assert_eq!(reply.status, 507, "{}", reply.body);
    let error = &reply.body["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("server_error"), &json!("storage_full"))
    );
    let message = error["message"].as_str().expect("there is a message");
    assert!(
        message.contains("storage of this server is full"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_onto_a_full_disk_says_so_and_the_log_names_the_folder() {
    let db = Db::new().await;
    let server = OnSmallDisk::start("4m", |disk| {
        vec![
            ("DATABASE_URL", db.url.clone()),
            ("ASSISTD_BLOBS", disk.display().to_string()),
        ]
    });
    let folder = server.disk.display();
    server
        .logs(&format!("the disk of {folder} is full or nearly so"))
        .await;
    let small = server.client.upload("small.txt", vec![b'x'; 2 << 20]).await;

    // As one upload, and as an upload with parts.
    for size in [900 << 10, 6 << 20] {
        let filler = server.fill();
        assert_full(
            &server
                .client
                .try_upload("large.txt", vec![b'x'; size])
                .await,
        );
        std::fs::remove_file(filler).expect("the path exists");
    }
    assert_full(
        &server
            .client
            .try_upload("large.txt", vec![b'x'; 6 << 20])
            .await,
    );
    server
        .logs(&format!(
            "there is no space left in the folder of files, {folder}"
        ))
        .await;
    assert_eq!(
        server.client.file_content(&small["id"]).await.len(),
        2 << 20
    );

    // Failed writes leave no files behind.
    let path = format!("/files/{}", id(&small));
    let deleted = server.client.send(Method::DELETE, &path, None).await;
    assert_eq!(deleted.expect("the server answers").status, 200);
    eventually("an empty disk", || async {
        let mut left = std::fs::read_dir(server.disk()).expect("the path exists");
        left.next().is_none().then_some(())
    })
    .await;
    server.client.upload("next.txt", vec![b'x'; 3 << 20]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_a_full_disk_stops_is_named_and_goes_on_once_there_is_space() {
    let server = OnSmallDisk::start("110m", |disk| {
        vec![
            ("ASSISTD_DATA_DIR", disk.display().to_string()),
            ("ASSISTD_BLOBS", "/dev/shm".to_owned()),
        ]
    });
    let first = server.new_thread().await;
    assert_eq!(first.status, 200, "{}", first.body);
    let filler = server.fill();
    // Pages with free space still take a few rows.
    let full = eventually("a refusal", || async {
        let reply = server.new_thread().await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_full(&full);
    server.logs("the disk of the database is full").await;

    // PostgreSQL exits when it cannot write its log.
    let connect = PgConnectOptions::new_without_pgpass()
        .socket(server.disk().join("run"))
        .port(5432)
        .username("assistd")
        .database("assistd");
    let mut connection = connect.connect().await.expect("the database still runs");
    for statement in [
        "select pg_logical_emit_message(false, 'test', 'a record')",
        "select pg_switch_wal()",
        "select pg_logical_emit_message(true, 'test', 'another record')",
    ] {
        let _ = sqlx::query(statement).execute(&mut connection).await;
    }
    let folder = server.disk.join("postgres");
    server
        .logs(&format!(
            "The disk of {} is full: free some space",
            folder.display()
        ))
        .await;
    let away = server.new_thread().await;
    assert_eq!(away.status, 503, "{}", away.body);

    std::fs::remove_file(filler).expect("the path exists");
    let path = format!("/threads/{}", id(&first.body));
    let found: Value = eventually("the database", || async {
        let reply = server.client.send(Method::GET, &path, None).await;
        let reply = reply.expect("the server answers");
        (reply.status == 200).then_some(reply.body)
    })
    .await;
    assert_eq!(found["id"], first.body["id"]);
    assert_eq!(server.new_thread().await.status, 200);
}
