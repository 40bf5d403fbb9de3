//! I7: the same key with other content is refused as soon as the first call is visible, and changes nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use effectively::{ErrorKind, Failure, Ledger, Outcome};
use effectively_tests::{TestDb, on_every_database};
use serde::Serialize;

use crate::held::Held;
use crate::shop::{Shop, ShopDb, ShopError, kind, place, shop_key};

/// What is refused at once does not wait for it.
const LONG: Duration = Duration::from_secs(20);

async fn order<DB: ShopDb>(
    shop: &Shop<DB>,
    ledger: &Ledger<DB>,
    content: &(impl Serialize + ?Sized),
) -> Result<Outcome<String>, Failure<ShopError>> {
    let call = ledger.call(shop_key("a")).wait(LONG).fingerprint(content)?;
    place(call, &shop.runs, "a", async { Ok(()) }).await
}

on_every_database!(
    the_same_content_is_replayed,
    the_order_of_fields_does_not_matter,
    the_order_of_a_set_does_not_matter,
    every_digit_of_a_number_matters,
    other_content_is_refused_here_and_elsewhere,
    other_content_is_refused_at_once_while_the_first_is_in_flight_here,
    other_content_is_refused_once_the_first_elsewhere_is_committed,
    other_content_takes_the_key_when_the_first_gives_up,
    other_content_takes_the_key_when_the_first_has_expired,
    a_call_without_a_fingerprint_compares_nothing,
);

async fn the_same_content_is_replayed<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = order(&shop, &shop.ledger, "book").await.expect("an answer");
    for ledger in [shop.ledger.clone(), shop.elsewhere()] {
        let again = order(&shop, &ledger, "book").await.expect("a replay");
        assert!(again.is_replay());
        assert_eq!(again.recorded(), first.recorded());
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn the_order_of_fields_does_not_matter<DB: ShopDb>(db: TestDb<DB>) {
    #[derive(Serialize)]
    struct Old {
        item: &'static str,
        amount: u8,
    }
    #[derive(Serialize)]
    struct New {
        amount: u8,
        item: &'static str,
    }
    let (item, amount) = ("book", 1);
    let shop = Shop::open(db).await;
    let first = order(&shop, &shop.ledger, &Old { item, amount }).await;
    assert!(!first.expect("an answer").is_replay());
    let elsewhere = shop.elsewhere();
    let again = order(&shop, &elsewhere, &New { amount, item }).await;
    assert!(again.expect("a replay").is_replay());
    let map = HashMap::from([("amount", "1"), ("item", "book")]);
    let other = order(&shop, &elsewhere, &map).await;
    assert_eq!(kind(&other), Some(ErrorKind::Mismatch), "1 is not \"1\"");
}

async fn the_order_of_a_set_does_not_matter<DB: ShopDb>(db: TestDb<DB>) {
    #[derive(Serialize)]
    struct Tagged {
        tags: Option<HashSet<String>>,
        by_tag: HashMap<String, HashSet<u32>>,
    }
    // Made anew for each call: no two sets have one order.
    let tagged = |most: u32| Tagged {
        tags: Some((0..20).map(|n| format!("tag {n}")).collect()),
        by_tag: HashMap::from([("a".to_owned(), (0..most).collect())]),
    };
    let shop = Shop::open(db).await;
    let first = order(&shop, &shop.ledger, &tagged(20)).await;
    assert!(!first.expect("an answer").is_replay());
    for ledger in [shop.ledger.clone(), shop.elsewhere()] {
        let again = order(&shop, &ledger, &tagged(20)).await;
        assert!(again.expect("a replay").is_replay());
        let other = order(&shop, &ledger, &tagged(21)).await;
        assert_eq!(kind(&other), Some(ErrorKind::Mismatch));
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn every_digit_of_a_number_matters<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let wei = u128::from(u64::MAX) + 1;
    let first = order(&shop, &shop.ledger, &wei).await;
    assert!(!first.expect("an answer").is_replay());
    let elsewhere = shop.elsewhere();
    let again = order(&shop, &elsewhere, &wei).await;
    assert!(again.expect("a replay").is_replay());
    for other in [wei + 1, u128::MAX, u128::from(u64::MAX)] {
        let other = order(&shop, &elsewhere, &other).await;
        assert_eq!(kind(&other), Some(ErrorKind::Mismatch));
    }
    let float = order(&shop, &elsewhere, &18_446_744_073_709_551_616.0).await;
    assert_eq!(kind(&float), Some(ErrorKind::Mismatch));
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn other_content_is_refused_here_and_elsewhere<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = order(&shop, &shop.ledger, "book").await.expect("an answer");
    for ledger in [shop.ledger.clone(), shop.elsewhere()] {
        let other = order(&shop, &ledger, "pen").await;
        assert_eq!(kind(&other), Some(ErrorKind::Mismatch));
        let again = order(&shop, &ledger, "book").await.expect("a replay");
        assert_eq!(again.recorded(), first.recorded());
    }
    assert_eq!(shop.runs(), 1);
    assert_eq!(shop.stored().await, (1, 1, 1));
    shop.assert_healthy().await;
}

async fn other_content_is_refused_at_once_while_the_first_is_in_flight_here<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "book").await;
    let other = order(&shop, &shop.ledger, "pen").await;
    assert_eq!(kind(&other), Some(ErrorKind::Mismatch));
    held.finish().await.expect("an answer");
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn other_content_is_refused_once_the_first_elsewhere_is_committed<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.elsewhere(), &shop.runs, "a", "book").await;
    let (other, first) = tokio::join!(order(&shop, &shop.ledger, "pen"), async {
        // Long enough for the other call to find the key held, short of every bound.
        tokio::time::sleep(Duration::from_millis(200)).await;
        held.finish().await
    });
    assert!(!first.expect("an answer").is_replay());
    assert_eq!(kind(&other), Some(ErrorKind::Mismatch));
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn other_content_takes_the_key_when_the_first_gives_up<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "book").await;
    held.give_up().await;
    let other = order(&shop, &shop.ledger, "pen").await;
    assert!(!other.expect("an answer").is_replay());
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn other_content_takes_the_key_when_the_first_has_expired<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    order(&shop, &shop.ledger, "book").await.expect("an answer");
    shop.expire().await;
    let other = order(&shop, &shop.ledger, "pen").await;
    assert!(!other.expect("an answer").is_replay());
    let first = order(&shop, &shop.ledger, "book").await;
    assert_eq!(kind(&first), Some(ErrorKind::Mismatch));
}

/// So that a handler can get its fingerprint while keys without one are within their retention.
async fn a_call_without_a_fingerprint_compares_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = shop.order("a").await.expect("an answer");
    let again = order(&shop, &shop.elsewhere(), "book").await;
    assert_eq!(again.expect("a replay").recorded(), first.recorded());
}
