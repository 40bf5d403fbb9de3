//! The table of servers, and what each test begins with: one of them on a database of its own.

use std::thread;
use std::time::Duration;

use effectively_tests::{TestDb, TestServer, eventually};
use sqlx::ConnectOptions;

use crate::server::Server;

/// Longer than any request may be on its way into the body.
const BOUND: Duration = Duration::from_secs(20);

/// The table: the name in the tests, the program, and the database of all its tests. Hands it on, with more lines or without.
macro_rules! servers {
    ($then:ident $test:ident $($more:tt)*) => {
        $then! { $test
            [axum: "axum_orders" on sqlite]
            [actix: "actix_orders" on sqlite]
            [poem: "poem_orders" on sqlite]
            [salvo: "salvo_orders" on sqlite]
            $($more)*
        }
    };
}

/// Makes tests from generic `async fn name<DB: TestServer>(shop: Shop<DB>)`: `name::axum`, `name::actix` and so on, on SQLite.
///
/// | in front | what is run |
/// |---|---|
/// | `and every database:` | `name::axum_on_postgres` and `name::axum_on_mysql` as well |
/// | `axum alone on every database:`, `axum alone behind a network:` | `name::axum_on_…` and nothing else |
/// | `tonic:` | `name::tonic`, whose requests are others |
/// | `at once`, before one of them | one test that runs all of them side by side: for tests that mostly wait |
macro_rules! on_every_server {
    (at once: $($test:ident),+ $(,)?) => {
        $(mod $test { servers! { side_by_side $test } })+
    };
    (at once and every database: $($test:ident),+ $(,)?) => {
        $(mod $test {
            servers! { side_by_side $test
                [axum_on_postgres: "axum_orders" on postgres]
                [axum_on_mysql: "axum_orders" on mysql]
            }
        })+
    };
    (at once axum alone behind a network: $($test:ident),+ $(,)?) => {
        $(mod $test {
            side_by_side! { $test
                [axum_on_postgres: "axum_orders" on postgres]
                [axum_on_mysql: "axum_orders" on mysql]
            }
        })+
    };
    (tonic: $($test:ident),+ $(,)?) => {
        $(mod $test { one_by_one! { $test [tonic: "tonic_orders" on sqlite] } })+
    };
    (at once tonic: $($test:ident),+ $(,)?) => {
        $(mod $test { side_by_side! { $test [tonic: "tonic_orders" on sqlite] } })+
    };
    (axum alone on every database: $($test:ident),+ $(,)?) => {
        $(mod $test {
            one_by_one! { $test
                [axum_on_sqlite: "axum_orders" on sqlite]
                [axum_on_postgres: "axum_orders" on postgres]
                [axum_on_mysql: "axum_orders" on mysql]
            }
        })+
    };
    (and every database: $($test:ident),+ $(,)?) => {
        $(mod $test {
            servers! { one_by_one $test
                [axum_on_postgres: "axum_orders" on postgres]
                [axum_on_mysql: "axum_orders" on mysql]
            }
        })+
    };
    ($($test:ident),+ $(,)?) => {
        $(mod $test { servers! { one_by_one $test } })+
    };
}

macro_rules! one_by_one {
    ($test:ident $([$name:ident: $program:literal on $database:ident])+) => {$(
        #[test]
        fn $name() {
            run_one!($test, $program, $database);
        }
    )+};
}

macro_rules! side_by_side {
    ($test:ident $([$name:ident: $program:literal on $database:ident])+) => {
        #[test]
        fn at_once() {
            $crate::shop::at_once(&[$((
                concat!(stringify!($test), "::", stringify!($name)),
                || run_one!($test, $program, $database),
            )),+]);
        }
    };
}

macro_rules! run_one {
    ($test:ident, $program:literal, $database:ident) => {{
        type Database = effectively_tests::database_named!($database);
        let program = env!(concat!("CARGO_BIN_EXE_", $program));
        $crate::shop::run::<Database>(program, super::$test)
    }};
}

/// Each in a thread of its name, which a panic shows.
pub fn at_once(tests: &[(&str, fn())]) {
    let threads = tests.iter().map(|(name, test)| {
        let thread = thread::Builder::new().name((*name).to_owned());
        (*name, thread.spawn(*test).expect("a thread"))
    });
    let threads: Vec<_> = threads.collect();
    let failed = threads
        .into_iter()
        .filter_map(|(name, thread)| thread.join().err().map(|_| name));
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// What a test does before its own first line.
pub fn run<DB: TestServer>(program: &'static str, test: impl AsyncFnOnce(Shop<DB>)) {
    effectively_tests::run(async |db| test(Shop::open(program, db).await).await);
}

/// A server and its database, which no other test sees.
#[derive(Debug)]
pub struct Shop<DB: TestServer> {
    pub server: Server,
    pub db: TestDb<DB>,
    pub program: &'static str,
}

impl<DB: TestServer> Shop<DB> {
    async fn open(program: &'static str, db: TestDb<DB>) -> Self {
        let server = Server::start(program, db.url()).await;
        // What it did to begin with is over.
        eventually(BOUND, async || db.busy_sessions().await == 0).await;
        Self {
            server,
            db,
            program,
        }
    }

    /// One more process on the same database.
    pub async fn another(&self) -> Server {
        Server::start(self.program, self.db.url()).await
    }

    /// Orders, events, claims.
    pub async fn stored(&self) -> (i64, i64, i64) {
        let count = async |table| {
            let count = format!("select count(*) from {table}");
            self.db.number(&count).await
        };
        (
            count("orders").await,
            count("effectively_outbox").await,
            count("effectively_claims").await,
        )
    }

    /// Waits until a request is in its body, with its order written and not committed: the only one that is on its way.
    pub async fn until_in_a_body(&self) {
        eventually(BOUND, async || self.has_an_open_order().await).await;
    }

    /// Waits until nothing is on its way any more.
    pub async fn until_idle(&self) {
        eventually(BOUND, async || {
            self.db.busy_sessions().await == 0 && !self.has_an_open_order().await
        })
        .await;
    }

    /// More than a busy session, which may be one that is only looked at by its pool.
    async fn has_an_open_order(&self) -> bool {
        let probe = match DB::NAME {
            "PostgreSQL" => {
                let open = "select count(*) from pg_stat_activity \
                     where datname = current_database() and state = 'idle in transaction'";
                return self.db.number(open).await > 0;
            }
            // A row that is not committed is locked.
            "MySQL" => "select id from orders for update nowait",
            // There is one writer: whether there is room for another tells.
            _ => "pragma busy_timeout = 0; begin immediate; rollback",
        };
        let mut other = self.db.options(None).connect().await.expect("a connection");
        DB::execute(&mut other, probe).await.is_err()
    }
}
