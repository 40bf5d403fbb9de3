//! `shared_by_all`: a key made only of the caller's header is one call for everybody; with an owner, it is each owner's.

use effectively::{IdempotencyKey, idempotent};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Shop, ShopDb, ShopError, first, replay, send};

#[idempotent(key = "{idempotency_key}", shared_by_all)]
async fn shared<C: Orders>(
    tx: &mut C,
    user: &str,
    idempotency_key: IdempotencyKey,
) -> Result<String, ShopError> {
    tx.insert(user).await?;
    assert!(!IdempotencyKey::expose(&idempotency_key).is_empty());
    Ok(user.to_owned())
}

#[idempotent(key = "{user}/{idempotency_key}")]
async fn owned<C: Orders>(
    tx: &mut C,
    user: &str,
    idempotency_key: IdempotencyKey,
) -> Result<String, ShopError> {
    tx.insert(user).await?;
    assert!(!IdempotencyKey::expose(&idempotency_key).is_empty());
    Ok(user.to_owned())
}

fn header(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).expect("a key")
}

on_every_database!(
    a_shared_key_is_one_call_for_all_users,
    an_owned_key_is_a_call_of_its_owner,
);

async fn a_shared_key_is_one_call_for_all_users<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let call = |user, key| send(shared::<DB::Connection>(shop.ledger(), user, header(key)));
    first(call("ann", "k").await);
    let bob = replay(call("bob", "k").await);
    assert_eq!(bob.into_result().expect("a response"), "ann");
    first(call("bob", "l").await);
    assert_eq!(shop.stored().await, (2, 0, 2));
}

async fn an_owned_key_is_a_call_of_its_owner<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let call = |user, key| send(owned::<DB::Connection>(shop.ledger(), user, header(key)));
    first(call("ann", "k").await);
    let bob = first(call("bob", "k").await);
    assert_eq!(bob.into_result().expect("a response"), "bob");
    // No separator, and no choice of a header, makes one owner's key another's.
    first(call("bob/k", "l").await);
    first(call("bob", "k/l").await);
    replay(call("ann", "k").await);
    assert_eq!(shop.stored().await, (4, 0, 4));
}
