//! What the programs in `src/bin` share, so that each of them can be about one thing.

use std::{env, io};

use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

pub mod shop;

/// A new SQLite database in a temporary folder, which is removed when the [`TempDir`] is dropped.
///
/// # Errors
/// When the file cannot be made.
pub async fn temporary_sqlite() -> Result<(TempDir, SqlitePool), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("shop.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    Ok((folder, SqlitePool::connect_with(options).await?))
}

/// The database that a program was given: its first argument, or the variable `DATABASE_URL`.
///
/// # Errors
/// When there is none: the message says what to do.
pub fn database_url(program: &str, sample: &str) -> Result<String, io::Error> {
    let given = env::args().nth(1).or_else(|| env::var("DATABASE_URL").ok());
    let scheme = sample.split("://").next().unwrap_or_default();
    given
        .filter(|url| url.starts_with(scheme))
        .ok_or_else(|| {
            io::Error::other(format!(
                "this example needs a database: `cargo run -p effectively-examples --bin {program} -- {sample}`, \
                 or the same URL in DATABASE_URL"
            ))
        })
}

// The example of the front page is one that compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
