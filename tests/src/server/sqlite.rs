//! SQLite: a file in a directory of its own.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Sqlite, SqliteConnection};

use super::{Disposal, TestServer, plain_statements};

impl TestServer for Sqlite {
    const VARIABLE: Option<&'static str> = None;

    async fn create() -> (String, Disposal) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite://{}", directory.path().join("test.db").display());
        (url, Disposal::Directory(directory))
    }

    fn options(url: &str) -> SqliteConnectOptions {
        let options: SqliteConnectOptions = url.parse().expect("a URL of SQLite");
        options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
    }

    fn address(_: &SqliteConnectOptions) -> Option<(String, u16)> {
        None
    }

    fn through(_: SqliteConnectOptions, _: SocketAddr) -> SqliteConnectOptions {
        panic!("SQLite has no network that a proxy could stand in")
    }

    /// There is no server that could know of one.
    async fn busy_sessions(_: &mut SqliteConnection) -> sqlx::Result<i64> {
        Ok(0)
    }

    plain_statements!();
}
