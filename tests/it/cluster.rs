//! The PostgreSQL cluster of this program, and the databases of its tests.
//!
//! Everything lives below one temporary folder. A shell that waits for this program's end, however
//! it ends, stops what is still running there and removes the folder.

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

/// Waits for its input to end, then takes the databases and servers of a test run away. The data
/// is of no use any more, so databases are stopped the quick way.
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

/// Connections for all servers of all tests that run at a time.
const CONNECTIONS: u32 = 400;

/// The name of the database that those of the tests are copied from.
const TEMPLATE: &str = "template_it";

/// What all tests share.
pub struct Cluster {
    root: PathBuf,
    connect: PgConnectOptions,
    reaper: Child,
    /// Kept, as dropping them stops the cluster.
    _running: (Embedded, Runtime),
}

/// A fresh database with all tables.
pub struct Db {
    /// Connections of the test itself.
    pub pool: Pool,
    /// Its name.
    pub name: String,
    /// For `DATABASE_URL`.
    pub url: String,
}

/// The cluster, started by whoever needs it first.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        // A runtime of its own: those of the tests end with their tests.
        std::thread::spawn(Cluster::start)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Cluster {
    fn start() -> Self {
        let root = tempfile::Builder::new()
            .prefix("assistd-it-")
            // Open to the user who runs the database when the tests are run by root.
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .expect("a temporary folder can be made")
            .keep();
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&root)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        let runtime = Runtime::new().expect("a runtime can be made");
        let options = Options {
            data_dir: root.join("shared"),
            bin_dir: std::env::var_os("ASSISTD_POSTGRES_BIN").map(PathBuf::from),
            user: "nobody".to_owned(),
            connections: CONNECTIONS,
        };
        let embedded = runtime.block_on(async {
            let embedded = match Embedded::start(&options).await {
                Ok(embedded) => embedded,
                Err(error) => panic!("the tests need PostgreSQL; run `make setup`\n{error}"),
            };
            make_template(&embedded.connect_options())
                .await
                .expect("the template database can be made");
            embedded
        });
        Self {
            root,
            connect: embedded.connect_options(),
            reaper,
            _running: (embedded, runtime),
        }
    }

    /// A path for one server's data.
    pub fn folder(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        self.root
            .join(NEXT.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// The process group of everything that must not outlive this program.
    pub fn process_group(&self) -> i32 {
        i32::try_from(self.reaper.id()).expect("process ids are small")
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        let folder = self.connect.get_socket().expect("it listens on a socket");
        folder.join(format!(".s.PGSQL.{}", self.connect.get_port()))
    }

    fn url(&self, database: &str) -> String {
        let folder = self.connect.get_socket().map(Path::new);
        let folder = folder.expect("it listens on a socket").display();
        format!("postgres:///{database}?host={folder}&user=assistd&sslmode=disable")
    }
}

async fn make_template(connect: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut postgres = connect.clone().connect().await?;
    // That a database survives the loss of power is its own promise, not one of ours.
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
    /// A database with all tables and no rows.
    pub async fn new() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// A database without tables.
    pub async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    /// Lets files in vector stores wait for ever, so that a test can say how far they are.
    pub async fn index_nothing(&self) {
        sqlx::raw_sql(
            "create function wait() returns trigger language plpgsql as $$
             begin
                 new.due_at = 'infinity';
                 return new;
             end
             $$;
             create trigger wait before insert on vector_store_files
                 for each row when (new.status = 'in_progress') execute function wait()",
        )
        .execute(&self.pool)
        .await
        .expect("the tables are there");
    }

    /// Refuses rows of a table in which the condition holds, with this SQLSTATE.
    pub async fn refuse(&self, table: &str, condition: &str, code: &str) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("refuse_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let statements = format!(
            "create function {name}() returns trigger language plpgsql as $$
             begin
                 raise exception 'refused' using errcode = '{code}';
             end
             $$;
             create trigger refuse_{table} before insert or update on {table}
                 for each row when ({condition}) execute function {name}()"
        );
        self.run(statements).await;
    }

    /// Lets a table take all rows again.
    pub async fn accept(&self, table: &str) {
        self.run(format!("drop trigger refuse_{table} on {table}"))
            .await;
    }

    async fn run(&self, statements: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&self.pool)
            .await
            .expect("the statements are right");
    }

    /// The one value that a query yields.
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
        let mut postgres = cluster.connect.connect().await.expect("the cluster runs");
        let create = format!("create database {name} template {template}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut postgres)
            .await
            .expect("a database can be made");
        postgres.close().await.expect("it was connected");
        let pool = Pool::connect(cluster.connect.clone().database(&name), 10)
            .await
            .expect("the new database is there");
        let url = cluster.url(&name);
        Self { pool, name, url }
    }
}
