//! `retention = "…"`: how long an outcome is kept, by the database's clock. After that the key is new.

use std::time::Duration;

use effectively::{Emit, Ledger, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, Stop, first, send};

#[idempotent(key = "{item}", retention = "1s")]
#[outbox]
async fn for_a_second<C: Orders>(
    tx: &mut C,
    item: &str,
    runs: &Stop,
) -> Result<Emit<usize>, ShopError> {
    runs.here().await;
    tx.insert(item).await?;
    Ok(Emit::new(runs.runs()).event(Placed::of(item)))
}

#[idempotent(key = "{item}")]
async fn by_default<C: Orders>(tx: &mut C, item: &str) -> Result<(), ShopError> {
    Ok(tx.insert(item).await?)
}

on_every_database!(
    an_outcome_is_kept_for_as_long_as_the_handler_says,
    after_its_retention_a_key_executes_once_more_with_new_event_ids,
);

/// Of the one claim with this scope, in milliseconds.
async fn kept<DB: ShopDb>(shop: &Shop<DB>, scope: &str) -> i64 {
    let kept = match DB::NAME {
        "PostgreSQL" => "cast(extract(epoch from expires_at - created_at) * 1000 as bigint)",
        "MySQL" => "timestampdiff(microsecond, created_at, expires_at) div 1000",
        _ => "expires_at - created_at",
    };
    let sql = format!("select {kept} from effectively_claims where scope = '{scope}'");
    shop.db.number(&sql).await
}

async fn an_outcome_is_kept_for_as_long_as_the_handler_says<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let hour = Ledger::builder(shop.db.pool().clone()).retention(Duration::from_secs(3600));
    let ledger = hour.build().expect("a ledger");
    for_a_second::<DB::Connection>(ledger.clone(), "a", &Stop::open())
        .await
        .expect("an answer");
    assert_eq!(kept(&shop, "for_a_second").await, 1000);
    first(by_default::<DB::Connection>(ledger, "a").await);
    assert_eq!(kept(&shop, "by_default").await, 3_600_000);
    shop.db.execute("delete from effectively_claims").await;
    first(by_default::<DB::Connection>(shop.elsewhere(), "a").await);
    assert_eq!(kept(&shop, "by_default").await, 86_400_000);
}

async fn after_its_retention_a_key_executes_once_more_with_new_event_ids<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let (shop, runs) = (Shop::open(db).await, Stop::open());
    let call = |ledger| send(for_a_second::<DB::Connection>(ledger, "a", &runs));
    let old = first(call(shop.ledger()).await);
    // Not a wait of a second: on a slow machine that could be over before it began.
    let past = match DB::NAME {
        "PostgreSQL" => "now() - interval '1 second'",
        "MySQL" => "utc_timestamp(6) - interval 1 second",
        _ => "expires_at - 3600000",
    };
    let expire = format!("update effectively_claims set expires_at = {past}");
    assert_eq!(shop.db.execute(&expire).await, 1);
    let new = first(call(shop.ledger()).await);
    assert_ne!(new.recorded(), old.recorded());
    assert_eq!(shop.stored().await, (2, 2, 1));
    let ids: Vec<_> = shop.drain().await.iter().map(|event| event.id).collect();
    assert_ne!(ids[0], ids[1]);
    // A second from now.
    let again = call(shop.ledger()).await.expect("an answer");
    assert_eq!(again.is_replay(), runs.runs() == 2);
}
