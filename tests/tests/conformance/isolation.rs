//! I1 at every isolation level: duplicates replay, and one body runs.

use std::time::Duration;

use effectively::Isolation::{self, ReadCommitted, RepeatableRead, Serializable};
use effectively_tests::{TestDb, on_every_database};
use tokio::task::JoinSet;

use crate::held::Held;
use crate::shop::{Shop, ShopDb, ShopError, insert, place, shop_key};

const LONG: Duration = Duration::from_secs(30);

on_every_database!(
    duplicates_at_repeatable_read_replay_one_run,
    duplicates_at_serializable_replay_one_run,
    a_duplicate_that_waited_reads_what_was_committed_meanwhile,
);
on_every_database!([postgres, mysql] the_body_runs_at_the_level_that_was_asked_for);

async fn duplicates_at_repeatable_read_replay_one_run<DB: ShopDb>(db: TestDb<DB>) {
    duplicates(db, RepeatableRead).await;
}

async fn duplicates_at_serializable_replay_one_run<DB: ShopDb>(db: TestDb<DB>) {
    duplicates(db, Serializable).await;
}

async fn duplicates<DB: ShopDb>(db: TestDb<DB>, isolation: Isolation) {
    let shop = Shop::open(db).await;
    let ledgers = [shop.ledger.clone(), shop.elsewhere()];
    for key in ["a", "b", "c", "d", "e"] {
        let mut calls = JoinSet::new();
        for n in 0..20 {
            let (ledger, runs) = (ledgers[n % 2].clone(), shop.runs.clone());
            calls.spawn(async move {
                let call = ledger.call(shop_key(key)).isolation(isolation).wait(LONG);
                place(call, &runs, key, async { Ok(()) }).await
            });
        }
        let answers = calls.join_all().await.into_iter();
        let answers: Vec<_> = answers.map(|answer| answer.expect("an answer")).collect();
        let first = answers[0].recorded();
        assert!(answers.iter().all(|answer| answer.recorded() == first));
    }
    assert_eq!(shop.runs(), 5);
    assert_eq!(shop.stored().await, (5, 5, 5));
    shop.assert_healthy().await;
}

async fn a_duplicate_that_waited_reads_what_was_committed_meanwhile<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (key, isolation) in [
        ("a", ReadCommitted),
        ("b", RepeatableRead),
        ("c", Serializable),
    ] {
        let held = Held::by(&shop.elsewhere(), &shop.runs, key, "").await;
        let call = shop
            .ledger
            .call(shop_key(key))
            .isolation(isolation)
            .wait(LONG);
        let (first, duplicate) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                held.finish().await.expect("an answer")
            },
            place(call, &shop.runs, key, async { Ok(()) }),
        );
        let duplicate = duplicate.expect("a replay");
        assert!(duplicate.is_replay());
        assert_eq!(duplicate.recorded(), first.recorded());
    }
    assert_eq!(shop.runs(), 3);
}

/// What another session commits while the body runs is seen at read committed and not at repeatable read.
async fn the_body_runs_at_the_level_that_was_asked_for<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (key, isolation, seen) in [("a", ReadCommitted, 1), ("b", RepeatableRead, 0)] {
        shop.db.execute("delete from orders").await;
        let call = shop.ledger.call(shop_key(key)).isolation(isolation);
        let answer = call.run(async |tx: &mut DB::Connection| {
            let count = "select count(*) from orders";
            assert_eq!(DB::number(tx, count).await?, 0);
            shop.db
                .execute("insert into orders values ('theirs')")
                .await;
            let seen = DB::number(tx, count).await?;
            insert::<DB>(tx, "ours").await?;
            Ok::<_, ShopError>(seen)
        });
        let answer = answer.await.expect("an answer").into_result();
        assert_eq!(answer.expect("a response"), seen, "{isolation:?}");
    }
}
