//! PostgreSQL with a synchronous standby that is promoted under load.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use effectively_tests::{Proxy, TestDb, available, eventually};
use sqlx::Postgres;
use tempfile::TempDir;

use crate::load::{CONNECTIONS, ENOUGH, Load};
use crate::marks::open;

/// How long a server may take to start.
const STARTED: Duration = Duration::from_secs(60);

#[test]
fn a_primary_is_killed_and_its_standby_promoted() {
    run(async |pair| {
        let (db, load) = pair.under_load().await;
        pair.primary.kill();
        pair.promote().await;
        load.recovers().await;
        load.check(&pair.standby.db()).await;
        drop(db);
    });
}

#[test]
fn a_primary_lives_on_read_only_beside_its_promoted_standby() {
    run(async |pair| {
        let (db, load) = pair.under_load().await;
        // Its sessions stay open, and refuse every write from now on.
        for sql in [
            "alter system set default_transaction_read_only = on",
            "select pg_reload_conf()",
        ] {
            db.execute(sql).await;
        }
        pair.promote().await;
        load.recovers().await;
        load.check(&pair.standby.db()).await;
    });
}

#[test]
fn connections_that_lead_to_a_standby_are_given_up() {
    run(async |pair| {
        let (_db, load) = pair.under_load().await;
        // What opens a connection now reaches a server that cannot write, until it is led back.
        pair.proxy.lead_to(pair.standby.address);
        pair.proxy.sever();
        load.fails(ENOUGH).await;
        pair.proxy.lead_to(pair.primary.address);
        load.recovers().await;
        load.check(&pair.primary.db()).await;
    });
}

/// A primary, its synchronous standby, and the way to the one that takes writes.
struct Pair {
    primary: Server,
    standby: Server,
    proxy: Proxy,
}

fn run(test: impl AsyncFnOnce(&mut Pair)) {
    if !available::<Postgres>() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let mut pair = Pair::start().await;
        let bound = Duration::from_secs(200);
        let ended = tokio::time::timeout(bound, test(&mut pair)).await;
        ended.expect("an end in time");
    });
}

impl Pair {
    async fn start() -> Self {
        let primary = Server::start(None).await;
        let standby = Server::start(Some(&primary)).await;
        let db = primary.db();
        for sql in [
            "alter system set synchronous_standby_names = '*'",
            "select pg_reload_conf()",
        ] {
            db.execute(sql).await;
        }
        let follows = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        eventually(STARTED, async || db.number(follows).await == 1).await;
        let proxy = Proxy::to(primary.address);
        Self {
            primary,
            standby,
            proxy,
        }
    }

    /// The primary, and callers that have begun.
    async fn under_load(&self) -> (TestDb<Postgres>, Load) {
        let db = open(self.primary.db()).await;
        let load = Load::start(&[db.pool_with(CONNECTIONS, Some(&self.proxy))]);
        load.succeeds(ENOUGH).await;
        (db, load)
    }

    async fn promote(&self) {
        let promoted = self.standby.db();
        let sql = "select pg_promote()::int::bigint";
        assert_eq!(promoted.number(sql).await, 1);
        self.proxy.lead_to(self.standby.address);
    }
}

/// A server that only this test knows. It is killed when it is dropped.
struct Server {
    address: SocketAddr,
    process: Child,
    _directory: TempDir,
}

impl Server {
    async fn start(primary: Option<&Self>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        drop(listener);
        let process = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("run"))
            .args(["--server", "postgres"])
            .arg(directory.path())
            .arg(address.port().to_string())
            .args(primary.map(|primary| primary.address.port().to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut server = Self {
            address,
            process: process.expect("a process"),
            _directory: directory,
        };
        let db = server.db();
        eventually(STARTED, async || {
            let ended = server.process.try_wait().expect("its state");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            db.pool().acquire().await
        })
        .await;
        server
    }

    fn db(&self) -> TestDb<Postgres> {
        TestDb::at(&format!("postgres://postgres@{}/postgres", self.address))
    }

    /// SIGKILL, as when its machine is gone.
    fn kill(&mut self) {
        self.process.kill().expect("the signal");
        self.process.wait().expect("its end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
