//! MariaDB Galera: three nodes that all take writes. Locks are local to a node, so two calls with one key may both run their body: the
//! certification of the unique key lets one of them commit.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use effectively::sink::Memory;
use effectively::{ErrorKind, Failure, Ledger, Relay};
use effectively_tests::{TestDb, TestServer, Worker, eventually, is_set};
use futures_util::FutureExt;
use sqlx::types::Uuid;
use sqlx::{ConnectOptions, MySql};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::history::End;
use crate::load::{CONNECTIONS, ENOUGH, Load};
use crate::marks::{Body, answered, mark_of, open, order, order_as};
use crate::mixed_work::{self, Shift, history_of, judge, work};
use crate::shop::{SOON, ShopError, kind};

const VARIABLE: &str = "EFFECTIVELY_TEST_GALERA";

/// How long a node may take to notice that it is alone, and to come back.
const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn callers_on_all_nodes_keep_what_they_were_told() {
    run(async |cluster| {
        let load = Load::start(&cluster.pools());
        load.succeeds(3 * ENOUGH).await;
        cluster.is_even().await;
        load.check(&cluster.nodes[2]).await;
    });
}

/// Processes that are killed, bodies that fail, connections that break, and a relay each.
#[test]
fn the_mixed_work_of_all_nodes_keeps_its_history() {
    if let Some(shift) = Worker::input::<Shift>() {
        return runtime().block_on(async {
            // The node of the parent's choice.
            work(TestDb::<MySql>::new().await, shift, true).await;
        });
    }
    run_on(async |cluster| {
        mixed_work::open(TestDb::<MySql>::at(cluster.nodes[0].url())).await;
        cluster.is_even().await;
        let history = history_of(&cluster.nodes).await;
        cluster.is_even().await;
        let history = judge(history, &cluster.nodes[1]).await;
        let [received, _] = history.received;
        let ran = history.count(|end| matches!(end, Some(End::Ran(_))));
        let replayed = history.count(|end| matches!(end, Some(End::Replayed(_))));
        let counts = (ran, replayed, received);
        assert!(ran >= 10 && replayed >= 20 && received >= 30, "{counts:?}");
    });
}

#[test]
fn a_key_on_three_nodes_at_once_executes_once() {
    run(async |cluster| {
        let ledgers: Vec<_> = cluster.pools().into_iter().map(Ledger::new).collect();
        let mut refused = 0;
        for round in 0..40 {
            let key = round.to_string();
            let mut calls = JoinSet::new();
            for ledger in ledgers.clone() {
                let mark = mark_of(&key);
                calls.spawn(async move { order_as(&ledger, &mark, Body::Returns).await });
            }
            let mut ran = 0;
            for answer in calls.join_all().await {
                match answer {
                    Ok(outcome) => ran += usize::from(!outcome.is_replay()),
                    // What another node commits ends the transactions that it meets, in the body or at their end.
                    Err(Failure::Handler(ShopError::Sql(_))) => refused += 1,
                    Err(_) => {
                        let told = [ErrorKind::NotCommitted, ErrorKind::InFlight].map(Some);
                        assert!(told.contains(&kind(&answer)), "{answer:?}");
                        refused += 1;
                    }
                }
            }
            assert_eq!(ran, 1, "{key}");
            cluster.is_even().await;
            let mut told = Vec::new();
            for ledger in &ledgers {
                told.push(answered(order(ledger, &key, Body::Returns).await));
            }
            let orders = format!("select item from orders where item like '{key}#%'");
            let orders = cluster.nodes[2].texts(&orders).await;
            assert_eq!((orders.len(), told), (1, vec![orders[0].clone(); 3]));
        }
        assert!(refused > 0, "the nodes never met");
    });
}

#[test]
fn services_on_all_nodes_may_migrate_at_once() {
    run_on(async |cluster| {
        let mut migrations = JoinSet::new();
        for pool in cluster.pools() {
            migrations.spawn(async move { Ledger::new(pool).migrate().await });
        }
        for migrated in migrations.join_all().await {
            migrated.expect("the tables");
        }
        cluster.is_even().await;
        // Another start finds all of it noted, on each node.
        for pool in cluster.pools() {
            Ledger::new(pool).migrate().await.expect("the tables");
        }
    });
}

