//! Events and answers of any size are stored, or are an error that says so before anything is sent.

use std::borrow::Cow;

use effectively::{Emit, ErrorKind, Event, Failure, Ledger, Outcome, Relay, sink::Memory};
use effectively_tests::{TestDb, eventually, on_every_database};
use serde::Serialize;

use crate::shop::{SOON, Shop, ShopDb, ShopError, insert, kind, shop_key};

on_every_database!(
    more_bytes_of_events_than_one_message_takes_are_stored,
    a_partition_key_of_any_length_is_stored_or_a_lasting_error,
);
on_every_database!([mysql]
    an_event_that_can_never_fit_is_a_lasting_error,
    an_event_that_just_fits_is_published,
    an_answer_that_can_never_fit_is_a_lasting_error,
    an_answer_that_just_fits_is_replayed,
);

#[derive(Serialize)]
struct Note {
    #[serde(skip)]
    key: String,
    fill: String,
}

impl Note {
    fn of(bytes: usize) -> Self {
        Self {
            key: "a".into(),
            fill: "x".repeat(bytes),
        }
    }
}

impl Event for Note {
    const TOPIC: &'static str = "notes";
    const NAME: &'static str = "note.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

async fn emit<DB: ShopDb>(
    ledger: &Ledger<DB>,
    key: &str,
    notes: Vec<Note>,
) -> Result<Outcome<String>, Failure<ShopError>> {
    ledger
        .call(shop_key(key))
        .run_with_events(async |tx: &mut DB::Connection| {
            insert::<DB>(tx, key).await?;
            Ok(Emit::new("done".to_owned()).events(notes))
        })
        .await
}

/// What the server takes in one message; 16 MiB where it takes much more.
async fn packet<DB: ShopDb>(db: &TestDb<DB>) -> usize {
    match DB::NAME {
        "MySQL" => {
            db.number("select cast(@@max_allowed_packet as signed)")
                .await
        }
        _ => 16 << 20,
    }
    .try_into()
    .expect("a size")
}

/// The error is the caller's last word, and the key and the table are as before.
async fn is_lasting<DB: ShopDb, T>(
    shop: &Shop<DB>,
    key: &str,
    answer: Result<T, Failure<ShopError>>,
) -> ErrorKind {
    let Err(Failure::Toolkit(error)) = answer else {
        panic!("no error of the toolkit");
    };
    assert!(!error.is_retryable(), "{error:?}");
    assert_eq!(shop.stored().await, (0, 0, 0));
    emit(&shop.ledger, key, vec![Note::of(1)])
        .await
        .expect("the key is free");
    error.kind().clone()
}

async fn more_bytes_of_events_than_one_message_takes_are_stored<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let packet = packet(&shop.db).await;
    let each = 100_000;
    let count = packet * 3 / 2 / each;
    let literals = Ledger::builder(shop.db.pool().clone()).payload_literals(true);
    let literals = literals.build().expect("a ledger");
    for (key, ledger) in [("bound", &shop.ledger), ("literals", &literals)] {
        let notes = (0..count).map(|_| Note::of(each)).collect();
        emit(ledger, key, notes).await.expect("an answer");
    }
    assert_eq!(shop.stored().await, (2, 2 * count as i64, 2));
}

async fn a_partition_key_of_any_length_is_stored_or_a_lasting_error<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let mut note = Note::of(1);
    note.key = "k".repeat(70_000);
    let answer = emit(&shop.ledger, "a", vec![note]).await;
    if DB::NAME == "MySQL" {
        let (bytes, limit) = (70_000, 65_535);
        let expected = ErrorKind::EventTooLarge { bytes, limit };
        assert_eq!(is_lasting(&shop, "a", answer).await, expected);
    } else {
        answer.expect("an answer");
        assert_eq!(shop.stored().await, (1, 1, 1));
    }
}

async fn an_event_that_can_never_fit_is_a_lasting_error<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let packet = packet(&shop.db).await;
    for literals in [false, true] {
        let ledger = Ledger::builder(shop.db.pool().clone()).payload_literals(literals);
        shop.ledger = ledger.build().expect("a ledger");
        let answer = emit(&shop.ledger, "a", vec![Note::of(1), Note::of(packet)]).await;
        let refused = is_lasting(&shop, "a", answer).await;
        assert!(
            matches!(refused, ErrorKind::EventTooLarge { limit, .. } if limit < packet),
            "{refused:?}"
        );
        shop.db.execute("delete from orders; delete from effectively_claims; delete from effectively_outbox").await;
    }
}

/// Written, and read again with all that its row holds beside it.
async fn an_event_that_just_fits_is_published<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let packet = packet(&shop.db).await;
    let Some(ErrorKind::EventTooLarge { bytes, limit }) =
        kind(&emit(&shop.ledger, "a", vec![Note::of(packet)]).await)
    else {
        panic!("it fits");
    };
    let largest = packet - (bytes - limit);
    let notes = vec![Note::of(largest), Note::of(1)];
    emit(&shop.ledger, "a", notes).await.expect("an answer");
    let sink = Memory::new();
    let relay = Relay::builder(shop.ledger.clone()).route("notes", sink.clone());
    let relay = relay.build().expect("a relay");
    let published = eventually(SOON, async || shop.events().await == 0);
    relay.run(published).await.expect("a relay that ends");
    assert!(sink.published()[0].data.len() > largest);
}

async fn an_answer_that_can_never_fit_is_a_lasting_error<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let packet = packet(&shop.db).await;
    let ledger = Ledger::builder(shop.db.pool().clone()).max_outcome_bytes(usize::MAX);
    shop.ledger = ledger.build().expect("a ledger");
    let large = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        Ok::<_, ShopError>("x".repeat(packet))
    };
    let answer = shop.ledger.run(shop_key("a"), large).await;
    let refused = is_lasting(&shop, "a", answer).await;
    assert!(
        matches!(refused, ErrorKind::OutcomeTooLarge { limit, .. } if limit < packet),
        "{refused:?}"
    );
}

async fn an_answer_that_just_fits_is_replayed<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let packet = packet(&shop.db).await;
    for literals in [false, true] {
        let ledger = Ledger::builder(shop.db.pool().clone()).payload_literals(literals);
        shop.ledger = ledger
            .max_outcome_bytes(usize::MAX)
            .build()
            .expect("a ledger");
        let large = async |_: &mut DB::Connection| Ok::<_, ShopError>("x".repeat(packet - 5_000));
        for expected in [false, true] {
            let key = shop_key(&literals.to_string());
            let answer = shop.ledger.run(key, large).await.expect("an answer");
            assert_eq!(answer.is_replay(), expected);
        }
    }
}
