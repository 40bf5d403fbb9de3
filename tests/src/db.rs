//! `TestDb`: a database of its own for each test.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use sqlx::pool::PoolOptions;
use sqlx::{ConnectOptions, Connection, Pool};
use tokio::runtime;

use crate::worker::{self, Worker};
use crate::{Disposal, OptionsOf, Proxy, TestServer};

/// Enough for a test with many tasks; small enough that many tests at once stay below the server's limit.
const POOL_SIZE: u32 = 10;

/// Below the bound of a whole test, so that an exhausted pool is reported as what it is.
const ACQUIRE_BOUND: Duration = Duration::from_secs(30);

/// Cleaning up is a courtesy to the next run. It must not hold this one.
const DISPOSAL_BOUND: Duration = Duration::from_secs(5);

/// An empty database that no other test sees. Gone, as far as that is possible, when the value is dropped.
///
/// In a [`Worker`] that [`TestDb::worker`] started, [`TestDb::new`] opens the parent's database and leaves it to the parent.
#[derive(Debug)]
pub struct TestDb<DB: TestServer> {
    url: String,
    pool: Pool<DB>,
    admin: Pool<DB>,
    disposal: Disposal,
}

impl<DB: TestServer> TestDb<DB> {
    /// # Panics
    /// If there is no server. Ask [`available`](crate::available) first, or let [`on_every_database!`](crate::on_every_database) do it.
    pub async fn new() -> Self {
        let (url, disposal) = match worker::database_of_the_parent() {
            Some(url) => (url, Disposal::LeftToOthers),
            None => DB::create().await,
        };
        Self::open(url, disposal)
    }

    /// A database that somebody else has made and will end, on whatever server.
    pub fn at(url: &str) -> Self {
        Self::open(url.to_owned(), Disposal::LeftToOthers)
    }

    fn open(url: String, disposal: Disposal) -> Self {
        let options = DB::options(&url);
        let pool = pool_options(POOL_SIZE).connect_lazy_with(options.clone());
        let admin = pool_options(2).connect_lazy_with(options);
        Self {
            url,
            pool,
            admin,
            disposal,
        }
    }

    /// The pool for the code under test.
    pub fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    /// A second pool, for looking at what the first one did: it never shares a connection, a transaction or a limit with it.
    pub fn admin(&self) -> &Pool<DB> {
        &self.admin
    }

    /// Where it is, as the drivers of sqlx read it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A further pool of at most `max` connections, directly or through a proxy.
    pub fn pool_with(&self, max: u32, through: Option<&Proxy>) -> Pool<DB> {
        self.pool_from(pool_options(max), through)
    }

    /// A further pool with options of the test's own: hooks, time limits, sizes.
    pub fn pool_from(&self, options: PoolOptions<DB>, through: Option<&Proxy>) -> Pool<DB> {
        options.connect_lazy_with(self.options(through))
    }

    /// What a single connection is opened with. Through a proxy it is unencrypted, so that the proxy can read along.
    pub fn options(&self, through: Option<&Proxy>) -> OptionsOf<DB> {
        let options = DB::options(&self.url);
        match through {
            Some(proxy) => DB::through(options, proxy.address()),
            None => options,
        }
    }

    /// A new proxy in front of this database's server.
    ///
    /// # Panics
    /// On SQLite, which has no network to stand in.
    pub fn proxy(&self) -> Proxy {
        Proxy::to(self.server())
    }

    /// Starts this test once more as another process on this database. There [`Worker::input`] gives back `input`.
    pub fn worker<T: Serialize>(&self, input: &T) -> Worker {
        Worker::spawn_on(Some(&self.url), None, input)
    }

    /// The same, with a clock that is off by so much: `+2d`, `-3h`.
    ///
    /// # Panics
    /// Without the variable `EFFECTIVELY_TEST_FAKETIME`. Ask [`is_set`](crate::is_set) first.
    pub fn worker_off_by<T: Serialize>(&self, clock: &str, input: &T) -> Worker {
        Worker::spawn_on(Some(&self.url), Some(clock), input)
    }

    /// Runs statements from outside the code under test.
    pub async fn execute(&self, sql: &str) -> u64 {
        let mut connection = self.admin.acquire().await.expect("an admin connection");
        DB::execute(&mut connection, sql)
            .await
            .unwrap_or_else(|error| panic!("{error}\nin: {sql}"))
    }

    /// The one number that the query answers with, such as a `count(*)`.
    pub async fn number(&self, sql: &str) -> i64 {
        let mut connection = self.admin.acquire().await.expect("an admin connection");
        DB::number(&mut connection, sql)
            .await
            .unwrap_or_else(|error| panic!("{error}\nin: {sql}"))
    }

    /// The first column of the answer, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let mut connection = self.admin.acquire().await.expect("an admin connection");
        DB::texts(&mut connection, sql)
            .await
            .unwrap_or_else(|error| panic!("{error}\nin: {sql}"))
    }

    /// How many sessions on this database run a statement or hold a transaction open that has read or written something.
    /// Always 0 on SQLite. A connection on its way back into its pool counts for a moment: ask with [`eventually`](crate::eventually).
    ///
    /// The server's view, because a driver that has closed a socket knows nothing of the statement that still runs behind it.
    pub async fn busy_sessions(&self) -> i64 {
        let mut connection = self.admin.acquire().await.expect("an admin connection");
        DB::busy_sessions(&mut connection)
            .await
            .expect("the server's list of sessions")
    }

    fn server(&self) -> SocketAddr {
        let (host, port) =
            DB::address(&DB::options(&self.url)).expect("a database behind a network");
        (host.as_str(), port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .expect("the server's address")
    }
}

/// A pool as all tests use it.
fn pool_options<DB: TestServer>(max: u32) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(max)
        .acquire_timeout(ACQUIRE_BOUND)
}

impl<DB: TestServer> Drop for TestDb<DB> {
    fn drop(&mut self) {
        let Disposal::Statements { url, sql } = &self.disposal else {
            return;
        };
        let (options, sql) = (DB::options(url), sql.clone());
        let (done, wait) = mpsc::channel();
        // A thread of its own: this may run inside a runtime, outside of one, or while the test unwinds.
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                if let Ok(mut connection) = options.connect().await {
                    // A database that stays behind is untidy, and no reason to fail.
                    let _ = DB::execute(&mut connection, &sql).await;
                    let _ = connection.close().await;
                }
            });
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(DISPOSAL_BOUND);
    }
}
