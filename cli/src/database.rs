//! Which database: chosen by the scheme of its URL.

use std::time::Duration;

use effectively::{Dialect, Ledger};
use sqlx::{Connection, pool::PoolOptions};
use tokio::time::timeout;

use crate::failure::Failure;

/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the tables are.
#[derive(Clone)]
pub(crate) struct At {
    pub(crate) url: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) table_prefix: Option<String>,
    /// Whether a relay listens to what other processes notify.
    pub(crate) notify: bool,
}

#[cfg(not(any(feature = "postgres", feature = "mysql", feature = "sqlite")))]
compile_error!("build it with at least one of the features `postgres`, `mysql` and `sqlite`");

pub(crate) enum Database {
    #[cfg(feature = "postgres")]
    Postgres(Ledger<sqlx::Postgres>),
    #[cfg(feature = "mysql")]
    MySql(Ledger<sqlx::MySql>),
    #[cfg(feature = "sqlite")]
    Sqlite(Ledger<sqlx::Sqlite>),
}

/// The same call, on whichever database it is.
macro_rules! on {
    ($database:expr, $ledger:ident => $call:expr) => {
        match $database {
            #[cfg(feature = "postgres")]
            $crate::database::Database::Postgres($ledger) => $call,
            #[cfg(feature = "mysql")]
            $crate::database::Database::MySql($ledger) => $call,
            #[cfg(feature = "sqlite")]
            $crate::database::Database::Sqlite($ledger) => $call,
        }
    };
}
pub(crate) use on;

/// A pool of at most so many connections, the first of which has been made.
pub(crate) async fn connect(at: &At, connections: u32) -> Result<Database, Failure> {
    let database = open(at, connections)?;
    on!(&database, ledger => reach(ledger).await?);
    Ok(database)
}

/// A pool that connects later.
pub(crate) fn open(at: &At, connections: u32) -> Result<Database, Failure> {
    let url = at.url.as_deref().ok_or_else(|| {
        Failure::Usage(
            "no database: give --database-url or set DATABASE_URL (postgres://…, mysql://…, sqlite:…)"
                .to_owned(),
        )
    })?;
    match url.split_once(':').map(|(scheme, _)| scheme) {
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => Ok(Database::Postgres(ledger(at, url, connections)?)),
        #[cfg(feature = "mysql")]
        Some("mysql" | "mariadb") => Ok(Database::MySql(ledger(at, url, connections)?)),
        #[cfg(feature = "sqlite")]
        Some("sqlite") => Ok(Database::Sqlite(ledger(at, url, connections)?)),
        #[allow(unreachable_patterns, reason = "with all databases built in")]
        Some(known @ ("postgres" | "postgresql" | "mysql" | "mariadb" | "sqlite")) => {
            Err(Failure::Usage(format!(
                "this program was built without `{known}`; build it with the feature of that name"
            )))
        }
        // The URL itself may hold a password.
        _ => Err(Failure::Usage(
            "the database's URL begins with postgres://, postgresql://, mysql://, mariadb:// or sqlite:"
                .to_owned(),
        )),
    }
}

fn ledger<DB: Dialect>(at: &At, url: &str, connections: u32) -> Result<Ledger<DB>, Failure> {
    let options: <DB::Connection as Connection>::Options = url.parse().map_err(|_| {
        Failure::Usage("the database's URL is not one that its driver reads".to_owned())
    })?;
    let pool = PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        .connect_lazy_with(options);
    let mut builder = Ledger::builder(pool).notify_relays(at.notify);
    if let Some(schema) = &at.schema {
        builder = builder.schema(schema.as_str());
    }
    if let Some(prefix) = &at.table_prefix {
        builder = builder.table_prefix(prefix.as_str());
    }
    Ok(builder.build()?)
}

/// One connection by hand: a pool goes on trying, and in the end says only that it has waited.
async fn reach<DB: Dialect>(ledger: &Ledger<DB>) -> Result<(), Failure> {
    let options = ledger.pool().connect_options();
    let first = timeout(PATIENCE, DB::Connection::connect_with(&options)).await;
    let first = first
        .map_err(|_| {
            Failure::Unreachable(format!("the database has not answered for {PATIENCE:?}"))
        })?
        .map_err(|error| {
            Failure::Unreachable(format!(
                "the database cannot be reached: {}",
                reason(&error)
            ))
        })?;
    // The answer to a goodbye is of no interest.
    let _ = first.close().await;
    Ok(())
}

/// Without what a server quotes.
fn reason(error: &sqlx::Error) -> String {
    let code = match error {
        sqlx::Error::Database(refused) => refused.code().unwrap_or_default(),
        other => return other.to_string(),
    };
    match code.as_ref() {
        "14" => "SQLite cannot open the file; `?mode=rwc` behind the name creates one".to_owned(),
        "28P01" | "28000" => format!("the server refuses user or password ({code})"),
        "3D000" | "42000" => format!("no such database, or no right to it ({code})"),
        code => format!("the server answered with error code {code}"),
    }
}
