//! Which tables a ledger works on is decided by how its pool opens connections, and by nothing that a session is changed to.

use std::time::Duration;

use effectively::{Emit, ErrorKind, Ledger, Relay, sink::Memory};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::Pool;
use sqlx::pool::PoolOptions;

use crate::shop::{
    OrderPlaced, SOON, Shop, ShopDb, ShopError, insert, order_on, refused, shop_key,
};
use crate::unkeyed::{HandlerDb, call};

on_every_database!(
    what_a_body_changes_moves_nothing,
    what_a_body_changes_does_not_move_events_without_a_key,
    what_a_borrower_leaves_does_not_move_the_first_call,
    what_a_borrower_leaves_does_not_move_a_relay_or_an_operator,
    what_a_borrower_leaves_does_not_move_the_migrations,
);
on_every_database!([postgres, mysql]
    connections_that_begin_elsewhere_work_there,
    a_connection_that_works_nowhere_is_refused,
);
on_every_database!([postgres]
    a_role_that_a_borrower_took_does_not_move_the_first_call,
    tables_that_are_there_are_found_anywhere_in_the_path,
);

const TABLES: [&str; 7] = [
    "claims",
    "outbox",
    "published",
    "dead_letters",
    "leases",
    "relays",
    "migrations",
];

/// Another place with tables like ours, and the statement that makes a session work there.
struct Elsewhere<DB: ShopDb> {
    goes: String,
    /// Reads from there, whatever the session is.
    prefix: String,
    /// Dropped last.
    _database: Option<TestDb<DB>>,
}

impl<DB: ShopDb> Elsewhere<DB> {
    async fn of(db: &TestDb<DB>, migrated: bool) -> Self {
        match DB::NAME {
            "PostgreSQL" => {
                db.execute("create schema elsewhere").await;
                let ledger = Ledger::builder(db.pool().clone()).schema("elsewhere");
                if migrated {
                    let ledger = ledger.build().expect("a ledger");
                    ledger.migrate().await.expect("tables in the schema");
                }
                Self {
                    // A temporary table is found before all that the path names.
                    goes: "create temp table if not exists effectively_outbox (n int); \
                           create temp table if not exists effectively_claims (n int); set search_path to elsewhere"
                        .into(),
                    prefix: "elsewhere.".into(),
                    _database: None,
                }
            }
            "MySQL" => {
                let other = TestDb::<DB>::new().await;
                let name = other.texts("select database()").await.concat();
                if migrated {
                    let ledger = Ledger::new(other.pool().clone());
                    ledger.migrate().await.expect("tables in the database");
                }
                Self {
                    goes: format!("use {name}"),
                    prefix: format!("{name}."),
                    _database: Some(other),
                }
            }
            // A temporary table belongs to the session and hides one of the same name.
            _ => Self {
                goes: TABLES
                    .map(|table| format!("create temp table effectively_{table} (n int);"))
                    .concat(),
                prefix: "main.".into(),
                _database: None,
            },
        }
    }
}

/// A pool of one connection that the last borrower has changed.
async fn changed<DB: ShopDb>(db: &TestDb<DB>, to: &Elsewhere<DB>) -> Pool<DB> {
    let pool = db.pool_with(1, None);
    let mut borrowed = pool.acquire().await.expect("a connection");
    let gone = DB::execute(&mut borrowed, &to.goes).await;
    gone.expect("a changed session");
    pool
}

async fn what_a_body_changes_moves_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let elsewhere = Elsewhere::of(&shop.db, true).await;
    let with_literals = Ledger::builder(shop.db.pool_with(1, None)).payload_literals(true);
    let ledgers = [
        Ledger::new(shop.db.pool_with(1, None)),
        with_literals.build().expect("a ledger"),
    ];
    for (no, ledger) in (0..).zip(ledgers) {
        shop.ledger = ledger;
        let key = format!("with an event {no}");
        let call = shop.ledger.call(shop_key(&key));
        let answer = call
            .run_with_events(async |tx: &mut DB::Connection| {
                insert::<DB>(tx, &key).await?;
                DB::execute(tx, &elsewhere.goes).await?;
                Ok::<_, ShopError>(Emit::new("done".to_owned()).event(OrderPlaced::of("a")))
            })
            .await;
        answer.expect("an answer");
        assert_eq!(shop.stored().await, (no + 1, no + 1, 2 * no + 1));
        // The session stays changed: the next claims find the same tables.
        assert!(shop.order(&key).await.expect("a replay").is_replay());
        let there = order_on(&shop.elsewhere(), &shop.runs, &key, Duration::ZERO).await;
        assert!(there.expect("a replay").is_replay());
        let unit = async |_: &mut DB::Connection| Ok::<_, ShopError>(());
        let answer = shop.ledger.run(shop_key(&format!("unit {no}")), unit).await;
        answer.expect("an answer");
        assert_eq!(shop.stored().await, (no + 1, no + 1, 2 * no + 2));
    }
    assert_eq!(shop.ledger.interrupted().await.expect("a list").len(), 0);
}

