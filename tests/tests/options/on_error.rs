//! `on_error = "record"`: a final refusal is the answer of its key, and nothing that the body wrote before it stays.

use effectively::{Emit, ErrorKind, Failure, Outcome, Recorded, Refusal, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, kind, replay, send};

/// How a body ends after it has written an order.
#[derive(Debug, Clone, Copy)]
enum After {
    Success,
    SoldOut,
    WarehouseDown,
    PassesAnErrorOn,
    SwallowsAnErrorAndIsSoldOut,
    RollsBackAndIsSoldOut,
}

#[idempotent(key = "{item}", on_error = "record")]
#[outbox]
async fn place<C: Orders>(tx: &mut C, item: &str, after: After) -> Result<Emit<String>, ShopError> {
    tx.insert(item).await?;
    match after {
        After::Success => {}
        After::SoldOut => return Err(ShopError::SoldOut),
        After::WarehouseDown => return Err(ShopError::WarehouseDown),
        After::PassesAnErrorOn => drop(tx.run(NO_SUCH_TABLE).await?),
        After::SwallowsAnErrorAndIsSoldOut => {
            assert!(tx.run(NO_SUCH_TABLE).await.is_err());
            return Err(ShopError::SoldOut);
        }
        After::RollsBackAndIsSoldOut => {
            tx.run("rollback").await?;
            return Err(ShopError::SoldOut);
        }
    }
    Ok(Emit::new(format!("{item} is placed")).event(Placed::of(item)))
}

const NO_SUCH_TABLE: &str = "insert into nowhere values (1)";

async fn placed<DB: ShopDb>(
    shop: &Shop<DB>,
    after: After,
) -> Result<Outcome<String>, Failure<ShopError>> {
    send(place::<DB::Connection>(shop.ledger(), "a", after)).await
}

on_every_database!(
    a_final_refusal_is_recorded_and_replayed_without_the_bodys_writes,
    a_refusal_is_recorded_after_an_error_that_the_body_swallowed,
    an_error_that_is_not_final_frees_the_key,
    an_error_of_the_database_frees_the_key,
    a_success_is_stored_with_its_events,
    a_refusal_after_a_rollback_of_the_body_is_not_recorded,
    a_refusal_over_the_limit_is_an_error_and_frees_the_key,
);

async fn a_final_refusal_is_recorded_and_replayed_without_the_bodys_writes<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    refuses(&shop, After::SoldOut).await;
}

/// Postgres has aborted the transaction then: the savepoint brings it back.
async fn a_refusal_is_recorded_after_an_error_that_the_body_swallowed<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    refuses(&shop, After::SwallowsAnErrorAndIsSoldOut).await;
}

async fn refuses<DB: ShopDb>(shop: &Shop<DB>, after: After) {
    let refused = first(placed(shop, after).await);
    assert_eq!(shop.stored().await, (0, 0, 1));
    // Whatever the body would do now: here and elsewhere the key has its answer.
    let here = replay(placed(shop, After::Success).await);
    let there = place::<DB::Connection>(shop.elsewhere(), "a", After::Success).await;
    for again in [here, replay(there)] {
        assert_eq!(again.recorded(), refused.recorded());
        let Err(Failure::Handler(refused)) = again.into_result() else {
            panic!("a refusal is no response");
        };
        assert_eq!(refused.recorded().status(), Some(409));
        assert_eq!(refused.recorded().body(), b"\"sold out\"");
        assert!(matches!(refused.into_error(), Ok(ShopError::SoldOut)));
    }
    assert_eq!(shop.stored().await, (0, 0, 1));
}

async fn an_error_that_is_not_final_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for _ in 0..2 {
        let erred = placed(&shop, After::WarehouseDown).await;
        assert!(matches!(
            erred,
            Err(Failure::Handler(ShopError::WarehouseDown))
        ));
        assert_eq!(shop.stored().await, (0, 0, 0));
    }
    first(placed(&shop, After::Success).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn an_error_of_the_database_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let erred = placed(&shop, After::PassesAnErrorOn).await;
    assert!(matches!(erred, Err(Failure::Handler(ShopError::Sql(_)))));
    assert_eq!(shop.stored().await, (0, 0, 0));
    first(placed(&shop, After::SoldOut).await);
}

async fn a_success_is_stored_with_its_events<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = first(placed(&shop, After::Success).await);
    let again = replay(placed(&shop, After::SoldOut).await);
    assert_eq!(again.recorded(), answer.recorded());
    assert_eq!(again.into_result().expect("a response"), "a is placed");
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_refusal_after_a_rollback_of_the_body_is_not_recorded<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let lost = placed(&shop, After::RollsBackAndIsSoldOut).await;
    assert_eq!(kind(&lost), Some(ErrorKind::TransactionLost));
    assert_eq!(shop.stored().await.0, 0);
    let next = placed(&shop, After::Success).await;
    if DB::NAME == "MySQL" {
        first(next);
    } else {
        assert_eq!(kind(&next), Some(ErrorKind::Interrupted));
    }
}

/// A refusal that does not fit.
#[derive(Debug)]
struct TooMuch;

impl Refusal for TooMuch {
    fn refusal(&self) -> Option<Recorded> {
        Some(Recorded::refusal(vec![b'x'; 300_000]))
    }
}

#[idempotent(key = "{item}", on_error = "record")]
async fn refuse_at_length<C: Orders>(tx: &mut C, item: &str, refuses: bool) -> Result<(), TooMuch> {
    tx.insert(item).await.expect("an order");
    if refuses { Err(TooMuch) } else { Ok(()) }
}

async fn a_refusal_over_the_limit_is_an_error_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let answer = refuse_at_length::<DB::Connection>(shop.ledger(), "a", true).await;
    assert!(matches!(
        kind(&answer),
        Some(ErrorKind::OutcomeTooLarge { limit: 262_144, .. })
    ));
    assert_eq!(shop.stored().await, (0, 0, 0));
    first(refuse_at_length::<DB::Connection>(shop.ledger(), "a", false).await);
}
