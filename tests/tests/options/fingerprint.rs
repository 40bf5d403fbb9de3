//! `fingerprint(…)`: what must be the same when the key comes again. What is not named may differ.

use std::collections::{HashMap, HashSet};

use effectively::{ErrorKind, Failure, Outcome, idempotent};
use effectively_tests::{TestDb, on_every_database};
use serde::Serialize;

use crate::shop::{Orders, Shop, ShopDb, ShopError, Stop, first, kind, replay, send};

#[derive(Clone, Serialize)]
struct Cart {
    items: Vec<String>,
    tags: HashSet<String>,
    prices: HashMap<String, u64>,
}

#[derive(Clone)]
struct Customer {
    name: String,
    age: u8,
}

#[idempotent(
    key = "{id}",
    fingerprint(cart, customer.name, amount, note),
    wait = "20s"
)]
async fn buy<C: Orders>(
    tx: &mut C,
    id: i64,
    cart: Cart,
    customer: Customer,
    amount: u128,
    note: Option<String>,
    stop: Stop,
) -> Result<usize, ShopError> {
    tx.insert(&customer.name).await?;
    stop.here().await;
    let _ = (id, cart, customer.age, amount, note);
    Ok(stop.runs())
}

/// The arguments of a call.
#[derive(Clone)]
struct Call {
    cart: Cart,
    customer: Customer,
    amount: u128,
    note: Option<String>,
}

fn call() -> Call {
    Call {
        cart: Cart {
            items: vec!["book".into(), "pen".into()],
            // In another order each time.
            tags: (0..20).map(|n| format!("tag {n}")).collect(),
            prices: (0..20).map(|n| (n.to_string(), n)).collect(),
        },
        customer: Customer {
            name: "ann".into(),
            age: 40,
        },
        amount: 1 << 100,
        note: None,
    }
}

/// The calls that differ in one thing that the fingerprint names.
fn others() -> Vec<Call> {
    let mut others = vec![call(); 7];
    others[0].cart.items.reverse();
    let _ = others[1].cart.prices.insert("7".into(), 8);
    others[2].customer.name = "bob".into();
    others[3].amount += 1;
    others[4].note = Some(String::new());
    others[5].cart.items[0].push(' ');
    let _ = others[6].cart.tags.insert("other".into());
    others
}

async fn bought<DB: ShopDb>(
    shop: &Shop<DB>,
    stop: &Stop,
    call: Call,
) -> Result<Outcome<usize>, Failure<ShopError>> {
    let Call {
        cart,
        customer,
        amount,
        note,
    } = call;
    let ledger = shop.ledger();
    send(buy::<DB::Connection>(
        ledger,
        1,
        cart,
        customer,
        amount,
        note,
        stop.clone(),
    ))
    .await
}

on_every_database!(
    the_same_content_is_replayed_whatever_the_rest_is,
    any_other_content_is_refused_and_changes_nothing,
    other_content_is_refused_at_once_while_the_first_is_in_its_body,
);

async fn the_same_content_is_replayed_whatever_the_rest_is<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::open());
    let answer = first(bought(&shop, &stop, call()).await);
    let mut older = call();
    older.customer.age = 41;
    assert_eq!(
        replay(bought(&shop, &stop, older).await).recorded(),
        answer.recorded()
    );
    assert_eq!((stop.runs(), shop.orders().await), (1, 1));
}

async fn any_other_content_is_refused_and_changes_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, stop) = (Shop::open(db).await, Stop::open());
    let answer = first(bought(&shop, &stop, call()).await);
    for (n, other) in others().into_iter().enumerate() {
        let refused = bought(&shop, &stop, other).await;
        assert_eq!(kind(&refused), Some(ErrorKind::Mismatch), "change {n}");
        let again = replay(bought(&shop, &stop, call()).await);
        assert_eq!(again.recorded(), answer.recorded());
    }
    assert_eq!(stop.runs(), 1);
    assert_eq!(shop.stored().await, (1, 0, 1));
}

async fn other_content_is_refused_at_once_while_the_first_is_in_its_body<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let (shop, stop) = (Shop::open(db).await, Stop::closed());
    let (answer, ()) = tokio::join!(bought(&shop, &stop, call()), async {
        stop.entered().await;
        // The first goes on only after this: whoever waited for it would wait for ever.
        for other in others() {
            let refused = bought(&shop, &stop, other).await;
            assert_eq!(kind(&refused), Some(ErrorKind::Mismatch));
        }
        stop.let_go();
    });
    first(answer);
    assert_eq!((stop.runs(), shop.orders().await), (1, 1));
}