async fn what_a_body_changes_does_not_move_events_without_a_key<DB: HandlerDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let elsewhere = Elsewhere::of(&shop.db, true).await;
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        DB::execute(tx, &elsewhere.goes).await?;
        Ok(())
    };
    call(&shop, body).await.expect("a success");
    assert_eq!(shop.stored().await, (1, 1, 0));
}

async fn what_a_borrower_leaves_does_not_move_the_first_call<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let elsewhere = Elsewhere::of(&shop.db, true).await;
    shop.order("a").await.expect("an answer");
    shop.ledger = Ledger::new(changed(&shop.db, &elsewhere).await);
    // A ledger that has never been used, in a session that was.
    assert!(shop.order("a").await.expect("a replay").is_replay());
    let unit = async |_: &mut DB::Connection| Ok::<_, ShopError>(());
    let answer = shop.ledger.run(shop_key("unit"), unit).await;
    answer.expect("an answer");
    assert_eq!(shop.stored().await, (1, 1, 2));
}

async fn what_a_borrower_leaves_does_not_move_a_relay_or_an_operator<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let elsewhere = Elsewhere::of(&shop.db, true).await;
    for key in ["a", "b", "c"] {
        shop.order(key).await.expect("an answer");
    }
    shop.expire().await;
    shop.interrupt("d").await;
    let ledger = Ledger::new(changed(&shop.db, &elsewhere).await);
    let version = ledger.schema_version().await.expect("a version");
    assert_eq!(version, Some(Ledger::<DB>::SCHEMA_VERSION));
    let outbox = ledger.outbox();
    assert_eq!(outbox.pending().await.expect("a number"), 3);
    assert_eq!(outbox.peek(9).await.expect("events").len(), 3);
    assert_eq!(outbox.backlog().await.expect("a backlog").due, 3);
    assert_eq!(ledger.interrupted().await.expect("a list").len(), 1);
    assert!(ledger.release(&shop_key("d")).await.expect("a release"));
    assert_eq!(ledger.purge().await.expect("a purge"), 3);

    let sink = Memory::new();
    let relay = Relay::builder(ledger.clone())
        .route("*", sink.clone())
        .keep_published(Duration::from_secs(600));
    let relay = relay.build().expect("a relay");
    let published = async {
        eventually(SOON, async || sink.published().len() == 3).await;
        eventually(SOON, async || shop.events().await == 0).await;
    };
    relay.run(published).await.expect("a relay that ends");
    let kept = "select count(*) from effectively_published";
    assert_eq!(shop.db.number(kept).await, 3);
    shop.ledger = ledger;
    assert_eq!(shop.stored().await, (3, 0, 0));
}

async fn what_a_borrower_leaves_does_not_move_the_migrations<DB: ShopDb>(db: TestDb<DB>) {
    let elsewhere = Elsewhere::of(&db, false).await;
    let ledger = Ledger::new(changed(&db, &elsewhere).await);
    ledger.migrate().await.expect("the toolkit's tables");
    db.execute("create table orders (item varchar(100) not null)")
        .await;
    let shop = Shop::on(db, ledger);
    for table in TABLES {
        let here = format!("select count(*) from effectively_{table}");
        shop.db.number(&here).await;
    }
    let goes_on = order_on(&shop.elsewhere(), &shop.runs, "a", Duration::ZERO).await;
    goes_on.expect("an answer");
    assert_eq!(shop.stored().await, (1, 1, 1));
    shop.ledger.migrate().await.expect("nothing left to do");
}

