//! Runs a body that misbehaves in every form that the end of a call has, and looks at what it left behind.

use std::mem::discriminant;

use effectively::{Emit, ErrorKind, Failure, Ledger};
use effectively_tests::TestDb;

use crate::shop::{OrderPlaced, Shop, ShopDb, ShopError, kind, shop_key};

/// What a call with such a body must leave.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    answer: Answer,
    orders: i64,
    key: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Success,
    BodysError,
    TransactionLost,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Free,
    Interrupted,
    Complete,
}

impl Left {
    /// The transaction is lost, and so many orders are there all the same.
    pub fn lost(orders: i64) -> Self {
        Self::of(Answer::TransactionLost, orders)
    }

    /// The body's own error.
    pub fn erred(orders: i64) -> Self {
        Self::of(Answer::BodysError, orders)
    }

    /// The database refused to commit.
    pub fn failed(orders: i64) -> Self {
        Self::of(Answer::Failed, orders)
    }

    /// A success: the transaction was still ours.
    pub fn complete(orders: i64) -> Self {
        Self {
            key: State::Complete,
            ..Self::of(Answer::Success, orders)
        }
    }

    pub fn free(self) -> Self {
        Self {
            key: State::Free,
            ..self
        }
    }

    pub fn interrupted(self) -> Self {
        Self {
            key: State::Interrupted,
            ..self
        }
    }

    fn of(answer: Answer, orders: i64) -> Self {
        Self {
            answer,
            orders,
            key: State::Free,
        }
    }
}

/// How outcome and events travel at the end of the call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Bound, in a statement before the message that commits.
    Bound,
    /// There are none: the fence is in the message that commits.
    PayloadFree,
    /// As text in the message that commits.
    Literals,
}

/// Runs the body once in each form.
pub async fn after<DB: ShopDb>(
    db: TestDb<DB>,
    body: impl AsyncFn(&mut DB::Connection) -> Result<(), ShopError>,
    left: Left,
) {
    let mut shop = Shop::open(db).await;
    for end in [End::Bound, End::PayloadFree, End::Literals] {
        shop.ledger = Ledger::builder(shop.db.pool().clone())
            .payload_literals(end == End::Literals)
            .build()
            .expect("a ledger");
        run(&shop, end, &body, left).await;
        for table in ["orders", "effectively_claims", "effectively_outbox"] {
            shop.db.execute(&format!("delete from {table}")).await;
        }
    }
}

async fn run<DB: ShopDb>(
    shop: &Shop<DB>,
    end: End,
    body: &impl AsyncFn(&mut DB::Connection) -> Result<(), ShopError>,
    left: Left,
) {
    let call = shop.ledger.call(shop_key("a"));
    let answer = match end {
        End::PayloadFree => call.run(body).await.map(drop),
        End::Bound | End::Literals => call
            .run_with_events(async |tx: &mut DB::Connection| {
                body(tx).await?;
                Ok(Emit::new("answer".to_owned()).event(OrderPlaced::of("a")))
            })
            .await
            .map(drop),
    };
    let expected = match left.answer {
        Answer::Success => Ok(()),
        Answer::BodysError => Err(Failure::Handler(ShopError::GaveUp)),
        Answer::Failed => Err(Failure::Toolkit(ErrorKind::Database.into())),
        Answer::TransactionLost => Err(Failure::Toolkit(ErrorKind::TransactionLost.into())),
    };
    assert!(same(&answer, &expected), "{answer:?} is not {expected:?}");
    let events = i64::from(left.answer == Answer::Success && end != End::PayloadFree);
    let claims = i64::from(left.key != State::Free);
    assert_eq!(shop.stored().await, (left.orders, events, claims));
    match left.key {
        State::Free => shop.assert_free("a").await,
        State::Interrupted => shop.assert_interrupted("a").await,
        State::Complete => {}
    }
    shop.assert_healthy().await;
}

fn same(one: &Result<(), Failure<ShopError>>, other: &Result<(), Failure<ShopError>>) -> bool {
    let shape =
        |answer: &Result<(), Failure<ShopError>>| answer.as_ref().map(drop).map_err(discriminant);
    shape(one) == shape(other) && kind(one) == kind(other)
}
