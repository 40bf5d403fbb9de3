//! Somebody empties our tables, as a test harness does between two tests: rows that a relay needs are made again.

use effectively::Ledger;
use effectively::sink::Memory;
use effectively_tests::{TestDb, eventually, on_every_database};

use crate::shop::{Running, SOON, Shop, ShopDb, brisk};

on_every_database!(
    a_relay_publishes_after_its_tables_were_emptied,
    a_ledger_works_after_all_its_tables_were_emptied,
);

async fn empty<DB: ShopDb>(shop: &Shop<DB>, table: &str) {
    let statement = match DB::NAME {
        "SQLite" => format!("delete from effectively_{table}"),
        "PostgreSQL" => format!("truncate table effectively_{table} cascade"),
        _ => format!("truncate table effectively_{table}"),
    };
    shop.db.execute(&statement).await;
}

async fn a_relay_publishes_after_its_tables_were_emptied<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let sink = Memory::new();
    let relay = || Running::start(brisk(shop.elsewhere()).route("numbers", sink.clone()));
    let stays = relay();
    shop.numbers(&["ada"], 0..1).await;
    shop.drained().await;
    for (round, tables) in [&["leases"][..], &["relays"], &["leases", "relays"]]
        .into_iter()
        .enumerate()
    {
        for table in tables {
            empty(&shop, table).await;
        }
        let round = round as u64;
        shop.numbers(&["ada", "bob", "cy"], round + 1..round + 2)
            .await;
        shop.drained().await;
        eventually(SOON, async || shop.holders().await == [64]).await;
    }
    // Part of a table, while one relay runs and when none does.
    let some = "delete from effectively_leases where partition_no > 20";
    shop.db.execute(some).await;
    eventually(SOON, async || shop.holders().await == [64]).await;
    stays.stop().await;
    shop.db.execute(some).await;
    let next = relay();
    eventually(SOON, async || shop.holders().await == [64]).await;
    next.stop().await;
}

async fn a_ledger_works_after_all_its_tables_were_emptied<DB: ShopDb>(db: TestDb<DB>) {
    const TABLES: [&str; 7] = [
        "claims",
        "outbox",
        "published",
        "dead_letters",
        "leases",
        "relays",
        "migrations",
    ];
    let shop = Shop::open(db).await;
    for with_migrations in [false, true] {
        for table in TABLES {
            if with_migrations || table != "migrations" {
                empty(&shop, table).await;
            }
        }
        // A service that starts now.
        let ledger = Ledger::new(shop.db.pool().clone());
        ledger.migrate().await.expect("the tables are there");
        ledger.migrate().await.expect("and it is known again");
        assert_eq!(
            ledger.schema_version().await.expect("a version"),
            Some(Ledger::<DB>::SCHEMA_VERSION)
        );
        let sink = Memory::new();
        let relay = Running::start(brisk(ledger).route("numbers", sink.clone()));
        shop.numbers(&["ada"], 0..1).await;
        shop.drained().await;
        assert_eq!(sink.len(), 1);
        relay.stop().await;
    }
}
