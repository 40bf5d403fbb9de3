//! A call inside the body of another would wait for itself, or for the pool. It is refused, and the outer call is not harmed.

use effectively::{ErrorKind, Failure, Ledger};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Shop, ShopDb, ShopError, insert, kind, order_on, shop_key};

on_every_database!(
    a_call_inside_a_body_is_refused_and_the_outer_one_goes_on,
    a_refused_inner_call_that_is_passed_on_frees_both_keys,
    a_call_after_a_call_is_none_inside_it,
);

async fn a_call_inside_a_body_is_refused_and_the_outer_one_goes_on<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    // One connection: a call that waited for another one would wait for ever.
    let ledger = Ledger::new(shop.db.pool_with(1, None));
    let outer = ledger
        .run(shop_key("outer"), async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "outer").await?;
            for key in ["inner", "outer"] {
                let inner = order_on(&ledger, &shop.runs, key, Default::default()).await;
                assert_eq!(kind(&inner), Some(ErrorKind::NestedCall));
            }
            Ok::<_, ShopError>("done".to_owned())
        })
        .await;
    let outer = outer.expect("an answer").into_result();
    assert_eq!(outer.expect("a response"), "done");
    assert_eq!(shop.runs(), 0);
    assert_eq!(shop.stored().await, (1, 0, 1));
    shop.assert_free("inner").await;
}

async fn a_refused_inner_call_that_is_passed_on_frees_both_keys<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let outer = shop
        .ledger
        .run(shop_key("outer"), async |tx: &mut DB::Connection| {
            let written = insert::<DB>(tx, "outer").await;
            written.expect("an order of the outer call");
            shop.order("inner").await.map(drop)
        })
        .await;
    let refused = |failure: &Failure<ShopError>| match failure {
        Failure::Toolkit(error) => *error.kind() == ErrorKind::NestedCall,
        Failure::Handler(_) => false,
    };
    let Err(Failure::Handler(inner)) = outer.map(drop) else {
        panic!("the body's error is the inner call's");
    };
    assert!(refused(&inner));
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.assert_free("outer").await;
    shop.assert_free("inner").await;
}

async fn a_call_after_a_call_is_none_inside_it<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for key in ["a", "b", "c"] {
        shop.order(key).await.expect("an answer");
    }
    assert!(!effectively::guard::inside_claim());
    assert_eq!(shop.stored().await, (3, 3, 3));
}
