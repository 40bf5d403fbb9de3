//! `outside_calls = "…"`: a handler may have a client of another service, and then it is up to the handler what happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use effectively::{Emit, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, replay, send};

/// Named as a client that the attribute knows.
mod reqwest {
    use super::{Arc, AtomicUsize};

    #[derive(Clone, Default)]
    pub struct Client(pub Arc<AtomicUsize>);
}

#[idempotent(key = "{item}", outside_calls = "reads a price, a repeat is harmless")]
async fn price<C: Orders>(
    tx: &mut C,
    item: &str,
    client: &reqwest::Client,
) -> Result<usize, ShopError> {
    tx.insert(item).await?;
    Ok(client.0.fetch_add(1, Ordering::SeqCst))
}

#[outbox(outside_calls = "reads a price, a repeat is harmless")]
async fn announce<C: Orders>(
    tx: &mut C,
    client: reqwest::Client,
) -> Result<Emit<usize>, ShopError> {
    tx.insert("a").await?;
    Ok(Emit::new(client.0.fetch_add(1, Ordering::SeqCst)).event(Placed::of("a")))
}

on_every_database!(a_handler_that_states_a_reason_may_call_outside);

async fn a_handler_that_states_a_reason_may_call_outside<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, client) = (Shop::open(db).await, reqwest::Client::default());
    let call = || send(price::<DB::Connection>(shop.ledger(), "a", &client));
    first(call().await);
    replay(call().await);
    assert_eq!(client.0.load(Ordering::SeqCst), 1, "a replay calls nobody");
    let announced = announce::<DB::Connection>(shop.ledger(), client.clone()).await;
    assert_eq!(announced.expect("a response"), 1);
    assert_eq!(shop.stored().await, (2, 1, 1));
}
