//! The PostgreSQL cluster of the test program, and the databases of its tests.
//!
//! Everything lives in one temporary folder. A shell process waits until the test program has
//! exited for any reason, stops what still runs, and removes the folder.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use assistd::store::Pool;
use embedded_postgres::{Embedded, Options};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Runtime;

/// Waits for the end of its input, then stops all databases and servers and removes their data.
/// SIGQUIT stops a database without a checkpoint.
const REAPER: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for file in "$1"/*/postgres/postmaster.pid; do
    [ -f "$file" ] || continue
    pid=$(head -n 1 "$file")
    kill -CONT "$pid"
    kill -QUIT "$pid"
    for _ in $(seq 200); do kill -0 "$pid" || break; sleep 0.05; done
done 2>/dev/null
rm -rf "$1"
kill -KILL 0
"#;

/// Enough for the servers of all tests that run concurrently.
const MAX_CONNECTIONS: u32 = 400;

/// The migrated database of which each test gets a copy.
const TEMPLATE: &str = "template_it";

pub struct Cluster {
    root: PathBuf,
    connect: PgConnectOptions,
    reaper: Child,
    /// Dropping them would stop the cluster.
    _running: (Embedded, Runtime),
}

/// A database of one test.
pub struct Db {
    /// The test's own connections.
    pub pool: Pool,
    pub name: String,
    pub url: String,
}

/// The cluster, started on first use.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        // The cluster needs a runtime that outlives the one of the test that starts it.
        std::thread::spawn(Cluster::start)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Cluster {
    fn start() -> Self {
        let root = tempfile::Builder::new()
            .prefix("assistd-it-")
            // When root runs the tests, the database runs as another user, who must get in.
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .expect("the temporary folder is writable")
            .keep();
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&root)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the system has a shell");
        let runtime = Runtime::new().expect("the system can start threads");
        let options = Options {
            data_dir: root.join("shared"),
            bin_dir: std::env::var_os("ASSISTD_POSTGRES_BIN").map(PathBuf::from),
            user: "nobody".to_owned(),
            connections: MAX_CONNECTIONS,
        };
        let embedded = runtime.block_on(async {
            let embedded = match Embedded::start(&options).await {
                Ok(embedded) => embedded,
                Err(error) => panic!("the tests need PostgreSQL; run `make setup`\n{error}"),
            };
            make_template(&embedded.connect_options())
                .await
                .expect("all migrations succeed");
            embedded
        });
        Self {
            root,
            connect: embedded.connect_options(),
            reaper,
            _running: (embedded, runtime),
        }
    }

    /// A new path for one server's data.
    pub fn folder(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        self.root
            .join(NEXT.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// The process group that is killed when this program has exited.
    pub fn process_group(&self) -> i32 {
        i32::try_from(self.reaper.id()).expect("Linux process ids fit into an i32")
    }

    /// The path of the cluster's Unix socket.
    pub fn socket(&self) -> PathBuf {
        let folder = self
            .connect
            .get_socket()
            .expect("embedded databases listen on a Unix socket");
        folder.join(format!(".s.PGSQL.{}", self.connect.get_port()))
    }

    fn url(&self, database: &str) -> String {
        let folder = self.connect.get_socket().map(Path::new);
        let folder = folder
            .expect("embedded databases listen on a Unix socket")
            .display();
        format!("postgres:///{database}?host={folder}&user=assistd&sslmode=disable")
    }
}

async fn make_template(connect: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut postgres = connect.clone().connect().await?;
    // Tests kill processes, never the machine, so durability against power loss is not needed.
    for statement in [
        "alter system set fsync = off",
        "select pg_reload_conf()",
        "create database template_it",
    ] {
        sqlx::query(statement).execute(&mut postgres).await?;
    }
    let mut template = connect.clone().database(TEMPLATE).connect().await?;
    sqlx::migrate!()
        .run_direct(None, &mut template, false)
        .await?;
    template.close().await?;
    postgres.close().await
}

impl Db {
    /// A migrated database without rows.
    pub async fn new() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// A database without tables.
    pub async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    /// Keeps files of vector stores from being indexed, so that the test decides their status.
    pub async fn disable_indexing(&self) {
        self.execute(
            "create function wait() returns trigger language plpgsql as $$
             begin
                 new.due_at = 'infinity';
                 return new;
             end
             $$;
             create trigger wait before insert on vector_store_files
                 for each row when (new.status = 'in_progress') execute function wait()"
                .to_owned(),
        )
        .await;
    }

    /// Makes writes of rows that satisfy the condition fail with an SQLSTATE.
    pub async fn reject_rows(&self, table: &str, condition: &str, sqlstate: &str) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("reject_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let statements = format!(
            "create function {name}() returns trigger language plpgsql as $$
             begin
                 raise exception 'refused' using errcode = '{sqlstate}';
             end
             $$;
             create trigger reject_{table} before insert or update on {table}
                 for each row when ({condition}) execute function {name}()"
        );
        self.execute(statements).await;
    }

    /// Undoes [`Db::reject_rows`].
    pub async fn accept_rows(&self, table: &str) {
        self.execute(format!("drop trigger reject_{table} on {table}"))
            .await;
    }

    async fn execute(&self, statements: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&self.pool)
            .await
            .expect("the tables exist");
    }

    /// The value that a query yields.
    pub async fn value<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let value = sqlx::query_scalar(query).fetch_one(&self.pool).await;
        value.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    async fn copy_of(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let cluster = cluster();
        let name = format!("it_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut postgres = cluster
            .connect
            .connect()
            .await
            .expect("the cluster is running");
        let create = format!("create database {name} template {template}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut postgres)
            .await
            .expect("the name is new");
        postgres.close().await.expect("the connection is open");
        let pool = Pool::connect(cluster.connect.clone().database(&name), 10)
            .await
            .expect("the database exists");
        let url = cluster.url(&name);
        Self { pool, name, url }
    }
}
