//! `#[idempotent]` and `#[outbox]` in either order: the same answers, the same rows.

use effectively::{Emit, Envelope, Failure, Outcome, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, replay, send};

type Answer = Result<Outcome<String>, Failure<ShopError>>;

#[idempotent(key = "{item}")]
#[outbox]
async fn idempotent_first<C: Orders>(
    tx: &mut C,
    item: &str,
    fails: bool,
) -> Result<Emit<String>, ShopError> {
    place(tx, item, fails).await
}

#[outbox]
#[idempotent(key = "{item}")]
async fn outbox_first<C: Orders>(
    tx: &mut C,
    item: &str,
    fails: bool,
) -> Result<Emit<String>, ShopError> {
    place(tx, item, fails).await
}

async fn place<C: Orders>(tx: &mut C, item: &str, fails: bool) -> Result<Emit<String>, ShopError> {
    tx.insert(item).await?;
    if fails {
        return Err(ShopError::SoldOut);
    }
    Ok(Emit::new(format!("{item} is placed"))
        .event(Placed::of(item))
        .header("tenant", "acme")
        .event(Placed::of("other")))
}

on_every_database!(the_order_of_the_attributes_changes_nothing);

async fn the_order_of_the_attributes_changes_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let one = rows(&shop, async |fails| {
        send(idempotent_first::<DB::Connection>(
            shop.ledger(),
            "a",
            fails,
        ))
        .await
    });
    let one = one.await;
    let other = rows(&shop, async |fails| {
        send(outbox_first::<DB::Connection>(shop.ledger(), "a", fails)).await
    });
    assert_eq!(one, other.await);
    assert_eq!(one.1.len(), 2);
    let scopes = shop
        .db
        .texts("select scope from effectively_claims order by scope");
    assert_eq!(scopes.await, ["idempotent_first", "outbox_first"]);
}

/// The answer's bytes, and the events without what is new in every call.
async fn rows<DB: ShopDb>(
    shop: &Shop<DB>,
    call: impl AsyncFn(bool) -> Answer,
) -> (Vec<u8>, Vec<String>) {
    let (orders, _, claims) = shop.stored().await;
    let failed = call(true).await;
    assert!(matches!(failed, Err(Failure::Handler(ShopError::SoldOut))));
    assert_eq!(shop.stored().await, (orders, 0, claims));

    let answer = first(call(false).await);
    assert_eq!(replay(call(false).await).recorded(), answer.recorded());
    assert_eq!(shop.stored().await, (orders + 1, 2, claims + 1));
    let events = shop.drain().await;
    let attempt = |event: &Envelope| event.id.as_bytes()[..14].to_vec();
    assert_eq!(attempt(&events[0]), attempt(&events[1]));
    assert_ne!(events[0].id, events[1].id);
    (
        answer.recorded().body().to_vec(),
        events.into_iter().map(without_ids).collect(),
    )
}

fn without_ids(event: Envelope) -> String {
    let Envelope {
        topic,
        name,
        partition_key,
        data,
        headers,
        traceparent,
        ..
    } = event;
    let data = String::from_utf8(data).expect("JSON");
    format!("{topic} {name} {partition_key:?} {data} {headers:?} {traceparent:?}")
}