#[test]
fn a_node_without_quorum_is_unavailable_and_comes_back() {
    run(async |cluster| {
        let load = Load::start(&cluster.pools());
        load.succeeds(ENOUGH).await;
        let alone = &cluster.nodes[2];
        let ledger = Ledger::new(alone.pool_with(2, None));
        let sink = Memory::new();
        let relay = Relay::builder(ledger.clone()).route("orders", sink.clone());
        let relay = relay
            .lease(Duration::from_secs(1))
            .build()
            .expect("a relay");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let relay = tokio::spawn(relay.run(async { _ = ended.await }));
        eventually(SOON, async || !sink.is_empty()).await;

        cluster.isolate(true).await;
        let refused = order(&ledger, "alone", Body::Returns).await;
        assert_eq!(kind(&refused), Some(ErrorKind::Unavailable), "{refused:?}");
        load.succeeds(ENOUGH).await;
        cluster.isolate(false).await;

        load.recovers().await;
        let before = sink.len();
        eventually(NOTICED, async || sink.len() > before).await;
        end.send(()).expect("a relay that has not ended");
        relay.await.expect("no panic").expect("an end in order");
        cluster.is_even().await;
        load.check_calls(alone).await;
    });
}

/// One database, by way of each node.
struct Cluster {
    nodes: Vec<TestDb<MySql>>,
    name: String,
}

/// With the tables of the toolkit and of the suite.
fn run(test: impl AsyncFnOnce(&Cluster)) {
    run_on(async |cluster| {
        open(TestDb::<MySql>::at(cluster.nodes[0].url())).await;
        cluster.is_even().await;
        test(cluster).await;
    });
}

fn run_on(test: impl AsyncFnOnce(&Cluster)) {
    if !is_set(VARIABLE) {
        return;
    }
    let _turn = turn();
    runtime().block_on(async {
        let cluster = Cluster::open().await;
        let ended = tokio::time::timeout(Duration::from_secs(200), test(&cluster));
        let ended = AssertUnwindSafe(ended).catch_unwind().await;
        // However it ended: the next test needs the node.
        cluster.isolate(false).await;
        match ended {
            Ok(in_time) => in_time.expect("an end in time"),
            Err(panic) => resume_unwind(panic),
        }
        let drop = format!("drop database {}", cluster.name);
        cluster.nodes[0].execute(&drop).await;
    });
}

fn runtime() -> Runtime {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(4).enable_all().build();
    runtime.expect("a runtime")
}

/// A node without quorum is everybody's: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    async fn open() -> Self {
        let first = std::env::var(VARIABLE).expect("the address of a node");
        let name = format!("failover_{}", Uuid::new_v4().simple());
        let any = TestDb::<MySql>::at(&first);
        let options = MySql::options(&first);
        let addresses = any
            .texts(
                "select variable_value from information_schema.global_status \
                 where variable_name = 'wsrep_incoming_addresses'",
            )
            .await
            .concat();
        any.execute(&format!("create database {name} character set utf8mb4"))
            .await;
        let node = |address: &str| {
            let (host, port) = address.split_once(':').expect("host and port");
            let port = port.parse().expect("a port");
            let options = options.clone().host(host).port(port).database(&name);
            TestDb::at(options.to_url_lossy().as_str())
        };
        let nodes: Vec<_> = addresses.split(',').map(node).collect();
        assert_eq!(nodes.len(), 3, "{addresses}");
        let cluster = Self { nodes, name };
        cluster.is_even().await;
        cluster
    }

    /// Of a service on each node.
    fn pools(&self) -> Vec<sqlx::Pool<MySql>> {
        let pool = |node: &TestDb<MySql>| node.pool_with(CONNECTIONS, None);
        self.nodes.iter().map(pool).collect()
    }

    /// Waits until every node has what the others had committed by now.
    async fn is_even(&self) {
        for node in &self.nodes {
            eventually(NOTICED, async || {
                let mut admin = node.admin().acquire().await?;
                // A read then waits for all that the cluster had committed when it began.
                MySql::execute(&mut admin, "set session wsrep_sync_wait = 1").await?;
                MySql::number(&mut admin, "select count(*) from dual").await
            })
            .await;
        }
    }

    /// Cuts the last node off from the others, or lets it back.
    async fn isolate(&self, on: bool) {
        let alone = &self.nodes[2];
        let value = u8::from(on);
        let isolate = format!("set global wsrep_provider_options = 'gmcast.isolate={value}'");
        alone.execute(&isolate).await;
        let is_ready = "select count(*) from information_schema.global_status \
                        where variable_name = 'wsrep_ready' and variable_value = 'ON'";
        eventually(NOTICED, async || match ask(alone, is_ready).await {
            Ok(ready) if ready == i64::from(!on) => Ok(()),
            other => Err(other),
        })
        .await;
    }
}

/// A number, from a node that may be about to leave.
async fn ask(node: &TestDb<MySql>, sql: &str) -> sqlx::Result<i64> {
    let mut admin = node.admin().acquire().await?;
    MySql::number(&mut admin, sql).await
}
