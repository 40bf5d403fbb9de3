//! `transparent`: the function returns what it says, and its error type carries the toolkit's.

use effectively::{Emit, Error, ErrorKind, Recorded, Refusal, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, Stop};

#[idempotent(key = "{item}", fingerprint(amount), on_error = "record", transparent)]
#[outbox]
async fn place<C: Orders>(
    tx: &mut C,
    item: &str,
    amount: i64,
    runs: &Stop,
) -> Result<Emit<String>, ShopError> {
    runs.here().await;
    tx.insert(item).await?;
    match amount {
        0 => Err(ShopError::SoldOut),
        1 => Err(ShopError::WarehouseDown),
        _ => Ok(Emit::new(format!("{amount} {item}")).event(Placed::of(item))),
    }
}

#[outbox(transparent)]
async fn announce<C: Orders>(tx: &mut C, then: Option<&str>) -> Result<Vec<Placed>, ShopError> {
    tx.insert("a").await?;
    if let Some(sql) = then {
        tx.run(sql).await?;
    }
    Ok(vec![Placed::of("a")])
}

on_every_database!(
    the_first_answer_and_a_replay_are_plain_values,
    a_recorded_refusal_comes_back_as_the_error_that_it_was,
    the_toolkits_errors_come_in_the_error_type_of_the_handler,
    a_refusal_that_the_type_cannot_read_back_is_a_decode_error,
    without_a_key_the_response_is_plain_too,
);

async fn the_first_answer_and_a_replay_are_plain_values<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, runs) = (Shop::open(db).await, Stop::open());
    for ledger in [shop.ledger(), shop.ledger(), shop.elsewhere()] {
        let answer: Result<String, ShopError> =
            place::<DB::Connection>(ledger, "a", 7, &runs).await;
        assert_eq!(answer.expect("a response"), "7 a");
    }
    assert_eq!(runs.runs(), 1);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_recorded_refusal_comes_back_as_the_error_that_it_was<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, runs) = (Shop::open(db).await, Stop::open());
    for ledger in [shop.ledger(), shop.ledger(), shop.elsewhere()] {
        let answer = place::<DB::Connection>(ledger, "a", 0, &runs).await;
        assert!(matches!(answer, Err(ShopError::SoldOut)));
    }
    assert_eq!(runs.runs(), 1);
    assert_eq!(shop.stored().await, (0, 0, 1));
    for _ in 0..2 {
        let answer = place::<DB::Connection>(shop.ledger(), "b", 1, &runs).await;
        assert!(matches!(answer, Err(ShopError::WarehouseDown)));
    }
    assert_eq!(runs.runs(), 3, "that one is not final");
}

fn toolkit<T>(answer: Result<T, ShopError>) -> Option<ErrorKind> {
    match answer {
        Err(ShopError::Toolkit(error)) => Some(error.kind().clone()),
        _ => None,
    }
}

async fn the_toolkits_errors_come_in_the_error_type_of_the_handler<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, runs) = (Shop::open(db).await, Stop::open());
    let call =
        async |item, amount| place::<DB::Connection>(shop.ledger(), item, amount, &runs).await;
    call("a", 7).await.expect("a response");
    assert_eq!(toolkit(call("a", 8).await), Some(ErrorKind::Mismatch));
    assert!(matches!(
        toolkit(call("", 7).await),
        Some(ErrorKind::KeyInvalid(_))
    ));
    assert_eq!(runs.runs(), 1);
}

/// An error type that knows its final value, and not the way back.
#[derive(Debug)]
enum OneWay {
    Refused,
    Toolkit(ErrorKind),
}

impl Refusal for OneWay {
    fn refusal(&self) -> Option<Recorded> {
        matches!(self, Self::Refused).then(|| Recorded::refusal(Vec::new()))
    }
}

impl From<Error> for OneWay {
    fn from(error: Error) -> Self {
        Self::Toolkit(error.kind().clone())
    }
}

#[idempotent(key = "{item}", on_error = "record", transparent)]
async fn refuse<C: Orders>(tx: &mut C, item: &str) -> Result<(), OneWay> {
    tx.insert(item).await.expect("an order");
    Err(OneWay::Refused)
}

async fn a_refusal_that_the_type_cannot_read_back_is_a_decode_error<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = refuse::<DB::Connection>(shop.ledger(), "a").await;
    assert!(matches!(answer, Err(OneWay::Refused)), "its own error");
    let again = refuse::<DB::Connection>(shop.ledger(), "a").await;
    assert!(matches!(again, Err(OneWay::Toolkit(ErrorKind::Decode))));
    assert_eq!(shop.stored().await, (0, 0, 1));
}

async fn without_a_key_the_response_is_plain_too<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer: Result<(), ShopError> = announce::<DB::Connection>(shop.ledger(), None).await;
    answer.expect("a response");
    assert_eq!(shop.stored().await, (1, 1, 0));
    let lost = announce::<DB::Connection>(shop.ledger(), Some("rollback")).await;
    assert_eq!(toolkit(lost), Some(ErrorKind::TransactionLost));
    let erred = announce::<DB::Connection>(shop.ledger(), Some("no SQL")).await;
    assert!(matches!(erred, Err(ShopError::Sql(_))));
    assert_eq!(shop.stored().await, (1, 1, 0));
}