/// As `after_connect` does it for a service that works for one tenant.
async fn connections_that_begin_elsewhere_work_there<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let elsewhere = Elsewhere::of(&shop.db, false).await;
    let goes = elsewhere.goes.clone();
    let options = PoolOptions::new()
        .max_connections(1)
        .after_connect(move |conn, _| {
            let goes = goes.clone();
            Box::pin(async move { DB::execute(conn, &goes).await.map(drop) })
        });
    let pool = shop.db.pool_from(options, None);
    let tenant = Ledger::new(pool.clone());
    tenant.migrate().await.expect("the tenant's tables");
    let unit = async |_: &mut DB::Connection| Ok::<_, ShopError>(());
    let answer = tenant.run(shop_key("unit"), unit).await;
    answer.expect("an answer");
    let claims = format!(
        "select count(*) from {}effectively_claims",
        elsewhere.prefix
    );
    assert_eq!(shop.db.number(&claims).await, 1);

    // A borrower goes where such tables are, too.
    let third = match DB::NAME {
        "PostgreSQL" => None,
        _ => Some(Elsewhere::of(&shop.db, true).await),
    };
    let public = "set search_path to public".to_owned();
    let home = third.as_ref().map_or(&public, |third| &third.goes);
    let mut borrowed = pool.acquire().await.expect("a connection");
    let gone = DB::execute(&mut borrowed, home).await;
    gone.expect("a changed session");
    drop(borrowed);
    for ledger in [tenant, Ledger::new(pool)] {
        shop.ledger = ledger;
        let answer = shop.ledger.run(shop_key("unit"), unit).await;
        assert!(answer.expect("a replay").is_replay());
    }
    assert_eq!(shop.claims().await, 0);
}

async fn a_connection_that_works_nowhere_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let nowhere = match DB::NAME {
        "PostgreSQL" => "set search_path to nowhere".to_owned(),
        _ => {
            let name = db.texts("select database()").await.concat();
            format!("create database {name}_; use {name}_; drop database {name}_")
        }
    };
    let options = PoolOptions::new().after_connect(move |conn, _| {
        let nowhere = nowhere.clone();
        Box::pin(async move { DB::execute(conn, &nowhere).await.map(drop) })
    });
    let ledger = Ledger::new(db.pool_from(options.max_connections(1), None));
    let migrated = refused(ledger.migrate().await);
    assert!(matches!(migrated, ErrorKind::Settings(_)), "{migrated:?}");
}

/// `"$user"` in the path is another schema then.
async fn a_role_that_a_borrower_took_does_not_move_the_first_call<DB>(db: TestDb<DB>)
where
    DB: ShopDb,
{
    let mut shop = Shop::open(db).await;
    shop.order("a").await.expect("an answer");
    let role = shop
        .db
        .texts("select current_database()::text || '_r'")
        .await
        .concat();
    shop.db
        .execute(&format!(
            "create role {role}; create schema {role}; grant all on schema {role} to {role}; \
             grant all on all tables in schema public to {role}"
        ))
        .await;
    let elsewhere = Elsewhere {
        goes: format!("set role {role}"),
        prefix: String::new(),
        _database: None,
    };
    shop.db
        .execute(&format!(
            "create table {role}.effectively_claims (like effectively_claims)"
        ))
        .await;
    let pool = changed(&shop.db, &elsewhere).await;
    shop.ledger = Ledger::new(pool);
    let answer = shop.order("a").await;
    shop.db
        .execute(&format!(
            "drop owned by {role} cascade; drop schema {role} cascade; drop role {role}"
        ))
        .await;
    assert!(answer.expect("a replay").is_replay());
}

/// They would be found by every statement without a schema: a new schema in front of theirs must not hide what they hold.
async fn tables_that_are_there_are_found_anywhere_in_the_path<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    shop.order("a").await.expect("an answer");
    let database = shop
        .db
        .texts("select current_database()::text")
        .await
        .concat();
    shop.db
        .execute(&format!(
            "create schema in_front; alter database {database} set search_path to in_front, public"
        ))
        .await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    shop.ledger.migrate().await.expect("nothing left to do");
    assert!(shop.order("a").await.expect("a replay").is_replay());
    let in_front = "select count(*) from pg_class where relnamespace = 'in_front'::regnamespace";
    assert_eq!(shop.db.number(in_front).await, 0);
}
