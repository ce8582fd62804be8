//! Migrations keep the data of earlier versions.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::ConnectOptions as _;
use sqlx::migrate::Migrator;

use crate::cluster::Db;
use crate::server::Server;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Sample rows of a database at this version: `NNNN.sql` for migration `NNNN`.
fn sample(version: i64) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/samples");
    let path = folder.join(format!("{version:04}.sql"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "every migration has sample rows: {}: {error}",
            path.display()
        )
    })
}

#[tokio::test]
async fn every_migration_applies_to_a_database_that_earlier_ones_have_filled() {
    let db = Db::empty().await;
    let connect = db.pool.options();
    let mut connection = connect.connect().await.expect("the database answers");
    for migration in MIGRATIONS.iter() {
        let version = migration.version;
        MIGRATIONS
            .run_to(version, &mut connection)
            .await
            .unwrap_or_else(|error| panic!("migration {version}: {error}"));
        let rows = sample(version);
        sqlx::raw_sql(sqlx::AssertSqlSafe(rows))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("sample {version}: {error}"));
    }
    let mut empty = BTreeSet::new();
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public'",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the database answers");
    for table in tables {
        let count = format!("select count(*) from {table}");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .fetch_one(&mut connection)
            .await
            .expect("the database answers");
        if rows == 0 {
            empty.insert(table);
        }
    }
    assert!(empty.is_empty(), "no sample fills {empty:?}");
    drop(connection);

    // The API serves what earlier versions stored.
    let server = Server::start(&db, &[]).await;
    let client = server.client_with_key("sk-of-the-sample");
    let thread = "/threads/thread_sample";
    for list in [
        "/assistants".to_owned(),
        "/threads".to_owned(),
        "/runs".to_owned(),
        "/files".to_owned(),
        "/vector_stores".to_owned(),
        "/vector_stores/vs_sample/files".to_owned(),
        "/vector_stores/vs_sample/file_batches/vsfb_sample/files".to_owned(),
        format!("{thread}/messages"),
        format!("{thread}/runs"),
        format!("{thread}/runs/run_sample/steps"),
    ] {
        let page = client.get(&list).await;
        assert_eq!(
            page["data"].as_array().map(Vec::len),
            Some(1),
            "{list}: {page}"
        );
    }
    let streamed = client.follow("thread_sample", "run_sample", None).await;
    let streamed = crate::event_stream::check(&streamed.read_to_end().await);
    assert_eq!(streamed.run["status"], "completed");
}
