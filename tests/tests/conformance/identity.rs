//! A database has an identity: one row, which the migration makes.

use effectively::Ledger;
use effectively_tests::{TestDb, on_every_database};
use tokio::task::JoinSet;

use crate::shop::{Shop, ShopDb};

on_every_database!(
    a_database_keeps_its_identity_and_no_other_has_it,
    a_missing_identity_is_made_again_and_once,
);

async fn identity<DB: ShopDb>(db: &TestDb<DB>) -> Vec<String> {
    let id = match DB::NAME {
        "PostgreSQL" => "id::text",
        _ => "hex(id)",
    };
    db.texts(&format!("select {id} from effectively_identity"))
        .await
}

async fn a_database_keeps_its_identity_and_no_other_has_it<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = identity(&shop.db).await;
    assert_eq!(first.len(), 1);
    shop.elsewhere()
        .migrate()
        .await
        .expect("nothing left to do");
    assert_eq!(identity(&shop.db).await, first);
    let other = TestDb::<DB>::new().await;
    let ledger = Ledger::new(other.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    assert_ne!(identity(&other).await, first);
    // Another prefix is another outbox.
    let second = Ledger::builder(other.pool().clone()).table_prefix("second_");
    let second = second.build().expect("a ledger");
    second.migrate().await.expect("the toolkit's tables");
    let equal = "select count(*) from effectively_identity a join second_identity b on a.id = b.id";
    assert_eq!(other.number(equal).await, 0);
}

async fn a_missing_identity_is_made_again_and_once<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = identity(&shop.db).await;
    shop.db.execute("delete from effectively_identity").await;
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let ledger = Ledger::<DB>::new(shop.db.pool_with(1, None));
        starts.spawn(async move { ledger.migrate().await });
    }
    for start in starts.join_all().await {
        start.expect("an identity");
    }
    let again = identity(&shop.db).await;
    assert_eq!(again.len(), 1);
    assert_ne!(again, first);
}
