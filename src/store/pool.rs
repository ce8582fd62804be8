//! The connection pool that every part of the server uses.

/// Connections to the database.
pub type Pool = sqlx::PgPool;
