//! The pool hands out idle connections only, whichever future was dropped before.

use std::time::Duration;

use futures::FutureExt as _;
use futures::TryStreamExt as _;
use sqlx::Executor as _;

use assistd::store::Pool;

use crate::cluster::Db;
use crate::eventually;

/// Whether the pool's only connection works and is in no transaction.
async fn is_idle(pool: &Pool, db: &Db) -> bool {
    sqlx::query("select 1")
        .execute(pool)
        .await
        .expect("the database answers");
    let open: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and state like 'idle in transaction%'",
    )
    .fetch_one(&db.pool)
    .await
    .expect("the database answers");
    open == 0
}

/// A pool with one open connection.
async fn pool_of_one(db: &Db) -> Pool {
    let pool = Pool::connect(db.pool.options().clone(), 1).await;
    pool.expect("the database answers")
}

#[tokio::test]
async fn a_cancelled_begin_leaves_no_transaction_behind() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    for polls in 1..8 {
        let mut begin = Box::pin(pool.begin());
        for _ in 0..polls {
            if let Some(transaction) = (&mut begin).now_or_never() {
                drop(transaction);
                break;
            }
            // The reply arrives before or after the future is dropped.
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        drop(begin);
        eventually("an idle session", async || {
            is_idle(&pool, &db).await.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_before_its_session_is_used_again() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let mut transaction = pool.begin().await.expect("the database answers");
    transaction
        .execute("create table leftover (n integer)")
        .await
        .expect("the statement is valid");
    drop(transaction);
    assert!(is_idle(&pool, &db).await);
    let leftover: bool = sqlx::query_scalar("select to_regclass('leftover') is not null")
        .fetch_one(&pool)
        .await
        .expect("the database answers");
    assert!(!leftover);
}

#[tokio::test]
async fn a_transaction_that_failed_is_rolled_back_before_its_session_is_used_again() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let mut transaction = pool.begin().await.expect("the database answers");
    transaction
        .execute("select 1 / 0")
        .await
        .expect_err("division by zero fails");
    drop(transaction);
    assert!(is_idle(&pool, &db).await);
}

#[tokio::test]
async fn a_statement_that_is_dropped_half_way_is_nobody_elses() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let query =
        sqlx::query_scalar::<_, i64>("select n::bigint from generate_series(1, 100000) as n");
    let mut rows = query.fetch(&pool);
    rows.try_next().await.expect("the database answers");
    drop(rows);
    let one: i64 = sqlx::query_scalar("select 41::bigint + 1")
        .fetch_one(&pool)
        .await
        .expect("the database answers");
    assert_eq!(one, 42);
}

#[tokio::test]
async fn a_session_that_the_server_has_closed_is_replaced() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&pool)
        .await
        .expect("the database answers");
    sqlx::query("select pg_terminate_backend($1, 10000)")
        .bind(pid)
        .execute(&db.pool)
        .await
        .expect("the database answers");
    let transaction = pool.begin().await.expect("another session is opened");
    transaction.commit().await.expect("the database answers");
}

#[tokio::test]
async fn an_error_of_a_statement_costs_no_session() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let pid = "select pg_backend_pid()";
    let before: i32 = sqlx::query_scalar(pid)
        .fetch_one(&pool)
        .await
        .expect("the server answers");
    sqlx::query("select 1 / 0")
        .execute(&pool)
        .await
        .expect_err("division by zero fails");
    let after: i32 = sqlx::query_scalar(pid)
        .fetch_one(&pool)
        .await
        .expect("the server answers");
    assert_eq!(before, after);
}

#[tokio::test]
async fn sessions_to_a_server_that_became_a_standby_are_not_used_again() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let insert =
        || sqlx::query("insert into projects (id, name) values ('proj_a', 'a')").execute(&pool);
    sqlx::query("set default_transaction_read_only = on")
        .execute(&pool)
        .await
        .expect("the database answers");
    let refused = insert().await.expect_err("the session is read only");
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("25006"));
    insert().await.expect("a new session is writable");
}
