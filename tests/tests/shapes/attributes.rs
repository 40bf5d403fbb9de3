//! Where the attributes stand, by which path, and beside which others.

use effectively::{Emit, Failure, Ledger, Outcome, idempotent, outbox};
use sqlx::{Sqlite, SqliteConnection};

use crate::shop::{AppError, Place, Placed, Receipt, Shop, insert, send, twice};

type Answer<T> = Result<T, AppError>;

#[idempotent(key = "{cmd.id}", scope = "attributes.idempotent_first")]
#[outbox]
async fn idempotent_first(tx: &mut SqliteConnection, cmd: Place) -> Answer<Emit<Receipt>> {
    insert(tx, cmd.id).await?;
    Ok(Emit::new(Receipt { id: cmd.id }).event(Placed { id: cmd.id }))
}

#[outbox]
#[idempotent(key = "{cmd.id}")]
async fn outbox_first(tx: &mut SqliteConnection, cmd: Place) -> Answer<Emit<Receipt>> {
    insert(tx, cmd.id).await?;
    Ok(Emit::new(Receipt { id: cmd.id }).event(Placed { id: cmd.id }))
}

#[idempotent(key = "{cmd.id}")]
async fn idempotent_alone(tx: &mut SqliteConnection, cmd: Place) -> Answer<Receipt> {
    insert(tx, cmd.id).await?;
    Ok(Receipt { id: cmd.id })
}

#[outbox]
async fn outbox_alone(tx: &mut SqliteConnection, cmd: Place) -> Answer<Emit<std::ops::Range<i64>>> {
    insert(tx, cmd.id).await?;
    Ok(Emit::new(0..cmd.id).event(Placed { id: cmd.id }))
}

#[outbox]
async fn events_alone(tx: &mut SqliteConnection) -> Answer<[Placed; 2]> {
    insert(tx, 1).await?;
    Ok([Placed { id: 1 }, Placed { id: 2 }])
}

#[effectively::idempotent(key = "{cmd.id}")]
#[tracing::instrument(skip_all, fields(id = cmd.id))]
#[::effectively::outbox]
async fn qualified(tx: &mut SqliteConnection, cmd: Place) -> Answer<Option<Placed>> {
    insert(tx, cmd.id).await?;
    Ok(Some(Placed { id: cmd.id }))
}

#[tracing::instrument(skip_all)]
#[idempotent(key = "{cmd.id}")]
#[cfg_attr(all(), outbox)]
async fn conditional(tx: &mut SqliteConnection, cmd: Place) -> Answer<Vec<Placed>> {
    insert(tx, cmd.id).await?;
    Ok(vec![Placed { id: cmd.id }])
}

mod renamed {
    pub use effectively as toolkit;
    use effectively::outbox as send_events;

    use super::*;

    // Outermost, a renamed attribute does its work; the other one is seen by its own name.
    #[send_events(crate = toolkit)]
    #[idempotent(key = "{id}")]
    pub async fn handler(tx: &mut SqliteConnection, id: i64) -> Answer<Vec<Placed>> {
        insert(tx, id).await?;
        Ok(vec![Placed { id }])
    }
}

#[idempotent(key = "{cmd.id}")]
#[tracing::instrument(skip(tx), fields(id = cmd.id), err, ret)]
async fn traced_below(tx: &mut SqliteConnection, cmd: Place) -> Answer<Receipt> {
    insert(tx, cmd.id).await?;
    Ok(Receipt { id: cmd.id })
}

#[outbox]
#[idempotent(key = "{cmd.id}", retries = 1)]
#[tracing::instrument(skip(_tx, cmd))]
async fn traced_without_a_use(_tx: &mut SqliteConnection, cmd: Place) -> Answer<Vec<Placed>> {
    Ok(vec![Placed { id: cmd.id }])
}

#[tracing::instrument(skip(tx), err, ret)]
#[idempotent(key = "{cmd.id}")]
async fn traced_above(tx: &mut SqliteConnection, cmd: Place) -> Answer<Receipt> {
    insert(tx, cmd.id).await?;
    Ok(Receipt { id: cmd.id })
}

struct Traced {
    ledger: Ledger<Sqlite>,
}

impl Traced {
    #[idempotent(key = "{cmd.id}", scope = "attributes.traced_method", from = self.ledger)]
    #[tracing::instrument(level = "debug", skip(self, tx), fields(id = cmd.id), err)]
    async fn method(&self, tx: &mut SqliteConnection, cmd: Place) -> Answer<i64> {
        insert(tx, cmd.id).await?;
        Ok(cmd.id)
    }

    #[outbox(from = self.ledger)]
    #[cfg_attr(all(), tracing::instrument(skip(tx,), err))]
    async fn conditional(&self, tx: &mut SqliteConnection, cmd: Place) -> Answer<Vec<Placed>> {
        insert(tx, cmd.id).await?;
        Ok(vec![Placed { id: cmd.id }])
    }
}

