//! Connections through PgBouncer, which `scripts/pgbouncer` installs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::cluster::{Db, cluster};
use crate::eventually;
use crate::process::{assistd, output, text};

struct PgBouncer {
    process: Child,
    url: String,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A pooler in front of the database, with a Unix socket in this folder.
async fn pooler(db: &Db, folder: &Path, mode: &str) -> PgBouncer {
    let socket = cluster().socket();
    let server = socket
        .parent()
        .expect("a socket lies in a folder")
        .display();
    let (name, place) = (&db.name, folder.display());
    let settings = format!(
        "[databases]\n{name} = host={server} dbname={name} user=assistd\n\
         [pgbouncer]\nlisten_port = 6432\nunix_socket_dir = {place}\nauth_type = any\n\
         pool_mode = {mode}\nignore_startup_parameters = extra_float_digits,options\n"
    );
    let file = folder.join("pgbouncer.ini");
    std::fs::write(&file, settings).expect("the folder is writable");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder, open).expect("the folder is ours");
    let mut command = Command::new("pgbouncer");
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    let process = command
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`scripts/pgbouncer` installs PgBouncer");
    let url = format!("postgres:///{name}?host={place}&port=6432&user=assistd&sslmode=disable");
    let pooler = PgBouncer { process, url };
    eventually("PgBouncer's socket", async || {
        folder.join(".s.PGSQL.6432").exists().then_some(())
    })
    .await;
    pooler
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_is_used() {
    let db = Db::new().await;
    for (mode, is_refused) in [("transaction", true), ("session", false)] {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let pooler = pooler(&db, folder.path(), mode).await;
        let mut command = assistd(folder.path());
        let output = output(
            command
                .env("DATABASE_URL", &pooler.url)
                .args(["projects", "list"]),
        );
        let printed = text(&output);
        assert_eq!(output.status.success(), !is_refused, "{mode}: {printed}");
        assert_eq!(
            printed.contains("pooler in transaction mode"),
            is_refused,
            "{printed}"
        );
    }
}
