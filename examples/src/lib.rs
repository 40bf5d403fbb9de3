//! What the programs in `src/bin` share, so that each of them can be about one thing.

use std::{env, process};

use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

pub mod orders;
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

/// The database that a program was given: its first argument, or the variable `DATABASE_URL`. Without one it ends here.
pub fn database_url(program: &str, sample: &str) -> String {
    let given = env::args().nth(1).or_else(|| env::var("DATABASE_URL").ok());
    let scheme = sample.split("://").next().unwrap_or_default();
    match given {
        Some(url) if url.starts_with(scheme) => url,
        _ => stop(&format!(
            "this example needs a database, in DATABASE_URL or as an argument:\n\n  \
             cargo run -p effectively-examples --bin {program} -- {sample}"
        )),
    }
}

/// Ends the program with a message to whoever started it.
#[expect(clippy::print_stderr, reason = "the message is for people")]
pub fn stop(message: &str) -> ! {
    eprintln!("{message}");
    process::exit(2)
}

// The example of the front page is one that compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
