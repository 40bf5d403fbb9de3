//! The toolkit's migrations run at every start, from many processes at once, and never touch the application's own.

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, on_every_database, poll_times};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::SqliteJournalMode;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqlSafeStr, Sqlite, raw_sql};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::shop::{Shop, ShopDb, refused, shop_key};

on_every_database!(
    four_processes_may_migrate_at_once,
    a_second_migration_keeps_what_is_there,
    the_migrations_of_the_application_are_left_alone,
    a_migration_that_is_dropped_at_any_await_goes_on,
    tables_that_an_earlier_library_made_are_still_right,
);
on_every_database!([postgres, mysql] a_migration_that_is_cut_off_at_any_statement_goes_on);
on_every_database!([mysql]
    a_migration_that_an_earlier_library_left_half_done_goes_on,
    a_migration_that_is_refused_goes_on,
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

/// The files as other tools read them: number and statements. Comments stand on lines of their own.
fn files<DB: ShopDb>() -> Vec<(i64, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../runtime/src/store")
        .join(match DB::NAME {
            "PostgreSQL" => "postgres",
            "MySQL" => "mysql",
            _ => "sqlite",
        })
        .join("migrations");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder of the migrations")
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let version = name[..4].parse().expect("a number");
            let sql = fs::read_to_string(&path).expect("a migration");
            let lines = sql.lines().filter(|line| !line.trim().starts_with("--"));
            let sql = lines.collect::<Vec<_>>().join("\n");
            let statements = sql
                .split(";\n")
                .map(|statement| statement.trim().to_owned());
            (
                version,
                statements.filter(|text| !text.is_empty()).collect(),
            )
        })
        .collect();
    files.sort();
    files
}

/// All that the migrations made.
async fn schema_of<DB: ShopDb>(db: &TestDb<DB>) -> Vec<String> {
    let mut schema = Vec::new();
    let queries: &[&str] = match DB::NAME {
        "PostgreSQL" => &[
            "select concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity) \
             from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'public'::regnamespace \
             and a.attnum > 0 order by 1",
            "select indexdef from pg_indexes where schemaname = 'public' order by 1",
            "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace order by 1",
            "select conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint \
             where connamespace = 'public'::regnamespace order by 1",
        ],
        "MySQL" => &[
            "select concat_ws(' ', table_name, column_name, column_type, is_nullable, column_default, extra) \
             from information_schema.columns where table_schema = database() order by 1",
            "select concat_ws(' ', table_name, index_name, seq_in_index, column_name) \
             from information_schema.statistics where table_schema = database() order by 1",
            "select concat_ws(' ', table_name, engine, table_collation) from information_schema.tables \
             where table_schema = database() order by 1",
        ],
        _ => &["select coalesce(sql, name) from sqlite_master order by 1"],
    };
    for query in queries {
        schema.extend(db.texts(query).await);
    }
    for count in [
        "select count(*) from effectively_leases",
        "select count(*) from effectively_migrations where success",
    ] {
        schema.push(format!("{count}: {}", db.number(count).await));
    }
    schema
}

async fn fresh_schema<DB: ShopDb>() -> Vec<String> {
    let db = TestDb::<DB>::new().await;
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    schema_of(&db).await
}

/// The tables are as if nothing had happened, and they serve.
async fn is_whole<DB: ShopDb>(db: TestDb<DB>, fresh: &[String], what: &str) {
    let ledger = Ledger::new(db.pool().clone());
    let migrated = ledger.migrate().await;
    migrated.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(schema_of(&db).await, fresh, "{what}");
    let serves = ledger
        .run(shop_key("a"), async |_: &mut DB::Connection| {
            Ok::<_, sqlx::Error>(())
        })
        .await;
    serves.expect("an answer");
}

/// Whether the server has executed the statement or has not, and whoever is first to try again.
async fn a_migration_that_is_cut_off_at_any_statement_goes_on<DB: ShopDb>(db: TestDb<DB>) {
    drop(db);
    let fresh = fresh_schema::<DB>().await;
    for (version, statements) in files::<DB>() {
        for statement in statements {
            // The longest piece of a line without a name of ours, since those are qualified.
            let in_name = |c: char| c.is_alphanumeric() || c == '_';
            let pieces = statement
                .lines()
                .flat_map(|line| line.split("effectively_"));
            let pieces = pieces.map(|piece| piece.trim_start_matches(in_name));
            let bait = pieces.max_by_key(|piece| piece.len()).expect("a line");
            let bait = &bait.as_bytes()[..bait.len().min(60)];
            for lose_reply in [false, true] {
                let db = TestDb::<DB>::new().await;
                let proxy = db.proxy();
                if lose_reply {
                    proxy.cut_next_reply(bait);
                } else {
                    proxy.lose_next_request(bait);
                }
                let ledger = Ledger::new(db.pool_with(1, Some(&proxy)));
                let cut_off = ledger.migrate().await;
                let what = format!("{version}, reply lost: {lose_reply}, at {statement}");
                assert!(cut_off.is_err() && !proxy.is_armed(), "{what}");
                is_whole(db, &fresh, &what).await;
            }
        }
    }
}

