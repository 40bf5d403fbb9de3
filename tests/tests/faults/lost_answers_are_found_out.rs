//! I10: the answer to a COMMIT may be lost, and so may the COMMIT. The caller learns which, or that it is not known.

use std::time::{Duration, Instant};

use effectively::{ErrorKind, Ledger};
use effectively_tests::{Proxy, TestDb, eventually, on_every_database};
use tokio::task::JoinSet;

use crate::marks::{Body, answered, mark_of, open, order, order_as, order_with, settled};
use crate::sessions::commit_message;
use crate::shop::{ShopDb, kind};

const LANES: usize = 6;
const CUTS: usize = 10;

on_every_database!([postgres, mysql]
    sixty_lost_answers_are_answered_all_the_same,
    a_lost_commit_is_not_committed,
    a_silent_commit_is_reported_as_unknown,
    a_commit_that_arrives_late_counts_once,
);

async fn sixty_lost_answers_are_answered_all_the_same<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    for literals in [false, true] {
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            let (proxy, ledger) = behind_a_proxy(&db, literals);
            lanes.spawn(async move {
                let mut own = 0;
                for cut in 0..CUTS {
                    own += usize::from(
                        lose_an_answer(&proxy, &ledger, literals, &format!("{lane} {cut}")).await,
                    );
                }
                own
            });
        }
        let own: usize = lanes.join_all().await.into_iter().sum();
        assert!(
            own > LANES * CUTS * 9 / 10,
            "{own} callers got their own answer"
        );
    }
    assert_eq!(settled(&db).await.orders.len(), 2 * LANES * CUTS);
}

/// Whether the caller got its own answer; else it was told that it is unknown, and its retry replays.
async fn lose_an_answer<DB: ShopDb>(
    proxy: &Proxy,
    ledger: &Ledger<DB>,
    literals: bool,
    key: &str,
) -> bool {
    let key = &format!("{literals} {key}");
    // A connection first: the trap is for this call, not for opening one.
    ledger.pool().acquire().await.expect("a connection");
    proxy.cut_next_reply(commit_message::<DB>(literals));
    let mark = mark_of(key);
    let answer = order_as(ledger, &mark, Body::Returns).await;
    assert!(!proxy.is_armed(), "no answer was lost");
    let known = match kind(&answer) {
        Some(ErrorKind::CommitUnknown) => false,
        _ => {
            assert!(
                answer.as_ref().is_ok_and(|outcome| !outcome.is_replay()),
                "{answer:?}"
            );
            assert_eq!(answered(answer), mark);
            true
        }
    };
    let again = order(ledger, key, Body::Returns).await;
    assert!(
        again.as_ref().is_ok_and(|outcome| outcome.is_replay()),
        "{again:?}"
    );
    assert_eq!(answered(again), mark);
    known
}

async fn a_lost_commit_is_not_committed<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    for literals in [false, true] {
        let (proxy, ledger) = behind_a_proxy(&db, literals);
        for turn in 0..5 {
            let key = format!("{literals} {turn}");
            ledger.pool().acquire().await.expect("a connection");
            proxy.lose_next_request(commit_message::<DB>(literals));
            let answer = order(&ledger, &key, Body::Returns).await;
            assert!(!proxy.is_armed(), "no COMMIT was lost");
            assert_eq!(kind(&answer), Some(ErrorKind::NotCommitted));
            assert_eq!(settled(&db).await.orders_of(&key), [""; 0]);
            let retried = order(&ledger, &key, Body::Returns).await;
            assert!(retried.as_ref().is_ok_and(|outcome| !outcome.is_replay()));
        }
    }
    assert_eq!(settled(&db).await.orders.len(), 10);
}

async fn a_silent_commit_is_reported_as_unknown<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    for literals in [false, true] {
        let (proxy, ledger) = behind_a_proxy(&db, literals);
        let key = format!("{literals}");
        ledger.pool().acquire().await.expect("a connection");
        proxy.stall_at(commit_message::<DB>(literals));
        let begun = Instant::now();
        let answer = order(&ledger, &key, Body::Returns).await;
        assert_eq!(kind(&answer), Some(ErrorKind::CommitUnknown));
        assert!(
            !proxy.is_armed() && begun.elapsed() < 5 * UNKNOWN,
            "{:?}",
            begun.elapsed()
        );
        // The server still waits for that COMMIT, and the key with it, until it learns that the connection is gone.
        proxy.sever();
        eventually(Duration::from_secs(5), async || {
            order(&ledger, &key, Body::Returns).await
        })
        .await;
    }
    assert_eq!(settled(&db).await.orders.len(), 2);
}

/// Everything is held back from the end of the body on, and the COMMIT comes after its caller was told that it is unknown.
async fn a_commit_that_arrives_late_counts_once<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let (proxy, ledger) = behind_a_proxy(&db, true);
    for turn in 0..3 {
        let mark = mark_of(&turn.to_string());
        ledger.pool().acquire().await.expect("a connection");
        let answer = order_with(&ledger, &mark, async |_: &mut DB::Connection| {
            proxy.black_hole(true);
            Ok(())
        })
        .await;
        assert_eq!(kind(&answer), Some(ErrorKind::CommitUnknown));
        proxy.black_hole(false);
        let retried = eventually(Duration::from_secs(5), async || {
            order(&ledger, &turn.to_string(), Body::Returns).await
        })
        .await;
        let stayed = settled(&db).await;
        assert_eq!(
            stayed.orders_of(&turn.to_string()),
            [answered::<std::fmt::Error>(Ok(retried))]
        );
    }
}

const UNKNOWN: Duration = Duration::from_millis(700);

fn behind_a_proxy<DB: ShopDb>(db: &TestDb<DB>, literals: bool) -> (Proxy, Ledger<DB>) {
    let proxy = db.proxy();
    let ledger = Ledger::builder(db.pool_with(2, Some(&proxy)))
        .payload_literals(literals)
        .unknown_commit_bound(UNKNOWN)
        .build();
    (proxy, ledger.expect("a ledger"))
}
