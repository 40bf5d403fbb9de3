//! I3, I5, I12: what a committed call emitted is in the outbox in its order, under ids that never change, until it is published.

use std::time::Duration;

use effectively::{Drained, Emit, ErrorKind, Failure, Ledger, Outcome};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{OrderPlaced, Shop, ShopDb, ShopError, in_the_past, insert, kind, shop_key};

type Placed = Result<Outcome<()>, Failure<ShopError>>;

/// A call with one order that emits this.
async fn emit<DB: ShopDb>(ledger: &Ledger<DB>, key: &str, emission: Emit<()>) -> Placed {
    ledger
        .call(shop_key(key))
        .run_with_events(async |tx: &mut DB::Connection| {
            insert::<DB>(tx, key).await?;
            Ok(emission)
        })
        .await
}

fn items(count: usize) -> impl Iterator<Item = OrderPlaced> {
    (0..count).map(|n| OrderPlaced::of(format!("item {n}")))
}

on_every_database!(
    events_are_stored_in_their_order_under_ids_of_their_attempt,
    what_an_event_carries_comes_back_as_it_was,
    the_trace_context_of_the_call_is_stored_with_its_events,
    events_with_one_key_share_a_partition,
    a_call_without_events_leaves_none,
    ten_thousand_events_are_stored_in_their_order,
    more_events_than_ids_are_an_error_and_leave_nothing,
    a_partition_key_that_not_every_database_can_store_is_an_error,
    a_delayed_event_waits_for_its_time,
    an_event_that_is_not_taken_stays_with_all_after_it,
);

async fn events_are_stored_in_their_order_under_ids_of_their_attempt<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for key in ["a", "b"] {
        let answer = emit(&shop.ledger, key, Emit::new(()).events(items(3))).await;
        answer.expect("an answer");
    }
    let replay = emit(&shop.ledger, "a", Emit::new(()).events(items(3))).await;
    assert!(replay.expect("a replay").is_replay());
    assert_eq!(shop.ledger.outbox().pending().await.expect("a count"), 6);
    let events = shop.drain().await;
    assert_eq!(shop.ledger.outbox().pending().await.expect("a count"), 0);
    let places: Vec<_> = events.iter().map(|event| event.outbox_id).collect();
    assert!(places.is_sorted_by(|one, next| one < next), "{places:?}");
    let ids: Vec<_> = events.iter().map(|event| event.id.into_bytes()).collect();
    for (attempt, ids) in [&ids[..3], &ids[3..]].into_iter().enumerate() {
        for (ordinal, id) in ids.iter().enumerate() {
            assert_eq!(id[..14], ids[0][..14], "one attempt, {attempt}");
            assert_eq!(usize::from(u16::from_be_bytes([id[14], id[15]])), ordinal);
        }
    }
    assert_ne!(ids[0][..14], ids[3][..14], "another attempt");
    for (n, event) in events.iter().enumerate() {
        assert_eq!(
            (event.topic.as_str(), event.name.as_str()),
            ("orders", "order.placed.v1")
        );
        let item = format!("item {}", n % 3);
        assert_eq!(event.data, format!("{{\"item\":\"{item}\"}}").as_bytes());
        assert_eq!(event.partition_key, Some(item));
    }
}

async fn what_an_event_carries_comes_back_as_it_was<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let awkward = "'; drop table orders; -- \\ \" ? $1 % ä 🦀 \n";
    for literals in [false, true] {
        let ledger = Ledger::builder(shop.db.pool().clone())
            .payload_literals(literals)
            .trace_context(move || Some(awkward.replace(|c: char| !c.is_ascii(), "")))
            .build()
            .expect("a ledger");
        let emission = Emit::new(())
            .event(OrderPlaced::of(awkward))
            .header("tenant", awkward)
            .header(awkward, "")
            .event(OrderPlaced::of(""));
        let key = format!("literals {literals}");
        emit(&ledger, &key, emission).await.expect("an answer");
        let events = shop.drain().await;
        let headers: Vec<_> = events[0].headers.iter().collect();
        let (tenant, awkward) = ("tenant".to_owned(), awkward.to_owned());
        assert_eq!(headers, [(&awkward, &String::new()), (&tenant, &awkward)]);
        assert_eq!(events[0].partition_key.as_ref(), Some(&awkward));
        let data: serde_json::Value = serde_json::from_slice(&events[0].data).expect("JSON");
        assert_eq!(data["item"], awkward);
        assert!(events[1].headers.is_empty());
        assert_eq!(events[1].partition_key.as_deref(), Some(""));
    }
    assert_eq!(shop.orders().await, 2);
}

