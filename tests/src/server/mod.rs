//! `TestServer`: what the kit must know of each database.

mod mysql;
mod postgres;
mod sqlite;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Database};
use tempfile::TempDir;

pub use mysql::{is_mariadb, process_list};

/// What a connection of this database is opened with.
pub type OptionsOf<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A database that the suite runs on. The three statements at the end let one generic test speak to all of them.
pub trait TestServer: Database {
    /// Holds the URL of a user that may create databases. `None`: it is embedded and always there.
    const VARIABLE: Option<&'static str>;

    /// Makes an empty database; its URL, and what must happen at its end.
    fn create() -> impl Future<Output = (String, Disposal)> + Send;

    /// Reads a URL.
    fn options(url: &str) -> OptionsOf<Self>;

    /// Host and port, where there is a network.
    fn address(options: &OptionsOf<Self>) -> Option<(String, u16)>;

    /// The same database by way of another address, unencrypted.
    fn through(options: OptionsOf<Self>, address: SocketAddr) -> OptionsOf<Self>;

    /// The other sessions on this database that run a statement or hold a transaction.
    fn busy_sessions(on: &mut Self::Connection) -> impl Future<Output = sqlx::Result<i64>> + Send;

    /// Runs one or more statements as they stand; the number of rows they changed.
    fn execute(
        on: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// The one number that a query answers with.
    fn number(
        on: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = sqlx::Result<i64>> + Send;

    /// The first column of the answer, as text.
    fn texts(
        on: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = sqlx::Result<Vec<String>>> + Send;
}

/// What must happen when a test's database is no longer needed.
#[derive(Debug)]
pub enum Disposal {
    /// The file goes with its directory.
    Directory(TempDir),
    /// The server at `url` is told to drop it.
    Statements {
        /// The server, not the database itself.
        url: String,
        /// What to tell it.
        sql: String,
    },
    /// Another process made it and will end it.
    LeftToOthers,
}

/// The three statements, word for word the same on every driver. A generic body would need a list of bounds at every caller.
macro_rules! plain_statements {
    () => {
        async fn execute(on: &mut Self::Connection, sql: &str) -> sqlx::Result<u64> {
            Ok(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(on)
                .await?
                .rows_affected())
        }

        async fn number(on: &mut Self::Connection, sql: &str) -> sqlx::Result<i64> {
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_one(on)
                .await
        }

        async fn texts(on: &mut Self::Connection, sql: &str) -> sqlx::Result<Vec<String>> {
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_all(on)
                .await
        }
    };
}
use plain_statements;

/// The server's URL.
fn server_url(variable: &str) -> String {
    env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; ./tests/run starts a server"))
}

/// A name that no other test, process or machine on the same server has chosen.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let random = RandomState::new().hash_one(process::id());
    format!(
        "effectively_{}_{}_{random:016x}",
        process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
