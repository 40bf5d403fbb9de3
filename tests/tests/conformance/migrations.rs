//! The toolkit's migrations run at every start, from many processes at once, and never touch the application's own.

use std::pin::pin;
use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, on_every_database};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::SqliteJournalMode;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqlSafeStr, Sqlite, raw_sql};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::shop::{Shop, ShopDb};

on_every_database!(
    four_processes_may_migrate_at_once,
    a_second_migration_keeps_what_is_there,
    the_migrations_of_the_application_are_left_alone,
);

async fn four_processes_may_migrate_at_once<DB: ShopDb>(db: TestDb<DB>) {
    let mut starts = JoinSet::new();
    for _ in 0..4 {
        let ledger = Ledger::new(db.pool_with(2, None));
        starts.spawn(async move { ledger.migrate().await });
    }
    for migrated in starts.join_all().await {
        migrated.expect("the toolkit's tables");
    }
    let applied = "select count(*) from effectively_migrations";
    assert_eq!(db.number(applied).await, Ledger::<DB>::SCHEMA_VERSION);
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("an answer");
}

/// As the first of several processes does for a moment, while it makes the file a WAL file.
#[test]
fn a_migration_waits_for_a_process_that_holds_the_new_file() {
    effectively_tests::run(async |db: TestDb<Sqlite>| {
        let options = db.options(None);
        let first = options.clone().journal_mode(SqliteJournalMode::Delete);
        let mut first = first.connect().await.expect("a new file");
        let hold = raw_sql("begin exclusive").execute(&mut first).await;
        hold.expect("the whole file");

        let options = options.busy_timeout(Duration::ZERO);
        let ledger = Ledger::<Sqlite>::new(PoolOptions::new().connect_lazy_with(options));
        let mut migration = pin!(ledger.migrate());
        let held = timeout(Duration::from_secs(1), &mut migration).await;
        assert!(held.is_err(), "it did not wait: {held:?}");

        first.close().await.expect("the file is free");
        migration.await.expect("the toolkit's tables");
    });
}

async fn a_second_migration_keeps_what_is_there<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = shop.order("a").await.expect("an answer");
    let again = shop.elsewhere();
    again.migrate().await.expect("nothing left to do");
    let replay = shop.order("a").await.expect("a replay");
    assert_eq!(replay.recorded(), first.recorded());
    assert_eq!(shop.stored().await, (1, 1, 1));
}

/// In both orders: before ours, with ours in between, and once more.
async fn the_migrations_of_the_application_are_left_alone<DB: ShopDb>(db: TestDb<DB>) {
    let migrate = async |count: i64| {
        let migrations = (1..=count).map(|version| {
            let sql = AssertSqlSafe(format!("create table app_{version} (n int)"));
            let title = format!("app {version}").into();
            Migration::new(
                version,
                title,
                MigrationType::Simple,
                sql.into_sql_str(),
                false,
            )
        });
        let migrator = Migrator::with_migrations(migrations.collect());
        let mut connection = db.admin().acquire().await.expect("a connection");
        migrator
            .run_direct(None, &mut *connection, false)
            .await
            .expect("the application's migrations");
    };
    migrate(1).await;
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    migrate(2).await;
    ledger.migrate().await.expect("nothing left to do");
    migrate(2).await;
    let applied = "select count(*) from _sqlx_migrations";
    assert_eq!(db.number(applied).await, 2);
    let ours = "select count(*) from effectively_migrations";
    assert_eq!(db.number(ours).await, Ledger::<DB>::SCHEMA_VERSION);
}
