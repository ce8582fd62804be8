//! Tests of the server from the outside.

mod embedded_postgres;
mod program;
mod running;
