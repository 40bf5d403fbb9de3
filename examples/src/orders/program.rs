//! The program around a server: its arguments, its database, its end.

use std::{error::Error, net::SocketAddr, str::FromStr, time::Duration};

use effectively::{Ledger, web::Contract};
use sqlx::{
    MySql, MySqlConnection, PgConnection, Pool, Postgres, Sqlite, SqliteConnection,
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use super::Orders;
use crate::stop;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the server was started with.
#[derive(Debug)]
pub struct Args {
    /// Where to listen; port 0 is a free one.
    pub listen: SocketAddr,
    /// Which database.
    pub database_url: String,
}

impl Args {
    /// From the command line; a mistake there ends the program.
    fn read() -> Self {
        let mut listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let mut database_url = "sqlite:orders.db".to_owned();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match (word.as_str(), words.next()) {
                ("--listen", Some(value)) => match value.parse() {
                    Ok(address) => listen = address,
                    Err(_) => stop(&format!("`{value}` is no address like 127.0.0.1:8080")),
                },
                ("--database-url", Some(value)) => database_url = value,
                _ => stop(
                    "usage: --listen 127.0.0.1:8080 --database-url sqlite:orders.db (or postgres://… or mysql://…)",
                ),
            }
        }
        Self {
            listen,
            database_url,
        }
    }
}

/// A ledger on the database that the URL names.
#[derive(Debug, Clone)]
pub enum AnyLedger {
    /// `postgres://…`
    Postgres(Ledger<Postgres>),
    /// `mysql://…`, MariaDB as well.
    MySql(Ledger<MySql>),
    /// `sqlite:file`
    Sqlite(Ledger<Sqlite>),
}

/// Reads the arguments, sets the contract and the log, opens the database.
///
/// # Errors
/// When the database cannot be had.
pub async fn start() -> Result<(Args, AnyLedger)> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("info")
        .init();
    Contract::default().lenient_keys(true).install()?;
    let args = Args::read();
    let ledger = open(&args.database_url).await?;
    Ok((args, ledger))
}

/// Opens the database and brings its tables up to date.
///
/// # Errors
/// When it cannot be had.
pub async fn open(url: &str) -> Result<AnyLedger> {
    match url.split(':').next() {
        Some("postgres" | "postgresql") => ready::<PgConnection>(pool().connect(url).await?)
            .await
            .map(AnyLedger::Postgres),
        Some("mysql" | "mariadb") => ready::<MySqlConnection>(pool().connect(url).await?)
            .await
            .map(AnyLedger::MySql),
        Some("sqlite") => {
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal);
            ready::<SqliteConnection>(pool().connect_with(options).await?)
                .await
                .map(AnyLedger::Sqlite)
        }
        _ => stop("a database URL begins with postgres:, mysql: or sqlite:"),
    }
}

fn pool<DB: sqlx::Database>() -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(16)
        .acquire_timeout(Duration::from_secs(5))
}

async fn ready<C: Orders>(pool: Pool<C::Db>) -> Result<Ledger<C::Db>> {
    C::create_table(&pool).await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;
    Ok(ledger)
}

/// Waits until the process is asked to end.
pub async fn shutdown() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
