//! The toolkit's tables stand where the application wants them, under the names it wants.

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Shop, ShopDb, ShopError, order_on, refused, shop_key};

on_every_database!(
    everything_works_under_another_prefix,
    a_name_that_needs_quotes_is_refused
);
on_every_database!([postgres] everything_works_in_a_schema_of_its_own, a_reserved_word_names_a_schema_and_a_prefix);
on_every_database!([sqlite] a_schema_is_refused_where_it_would_be_another_file);
on_every_database!([mysql] a_reserved_word_names_a_database);

async fn everything_works_under_another_prefix<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone()).table_prefix("once_");
    works(db, ledger.build().expect("a ledger"), "once_").await;
}

async fn everything_works_in_a_schema_of_its_own<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone())
        .schema("toolkit")
        .table_prefix("once_");
    works(db, ledger.build().expect("a ledger"), "toolkit.once_").await;
}

/// A commit over two files is not atomic in WAL mode.
async fn a_schema_is_refused_where_it_would_be_another_file<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::builder(db.pool().clone()).schema("toolkit");
    assert!(matches!(refused(ledger.build()), ErrorKind::Settings(_)));
}

/// Every one of them is refused where it stands without quotes.
async fn a_reserved_word_names_a_schema_and_a_prefix<DB: ShopDb>(db: TestDb<DB>) {
    for word in [
        "order", "user", "group", "analyse", "all", "select", "table",
    ] {
        let ledger = Ledger::builder(db.pool().clone()).schema(word);
        migrates_and_serves(ledger.build().expect("a ledger")).await;
    }
    let ledger = Ledger::builder(db.pool().clone())
        .schema("order")
        .table_prefix("select");
    migrates_and_serves(ledger.build().expect("a ledger")).await;
}

/// Databases belong to the whole server. One that another run left behind is as good.
async fn a_reserved_word_names_a_database<DB: ShopDb>(db: TestDb<DB>) {
    for word in ["group", "select"] {
        let ledger = Ledger::builder(db.pool().clone()).schema(word);
        let key = db.texts("select database()").await.concat();
        migrates_and_serves_key(ledger.build().expect("a ledger"), &key).await;
        db.execute(&format!("drop database `{word}`")).await;
    }
}

async fn migrates_and_serves<DB: ShopDb>(ledger: Ledger<DB>) {
    migrates_and_serves_key(ledger, "a").await;
}

async fn migrates_and_serves_key<DB: ShopDb>(ledger: Ledger<DB>, key: &str) {
    ledger.migrate().await.expect("the toolkit's tables");
    for expected in [false, true] {
        let unit = async |_: &mut DB::Connection| Ok::<_, ShopError>(());
        let answer = ledger.run(shop_key(key), unit).await;
        assert_eq!(answer.expect("an answer").is_replay(), expected);
    }
}

async fn works<DB: ShopDb>(db: TestDb<DB>, ledger: Ledger<DB>, prefix: &str) {
    ledger.migrate().await.expect("the toolkit's tables");
    ledger.migrate().await.expect("nothing left to do");
    db.execute("create table orders (item varchar(100) not null)")
        .await;
    let shop = Shop::on(db, ledger);
    let count = |table: &str| format!("select count(*) from {prefix}{table}");
    for expected in [false, true] {
        let answer = shop.order("a").await.expect("an answer");
        assert_eq!(answer.is_replay(), expected);
    }
    assert_eq!(shop.db.number(&count("claims")).await, 1);
    assert_eq!(shop.db.number(&count("outbox")).await, 1);
    assert_eq!(shop.drain().await.len(), 1);
    shop.interrupt("b").await;
    assert_eq!(shop.ledger.interrupted().await.expect("a list").len(), 1);
    assert!(
        shop.ledger
            .release(&shop_key("b"))
            .await
            .expect("a release")
    );
    shop.db
        .execute(&format!(
            "update {prefix}claims set expires_at = {}",
            crate::shop::in_the_past::<DB>()
        ))
        .await;
    // A takeover names the table, too.
    assert!(!shop.order("a").await.expect("an answer").is_replay());
    assert_eq!(shop.ledger.purge().await.expect("a purge"), 0);
    // A ledger with the default names does not find them.
    let elsewhere = order_on(&shop.elsewhere(), &shop.runs, "a", Default::default()).await;
    assert_eq!(
        crate::shop::kind(&elsewhere),
        Some(ErrorKind::TablesMissing)
    );
}

async fn a_name_that_needs_quotes_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    for name in ["", "1st", "Orders", "a b", "a;drop", "ä"] {
        let prefix = Ledger::builder(db.pool().clone()).table_prefix(name);
        assert!(
            matches!(refused(prefix.build()), ErrorKind::Settings(_)),
            "{name:?}"
        );
        let schema = Ledger::builder(db.pool().clone()).schema(name);
        assert!(
            matches!(refused(schema.build()), ErrorKind::Settings(_)),
            "{name:?}"
        );
    }
}
