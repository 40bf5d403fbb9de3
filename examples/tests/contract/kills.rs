//! Three processes, one of them killed under load, and clients that do not give up: nothing is lost and nothing is double.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use effectively_tests::{TestServer, eventually};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Answer, read, try_open};
use crate::server::request;
use crate::shop::Shop;

on_every_server!(axum alone on every database: a_killed_process_loses_no_order_and_doubles_none);

const BOUND: Duration = Duration::from_secs(15);
/// Of a client before it tries again.
const BACK_OFF: Duration = Duration::from_millis(5);
const CLIENTS: usize = 24;
/// Each of them is ordered by two clients, at two processes.
const KEYS: usize = 240;

#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    /// The connection ended without an answer.
    cut_off: AtomicUsize,
    /// There was no server any more.
    refused: AtomicUsize,
}

async fn a_killed_process_loses_no_order_and_doubles_none<DB: TestServer>(mut shop: Shop<DB>) {
    let others = [shop.another().await, shop.another().await];
    let addresses = [shop.server.address, others[0].address, others[1].address];
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(orders(client, addresses, counts.clone()));
    }
    let acknowledged = async |count| {
        eventually(BOUND, async || {
            counts.acknowledged.load(Ordering::SeqCst) >= count
        })
        .await;
    };
    acknowledged(KEYS / 2).await;
    shop.server.kill();
    let before = counts.acknowledged.load(Ordering::SeqCst);
    let answers = timeout(BOUND, clients.join_all()).await.expect("an end");

    let mut orders = BTreeMap::new();
    for (key, answer) in answers.into_iter().flatten() {
        let first = orders.entry(key).or_insert_with(|| answer.body.clone());
        assert_eq!(*first, answer.body, "{key}");
    }
    shop.until_idle().await;
    let count = KEYS as i64;
    assert_eq!(orders.len(), KEYS);
    assert_eq!(shop.stored().await, (count, count, count));
    for (key, body) in &orders {
        let again = others[key % 2].ask(&key.to_string(), &order(*key)).await;
        assert_eq!((again.kind(), &again.body), ((201, true), body), "{key}");
    }
    // A run in which nothing happened proves nothing.
    let [cut_off, refused] =
        [&counts.cut_off, &counts.refused].map(|count| count.load(Ordering::SeqCst));
    let after = 2 * KEYS - before;
    assert!(
        cut_off >= 1 && refused >= 10 && after >= KEYS / 4,
        "{cut_off} {refused} {after}"
    );
}

fn order(key: usize) -> String {
    format!(r#"{{"item":"{key}","quantity":2,"delay_ms":{}}}"#, key % 7)
}

/// The keys of one client, one after the other, each until it is acknowledged.
async fn orders(
    client: usize,
    servers: [SocketAddr; 3],
    counts: Arc<Counts>,
) -> Vec<(usize, Answer)> {
    let pair = client / 2;
    let mut answers = Vec::new();
    for key in (0..KEYS).filter(|key| key % (CLIENTS / 2) == pair) {
        let request = request(&key.to_string(), &order(key));
        // The two clients of a key begin at different servers; who is refused goes on to the next one.
        for turn in client + key.. {
            if let Some(answer) = attempt(servers[turn % 3], &request, &counts).await {
                counts.acknowledged.fetch_add(1, Ordering::SeqCst);
                answers.push((key, answer));
                break;
            }
            sleep(BACK_OFF).await;
        }
    }
    answers
}

/// `None`: to be tried again.
async fn attempt(server: SocketAddr, request: &[u8], counts: &Counts) -> Option<Answer> {
    let Some(stream) = try_open(server, request).await else {
        counts.refused.fetch_add(1, Ordering::SeqCst);
        return None;
    };
    let Some(answer) = read(stream).await else {
        counts.cut_off.fetch_add(1, Ordering::SeqCst);
        return None;
    };
    assert!(matches!(answer.status, 201 | 409 | 503), "{answer:?}");
    (answer.status == 201).then_some(answer)
}