async fn a_migration_that_is_dropped_at_any_await_goes_on<DB: ShopDb>(db: TestDb<DB>) {
    let fresh = fresh_schema::<DB>().await;
    let mut dropped = 0;
    // Each try gets further than the one before it, from where that one stopped.
    for polls in 1.. {
        let ledger = Ledger::new(db.pool_with(1, None));
        let migration = poll_times(polls, ledger.migrate()).await;
        ledger.pool().close().await;
        match migration {
            None => dropped += 1,
            Some(migrated) => {
                migrated.expect("the toolkit's tables");
                break;
            }
        }
    }
    assert!(dropped > 3, "{dropped}");
    is_whole(db, &fresh, "after all").await;
}

/// As sqlx's migrator left them, which the library worked with before: the same table, the checksums of the files.
async fn tables_that_an_earlier_library_made_are_still_right<DB: ShopDb>(db: TestDb<DB>) {
    let fresh = fresh_schema::<DB>().await;
    let migrations = earlier::<DB>();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name("effectively_migrations");
    let mut connection = db.admin().acquire().await.expect("a connection");
    let run = migrator.run_direct(None, &mut *connection, false).await;
    run.expect("the earlier library's migrations");
    drop(connection);
    let checksums = "select count(distinct checksum) from effectively_migrations";
    assert_eq!(db.number(checksums).await, 3);
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("what is new since then");
    let columns = schema_of(&db).await;
    assert_eq!(columns.len(), fresh.len());

    // And the other way round: the earlier one starts on today's tables.
    let db = TestDb::<DB>::new().await;
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    let mut connection = db.admin().acquire().await.expect("a connection");
    migrator.set_ignore_missing(true);
    let run = migrator.run_direct(None, &mut *connection, false).await;
    run.expect("nothing to do, and nothing to complain about");
}

/// The first three migrations as sqlx sees them.
fn earlier<DB: ShopDb>() -> Vec<Migration> {
    let folder = match DB::NAME {
        "PostgreSQL" => "postgres",
        "MySQL" => "mysql",
        _ => "sqlite",
    };
    let names = ["0001_claims_and_outbox", "0002_relay", "0003_published"];
    (1..)
        .zip(names)
        .map(|(version, name)| {
            let path = format!(
                "{}/../runtime/src/store/{folder}/migrations/{name}.sql",
                env!("CARGO_MANIFEST_DIR")
            );
            let sql = fs::read_to_string(path).expect("a migration");
            let sql = AssertSqlSafe(sql).into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, sql, false)
        })
        .collect()
}

/// sqlx sends a migration as one message and notes only that it has begun, so any number of its statements may be done.
async fn a_migration_that_an_earlier_library_left_half_done_goes_on<DB: ShopDb>(db: TestDb<DB>) {
    drop(db);
    let fresh = fresh_schema::<DB>().await;
    let files = files::<DB>();
    for version in 1..=3 {
        let statements = &files[version - 1].1;
        for done in 0..=statements.len() {
            let db = TestDb::<DB>::new().await;
            let mut migrator = Migrator::with_migrations(earlier::<DB>());
            migrator.dangerous_set_table_name("effectively_migrations");
            let mut connection = db.admin().acquire().await.expect("a connection");
            let before = Some(version as i64 - 1);
            let run = migrator.run_direct(before, &mut *connection, false).await;
            run.expect("the migrations before");
            drop(connection);
            if version > 1 {
                db.execute(
                    "insert into effectively_outbox (event_id, topic, type, partition_no, data, created_at, available_at) \
                     values (repeat('i', 16), 't', 'n', 7, '', utc_timestamp(6), utc_timestamp(6) + interval 1 day)",
                )
                .await;
            }
            for statement in &statements[..done] {
                db.execute(statement).await;
            }
            db.execute(&format!(
                "insert into effectively_migrations (version, description, success, checksum, execution_time) \
                 values ({version}, 'relay', false, 'x', -1)"
            ))
            .await;
            let ledger = Ledger::new(db.pool().clone());
            let what = format!("{done} statements of {version}");
            let early = ledger.outbox().pending().await;
            assert!(early.is_err(), "{what}: tables that are not whole");
            let migrated = ledger.migrate().await;
            migrated.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            if version == 2 {
                let delayed = "select cast(partition_no as signed) from effectively_outbox";
                assert_eq!(db.number(delayed).await, -8, "{what}");
            }
            is_whole(db, &fresh, &what).await;
        }
    }
}

/// A foreign table stands in the way: the error says so, again and again, until it is gone.
async fn a_migration_that_is_refused_goes_on<DB: ShopDb>(db: TestDb<DB>) {
    let fresh = fresh_schema::<DB>().await;
    for table in ["claims", "dead_letters"] {
        db.execute(&format!(
            "create table if not exists effectively_{table} (n int)"
        ))
        .await;
        let ledger = Ledger::new(db.pool().clone());
        assert_eq!(refused(ledger.migrate().await), ErrorKind::Migrate);
        if table == "claims" {
            assert_eq!(refused(ledger.migrate().await), ErrorKind::Migrate);
        }
        db.execute(&format!("drop table effectively_{table}")).await;
    }
    is_whole(db, &fresh, "after the foreign tables").await;
}
