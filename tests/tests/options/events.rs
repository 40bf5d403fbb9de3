//! What an `#[outbox]` handler returns: events in an `Emit`, or alone in a `Vec`, an array or an `Option`.

use std::time::Duration;

use effectively::{Emit, ErrorKind, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, kind, replay, send};

#[outbox]
async fn some<C: Orders>(tx: &mut C, items: &[&str]) -> Result<Vec<Placed>, ShopError> {
    tx.insert("vec").await?;
    Ok(items.iter().copied().map(Placed::of).collect())
}

#[idempotent(key = "{id}")]
#[outbox]
async fn two<C: Orders>(tx: &mut C, id: i64) -> Result<[Placed; 2], ShopError> {
    tx.insert("array").await?;
    Ok([Placed::of(format!("{id}.1")), Placed::of(format!("{id}.2"))])
}

#[idempotent(key = "{id}")]
#[outbox]
async fn perhaps<C: Orders>(tx: &mut C, id: i64) -> Result<Option<Placed>, ShopError> {
    tx.insert("option").await?;
    Ok((id > 0).then(|| Placed::of(id.to_string())))
}

#[idempotent(key = "{id}")]
#[outbox]
async fn all_sorts<C: Orders>(tx: &mut C, id: i64) -> Result<Emit<i64>, ShopError> {
    tx.insert("emit").await?;
    Ok(Emit::new(id)
        .event(Placed::of("plain"))
        .event_after(Duration::from_secs(3600), Placed::of("late"))
        .header("tenant", "acme")
        .header("sprache", "Öl 🦀 \"'\\")
        .events((0..200).map(|n| Placed::of(n.to_string()))))
}

#[idempotent(key = "{id}")]
#[outbox]
async fn header_first<C: Orders>(tx: &mut C, id: i64) -> Result<Emit<()>, ShopError> {
    tx.insert("a").await?;
    let _ = id;
    Ok(Emit::new(())
        .header("tenant", "acme")
        .event(Placed::of("a")))
}

#[idempotent(key = "{id}")]
#[outbox]
async fn too_many<C: Orders>(tx: &mut C, id: i64) -> Result<Emit<()>, ShopError> {
    tx.insert("a").await?;
    let _ = id;
    Ok(Emit::new(()).events((0..=1 << 16).map(|n| Placed::of(n.to_string()))))
}

on_every_database!(
    events_alone_are_stored_in_their_order_and_the_response_is_nothing,
    a_replay_emits_nothing,
    a_delayed_event_is_not_due_before_its_time,
    headers_belong_to_the_event_before_them,
    events_that_cannot_be_stored_are_an_error_and_leave_nothing,
);

async fn keys<DB: ShopDb>(shop: &Shop<DB>) -> Vec<String> {
    let keys = shop.drain().await.into_iter();
    keys.map(|event| event.partition_key.expect("a key"))
        .collect()
}

async fn events_alone_are_stored_in_their_order_and_the_response_is_nothing<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let answer: () = send(some::<DB::Connection>(shop.ledger(), &["c", "a", "b", "a"]))
        .await
        .expect("an answer");
    assert_eq!(answer, ());
    assert_eq!(keys(&shop).await, ["c", "a", "b", "a"]);
    some::<DB::Connection>(shop.ledger(), &[])
        .await
        .expect("an answer");

    let answer = first(send(two::<DB::Connection>(shop.ledger(), 7)).await);
    assert!(answer.recorded().body().is_empty());
    answer.into_result().expect("a response");
    assert_eq!(keys(&shop).await, ["7.1", "7.2"]);

    for id in [0, 1] {
        first(send(perhaps::<DB::Connection>(shop.ledger(), id)).await);
    }
    let events = shop.drain().await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].topic.as_str(), events[0].name.as_str()),
        ("orders", "order.placed.v1")
    );
    assert_eq!(events[0].data, br#"{"item":"1"}"#);
    assert!(events[0].headers.is_empty());
    assert_eq!(shop.stored().await, (5, 0, 3));
}

async fn a_replay_emits_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    first(two::<DB::Connection>(shop.ledger(), 7).await);
    for ledger in [shop.ledger(), shop.elsewhere()] {
        replay(two::<DB::Connection>(ledger, 7).await);
    }
    assert_eq!(shop.stored().await, (1, 2, 1));
    // Nor when the events of the first call are published already.
    assert_eq!(shop.drain().await.len(), 2);
    replay(two::<DB::Connection>(shop.ledger(), 7).await);
    assert_eq!(shop.stored().await, (1, 0, 1));
}

async fn a_delayed_event_is_not_due_before_its_time<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    first(all_sorts::<DB::Connection>(shop.ledger(), 1).await);
    let events = keys(&shop).await;
    assert_eq!(events.len(), 201);
    assert!(events[0] == "plain" && events[200] == "199");
    assert_eq!(shop.ledger.outbox().pending().await.expect("a count"), 1);
    let delay = match DB::NAME {
        "PostgreSQL" => "cast(extract(epoch from available_at - created_at) * 1000 as bigint)",
        "MySQL" => "timestampdiff(microsecond, created_at, available_at) div 1000",
        _ => "available_at - created_at",
    };
    let delay = format!("select {delay} from effectively_outbox");
    assert_eq!(shop.db.number(&delay).await, 3_600_000);
    let due = "update effectively_outbox set available_at = created_at";
    shop.db.execute(due).await;
    assert_eq!(keys(&shop).await, ["late"]);
}

async fn headers_belong_to_the_event_before_them<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    first(all_sorts::<DB::Connection>(shop.ledger(), 1).await);
    let due = "update effectively_outbox set available_at = created_at";
    shop.db.execute(due).await;
    for event in shop.drain().await {
        let headers: Vec<_> = event.headers.iter().collect();
        if event.partition_key.as_deref() == Some("late") {
            let [(sprache, oil), (tenant, acme)] = headers[..] else {
                panic!("two headers");
            };
            assert_eq!((sprache.as_str(), oil.as_str()), ("sprache", "Öl 🦀 \"'\\"));
            assert_eq!((tenant.as_str(), acme.as_str()), ("tenant", "acme"));
        } else {
            assert!(headers.is_empty());
        }
    }
}

async fn events_that_cannot_be_stored_are_an_error_and_leave_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = header_first::<DB::Connection>(shop.ledger(), 1).await;
    assert!(matches!(kind(&answer), Some(ErrorKind::Encode(_))));
    let answer = too_many::<DB::Connection>(shop.ledger(), 1).await;
    let limit = 1 << 16;
    assert_eq!(kind(&answer), Some(ErrorKind::TooManyEvents { limit }));
    assert_eq!(shop.stored().await, (0, 0, 0));
}