impl std::fmt::Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Traced")
    }
}

#[effectively::handlers(from = self.ledger)]
impl Traced {
    #[tracing::instrument(skip(tx, self), err)]
    #[idempotent(key = "{cmd.id}", transparent)]
    async fn above(&self, tx: &mut SqliteConnection, cmd: Place) -> Answer<i64> {
        insert(tx, cmd.id).await?;
        Ok(cmd.id)
    }
}

macro_rules! handlers {
    ($($name:ident($binding:ident: $ty:ty) by $key:literal;)*) => {$(
        #[idempotent(key = $key)]
        async fn $name(tx: &mut SqliteConnection, $binding: $ty) -> Answer<Receipt> {
            insert(tx, $binding.id).await?;
            Ok(Receipt { id: $binding.id })
        }
    )*};
    ($name:ident for $tx:ty) => {
        #[idempotent(key = "{cmd.id}")]
        async fn $name(tx: $tx, cmd: Place) -> Answer<Receipt> {
            insert(tx, cmd.id).await?;
            Ok(Receipt { id: cmd.id })
        }
    };
}
handlers! {
    by_macro(cmd: Place) by "{cmd.id}";
    by_macro_too(order: Place) by "order:{order.id}";
}
handlers!(by_macro_alone for &mut SqliteConnection);

#[idempotent(key = "{cmd.id}", retries = 1)]
async fn conditional_parameter(
    tx: &mut SqliteConnection,
    #[cfg(any())] gone: NoSuchType,
    #[cfg(not(any()))] extra: i64,
    cmd: Place,
) -> Answer<i64> {
    insert(tx, cmd.id).await?;
    Ok(extra)
}

#[tokio::test]
async fn both_attributes_work_in_either_order_and_alone() {
    let shop = Shop::open().await;
    let ledger = || shop.ledger.clone();
    let seven = || Place::of(7);
    twice(|| send(idempotent_first(ledger(), seven()))).await;
    twice(|| send(outbox_first(ledger(), seven()))).await;
    twice(|| send(idempotent_alone(ledger(), seven()))).await;
    assert_eq!((shop.orders().await, shop.events().await), (3, 2));

    assert_eq!(
        send(outbox_alone(ledger(), seven()))
            .await
            .expect("a range"),
        0..7
    );
    send(events_alone(ledger())).await.expect("two events");
    assert_eq!((shop.orders().await, shop.events().await), (5, 5));
}

#[tokio::test]
async fn paths_conditions_and_macros_do_not_matter() {
    let shop = Shop::open().await;
    let ledger = || shop.ledger.clone();
    twice(|| send(qualified(ledger(), Place::of(1)))).await;
    twice(|| send(conditional(ledger(), Place::of(1)))).await;
    twice(|| send(renamed::handler(ledger(), 1))).await;
    twice(|| send(by_macro(ledger(), Place::of(1)))).await;
    twice(|| send(by_macro_too(ledger(), Place::of(1)))).await;
    twice(|| send(by_macro_alone(ledger(), Place::of(1)))).await;
    assert_eq!(
        twice(|| send(conditional_parameter(ledger(), 9, Place::of(1)))).await,
        (9, 9)
    );
    assert_eq!((shop.orders().await, shop.events().await), (7, 3));
}

#[tokio::test]
async fn a_handler_is_traced_by_an_attribute_that_skips_its_transaction() {
    let shop = Shop::open().await;
    let ledger = || shop.ledger.clone();
    twice(|| send(traced_below(ledger(), Place::of(1)))).await;
    twice(|| send(traced_above(ledger(), Place::of(2)))).await;
    twice(|| send(traced_without_a_use(ledger(), Place::of(3)))).await;
    let traced = Traced { ledger: ledger() };
    twice(|| send(traced.method(Place::of(4)))).await;
    for _ in 0..2 {
        assert_eq!(send(traced.above(Place::of(5))).await.expect("a number"), 5);
    }
    let unkeyed = send(traced.conditional(Place::of(6))).await;
    unkeyed.expect("an event");
    assert_eq!((shop.orders().await, shop.events().await), (5, 2));
}

#[tokio::test]
async fn a_crate_that_forbids_every_lint_has_handlers() {
    let shop = Shop::open().await;
    crate::strict::call_all(&shop).await;
    assert_eq!((shop.orders().await, shop.events().await), (6, 3));
}

#[test]
fn the_types_are_the_documented_ones() {
    fn is<R, F: Future<Output = R>>(_: impl Fn(Ledger<Sqlite>, Place) -> F) {}
    is::<Result<Outcome<Receipt>, Failure<AppError>>, _>(idempotent_first);
    is::<Result<Outcome<()>, Failure<AppError>>, _>(conditional);
    is::<Result<std::ops::Range<i64>, Failure<AppError>>, _>(outbox_alone);
}