async fn the_trace_context_of_the_call_is_stored_with_its_events<DB: ShopDb>(db: TestDb<DB>) {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let shop = Shop::open(db).await;
    shop.order("without").await.expect("an answer");
    let ledger = Ledger::builder(shop.db.pool().clone())
        .trace_context(|| Some(TRACE.to_owned()))
        .build()
        .expect("a ledger");
    let answer = emit(&ledger, "with", Emit::new(()).events(items(2))).await;
    answer.expect("an answer");
    let events = shop.drain().await;
    let traces: Vec<_> = events
        .iter()
        .map(|event| event.traceparent.as_deref())
        .collect();
    assert_eq!(traces, [None, Some(TRACE), Some(TRACE)]);
}

async fn events_with_one_key_share_a_partition<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for key in ["a", "b", "c"] {
        let answer = emit(&shop.ledger, key, Emit::new(()).events(items(100))).await;
        answer.expect("an answer");
    }
    let partitions = "select count(distinct partition_no) from effectively_outbox";
    let of_a_key = "select max(n) from \
        (select count(distinct partition_no) as n from effectively_outbox group by partition_key) as p";
    assert_eq!(shop.db.number(of_a_key).await, 1);
    let spread = shop.db.number(partitions).await;
    assert!(spread > 30, "100 keys in {spread} of 64 partitions");
}

async fn a_call_without_events_leaves_none<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    emit(&shop.ledger, "a", Emit::new(()))
        .await
        .expect("an answer");
    let none = Emit::new(()).events(items(0));
    emit(&shop.ledger, "b", none).await.expect("an answer");
    assert_eq!(shop.stored().await, (2, 0, 2));
}

async fn ten_thousand_events_are_stored_in_their_order<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for literals in [false, true] {
        let ledger = Ledger::builder(shop.db.pool().clone())
            .payload_literals(literals)
            .build()
            .expect("a ledger");
        let key = format!("literals {literals}");
        let answer = emit(&ledger, &key, Emit::new(()).events(items(10_000))).await;
        answer.expect("an answer");
        let stored = shop
            .db
            .texts("select partition_key from effectively_outbox order by id")
            .await;
        assert!(stored.into_iter().eq(items(10_000).map(|event| event.item)));
        let ids = "select count(distinct event_id) from effectively_outbox";
        assert_eq!(shop.db.number(ids).await, 10_000);
        shop.db.execute("delete from effectively_outbox").await;
    }
    shop.assert_healthy().await;
}

async fn more_events_than_ids_are_an_error_and_leave_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let over = emit(
        &shop.ledger,
        "a",
        Emit::new(()).events(items((1 << 16) + 1)),
    )
    .await;
    assert_eq!(
        kind(&over),
        Some(ErrorKind::TooManyEvents { limit: 1 << 16 })
    );
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.assert_free("a").await;
}

async fn a_partition_key_that_not_every_database_can_store_is_an_error<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let emission = Emit::new(()).event(OrderPlaced::of("nul \0 inside"));
    let answer = emit(&shop.ledger, "a", emission).await;
    assert!(
        matches!(kind(&answer), Some(ErrorKind::Encode(_))),
        "{answer:?}"
    );
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.assert_free("a").await;
    shop.assert_healthy().await;
}

async fn a_delayed_event_waits_for_its_time<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let hour = Duration::from_secs(3600);
    let emission = Emit::new(())
        .event_after(hour, OrderPlaced::of("later"))
        .event(OrderPlaced::of("now"));
    emit(&shop.ledger, "a", emission).await.expect("an answer");
    assert_eq!(shop.drain().await.len(), 1);
    assert_eq!(shop.drain().await.len(), 0);
    assert_eq!(shop.ledger.outbox().pending().await.expect("a count"), 1);
    shop.db
        .execute(&format!(
            "update effectively_outbox set available_at = {}",
            in_the_past::<DB>()
        ))
        .await;
    let later = shop.drain().await;
    assert_eq!(later[0].partition_key.as_deref(), Some("later"));
}

async fn an_event_that_is_not_taken_stays_with_all_after_it<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = emit(&shop.ledger, "a", Emit::new(()).events(items(5))).await;
    answer.expect("an answer");
    let ledger = Ledger::new(shop.db.pool_with(1, None));
    let (outbox, mut offered) = (ledger.outbox(), Vec::new());
    let stopped = outbox
        .drain(async |event| {
            offered.push(event.clone());
            if offered.len() == 3 {
                return Err("the broker is down");
            }
            // No connection is held meanwhile: the only one can be had.
            drop(ledger.pool().acquire().await.expect("the connection"));
            Ok(())
        })
        .await;
    assert!(matches!(
        stopped,
        Err(Drained::Publish("the broker is down"))
    ));
    assert_eq!(outbox.pending().await.expect("a count"), 3);
    let again = shop.drain().await;
    assert_eq!(again[0], offered[2], "the same id and the same content");
    let rest: Vec<_> = again
        .iter()
        .filter_map(|event| event.partition_key.clone())
        .collect();
    assert_eq!(rest, ["item 2", "item 3", "item 4"]);
}
