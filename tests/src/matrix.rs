//! One generic test, run on every database.

use std::env;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::time::timeout;

use crate::{TestDb, TestServer};

/// Set by `tests/run`: the servers are there, so a test that cannot find its own has found a mistake.
const SERVERS_ARE_STARTED: &str = "EFFECTIVELY_TEST_SERVERS";

/// A test that hangs must fail with its name, not stop the whole run without one.
const LONGEST_TEST: Duration = Duration::from_secs(300);

/// Makes one `#[test]` per database from a generic `async fn name<DB: TestServer>(db: TestDb<DB>)`.
///
/// The tests are called `name::postgres`, `name::mysql` and `name::sqlite`. A list in front leaves some out.
///
/// ```
/// # use effectively_tests::{TestDb, TestServer, on_every_database};
/// on_every_database!(it_counts);
/// on_every_database!([postgres, mysql] it_talks_over_a_network);
///
/// async fn it_counts<DB: TestServer>(db: TestDb<DB>) {
///     assert_eq!(db.number("select count(*) from (select 1) as one").await, 1);
/// }
///
/// async fn it_talks_over_a_network<DB: TestServer>(db: TestDb<DB>) {
///     let proxy = db.proxy();
///     db.pool_with(1, Some(&proxy)).acquire().await.expect("a connection");
///     assert!(proxy.flights() > 0);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_every_database {
    (@test [$($database:ident),+] $test:ident) => {
        mod $test {
            $(
                #[test]
                fn $database() {
                    $crate::run(super::$test::<$crate::database_named!($database)>);
                }
            )+
        }
    };
    ([$($database:ident),+] $($test:ident),+ $(,)?) => {
        $crate::on_every_database!(@each [$($database),+] $($test),+);
    };
    (@each $databases:tt $($test:ident),+) => {
        $($crate::on_every_database!(@test $databases $test);)+
    };
    ($($test:ident),+ $(,)?) => {
        $crate::on_every_database!(@each [postgres, mysql, sqlite] $($test),+);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! database_named {
    (postgres) => {
        $crate::sqlx::Postgres
    };
    (mysql) => {
        $crate::sqlx::MySql
    };
    (sqlite) => {
        $crate::sqlx::Sqlite
    };
}

/// What a generated test does: a runtime with several threads, a database of its own, a bound on the whole.
pub fn run<DB: TestServer>(test: impl AsyncFnOnce(TestDb<DB>)) {
    if !available::<DB>() {
        return;
    }
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let in_time = runtime
        .block_on(async { timeout(LONGEST_TEST, async { test(TestDb::new().await).await }).await });
    // A blocking call that the test left behind must not turn its verdict into a hang.
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(in_time.is_ok(), "still running after {LONGEST_TEST:?}");
}

/// Whether a test that needs this database can run. If not, says so where it is seen.
///
/// # Panics
/// If the servers were promised (`EFFECTIVELY_TEST_SERVERS=1`) and this one is missing: a skipped test is no passed test.
pub fn available<DB: TestServer>() -> bool {
    DB::VARIABLE.is_none_or(is_set)
}

/// Whether a test that needs what this variable names can run. If not, says so where it is seen.
///
/// # Panics
/// If the servers were promised (`EFFECTIVELY_TEST_SERVERS=1`) and this one is missing: a skipped test is no passed test.
pub fn is_set(variable: &str) -> bool {
    let set = env::var_os(variable).is_some_and(|url| !url.is_empty());
    is_given(set, &format!("{variable} is not set"))
}

/// As [`is_set`], for what else a test may need of its server. `missing` says what is missing if it is not there.
///
/// # Panics
/// If it is not there although the servers were promised.
pub fn is_given(there: bool, missing: &str) -> bool {
    if there {
        return true;
    }
    assert!(
        env::var_os(SERVERS_ARE_STARTED).is_none(),
        "{missing} although {SERVERS_ARE_STARTED} is set"
    );
    let this_thread = thread::current();
    let test = this_thread.name().unwrap_or("a test");
    // Straight to the handle: `eprintln!` would be captured, and a test that passes shows nothing of that.
    let _ = writeln!(
        io::stderr().lock(),
        "SKIPPED {test}: {missing}; ./tests/run starts a server"
    );
    false
}
