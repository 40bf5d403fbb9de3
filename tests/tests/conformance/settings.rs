//! What a session is set to, by its server, its pool, its last borrower or the body itself, changes nothing that the toolkit
//! promises.

use std::time::Duration;

use effectively::sink::Memory;
use effectively::{Ledger, Relay};
use effectively_tests::{TestDb, eventually, is_mariadb, on_every_database};
use sqlx::pool::PoolOptions;
use tokio::sync::oneshot;

use crate::held::Held;
use crate::shop::{OrderPlaced, SOON, Shop, ShopDb, ShopError, insert, kind, order_on, shop_key};
use effectively::{Emit, ErrorKind};

on_every_database!([mysql]
    settings_of_a_session_change_no_call_and_no_relay,
    tables_are_made_in_any_session,
    what_a_body_sets_in_its_session_breaks_neither_its_call_nor_the_next,
    text_is_what_it_was_whatever_the_session_takes_it_for,
    a_session_that_the_server_ends_in_the_body_leaves_a_free_key,
    a_clock_that_a_session_has_set_moves_no_time_of_ours,
    a_clock_that_a_body_sets_moves_no_time_of_ours,
    a_session_that_may_read_what_is_not_committed_replays_nothing_of_it,
    a_session_that_may_read_what_is_not_committed_publishes_nothing_of_it,
    a_time_limit_for_statements_ends_a_wait_as_in_flight,
    an_error_that_a_trigger_raises_in_the_fence_frees_the_key,
    a_server_that_cannot_write_is_unavailable,
    a_connection_to_a_server_that_cannot_write_is_replaced,
);
on_every_database!([sqlite]
    pragmas_of_foreign_keys_in_a_body_do_not_meet_the_gate,
    a_pragma_that_stays_costs_its_connection_and_no_later_call,
    an_error_that_a_trigger_raises_in_the_fence_is_not_taken_for_a_lost_transaction,
);

/// A ledger on sessions that are set like this.
fn with<DB: ShopDb>(db: &TestDb<DB>, size: u32, setting: &'static str) -> Ledger<DB> {
    let options = PoolOptions::new()
        .max_connections(size)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                DB::execute(connection, setting).await?;
                Ok(())
            })
        });
    Ledger::new(db.pool_from(options, None))
}

/// Runs a relay on this ledger until the outbox is empty; what it published.
async fn published<DB: ShopDb>(shop: &Shop<DB>, ledger: &Ledger<DB>, events: i64) -> usize {
    let sink = Memory::new();
    let relay = Relay::builder(ledger.clone())
        .poll(Duration::from_millis(20))
        .route("*", sink.clone())
        .build()
        .expect("a relay");
    let (end, ended) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { drop(ended.await) }));
    eventually(SOON, async || {
        if sink.len() as i64 >= events && shop.events().await == 0 {
            return Ok(());
        }
        Err(format!("{} are published", sink.len()))
    })
    .await;
    drop(end);
    relay
        .await
        .expect("no panic")
        .expect("a relay that ends in order");
    sink.len()
}

async fn settings_of_a_session_change_no_call_and_no_relay<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    let mariadb = is_mariadb(&shop.db.texts("select version()").await.concat());
    let serializable = if mariadb {
        "set session tx_isolation = 'SERIALIZABLE', session innodb_lock_wait_timeout = 1"
    } else {
        "set session transaction_isolation = 'SERIALIZABLE', session innodb_lock_wait_timeout = 1"
    };
    let seen = "select concat_ws(' ', @@session.autocommit, @@session.sql_safe_updates)";
    for setting in [
        "set session autocommit = 0",
        "set session completion_type = 1",
        "set session completion_type = 2",
        "set session sql_safe_updates = 1, session sql_select_limit = 1000",
        "set session transaction read only",
        "set session autocommit = 0, session completion_type = 1, session sql_safe_updates = 1",
        "set session sql_mode = 'ANSI'",
        "set session sql_mode = 'TRADITIONAL,NO_BACKSLASH_ESCAPES'",
        "set session sql_mode = ''",
        "set session time_zone = '-11:00', foreign_key_checks = 0, unique_checks = 0",
        serializable,
    ] {
        shop.ledger = with(&shop.db, 1, setting);
        let look = async |ledger: &Ledger<DB>| {
            let mut connection = ledger.pool().acquire().await.expect("a connection");
            DB::texts(&mut connection, seen).await.expect("settings")
        };
        let before = look(&shop.ledger).await;
        for replay in [false, true] {
            let answer = shop.order("a").await.expect("an answer");
            assert_eq!(answer.is_replay(), replay, "{setting}");
            let answer = order_on(&shop.elsewhere(), &shop.runs, "a", Duration::ZERO).await;
            assert!(answer.expect("an answer").is_replay(), "{setting}");
        }
        assert_eq!(shop.stored().await, (1, 1, 1), "{setting}");
        let gives_up = async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "b").await?;
            Err::<(), _>(ShopError::GaveUp)
        };
        assert!(shop.ledger.run(shop_key("b"), gives_up).await.is_err());
        assert_eq!(shop.stored().await, (1, 1, 1), "{setting}");
        let relays = with(&shop.db, 5, setting);
        assert_eq!(published(&shop, &relays, 1).await, 1, "{setting}");
        shop.expire().await;
        let purged = shop.ledger.purge().await.expect("a purge");
        assert_eq!((purged, shop.claims().await), (1, 0), "{setting}");
        assert_eq!(look(&shop.ledger).await, before, "{setting}");
        shop.db.execute("delete from orders").await;
    }
}

async fn tables_are_made_in_any_session<DB: ShopDb>(db: TestDb<DB>) {
    let setting = "set session transaction read only; \
         set session autocommit = 0, session completion_type = 1, session sql_safe_updates = 1, timestamp = 1000000000";
    let ledger = with(&db, 2, setting);
    ledger.migrate().await.expect("the tables");
    ledger.migrate().await.expect("the tables, again");
    db.execute("create table orders (item varchar(100) not null)")
        .await;
    let shop = Shop::on(db, ledger);
    assert!(!shop.order("a").await.expect("an answer").is_replay());
    shop.assert_free("b").await;
    let leases = "select count(*) from effectively_leases where expires_at > utc_timestamp(6) - interval 1 hour";
    assert_eq!(shop.db.number(leases).await, 64);
}

async fn what_a_body_sets_in_its_session_breaks_neither_its_call_nor_the_next<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let mut shop = Shop::open(db).await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    let settings = [
        "set session transaction read only",
        "set session transaction isolation level read uncommitted",
        "set session transaction isolation level serializable",
        "set session sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'",
        "set session foreign_key_checks = 0, session innodb_lock_wait_timeout = 1",
        "set session completion_type = 1",
        "set session completion_type = 2",
        "set session sql_safe_updates = 1",
        "set names latin1",
        "set time_zone = '-11:00'",
    ];
    for (n, setting) in settings.into_iter().enumerate() {
        for fails in [false, true] {
            let call = shop.ledger.call(shop_key(&format!("{n} {fails}")));
            let answer = call.run_with_events(async |tx: &mut DB::Connection| {
                insert::<DB>(tx, "a").await?;
                DB::execute(tx, setting).await?;
                match fails {
                    true => Err(ShopError::GaveUp),
                    false => Ok(Emit::new("answer".to_owned()).event(OrderPlaced::of("a"))),
                }
            });
            assert_eq!(answer.await.is_err(), fails, "{setting}");
            let next = shop.order(&format!("after {n} {fails}")).await;
            assert!(!next.expect("the next call").is_replay(), "{setting}");
            shop.assert_healthy().await;
        }
    }
    let calls = settings.len() as i64 * 3;
    assert_eq!(shop.stored().await, (calls, calls, calls));
    assert_eq!(shop.ledger.purge().await.expect("a purge"), 0);
}

async fn text_is_what_it_was_whatever_the_session_takes_it_for<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let ledger = with(&shop.db, 1, "set names latin1");
    for literals in [false, true] {
        let ledger = Ledger::builder(ledger.pool().clone())
            .payload_literals(literals)
            .build()
            .expect("a ledger");
        let call = ledger.call(shop_key(&format!("{literals}")));
        let call = call.run_with_events(async |_: &mut DB::Connection| {
            Ok::<_, ShopError>(Emit::new(()).event(OrderPlaced::of("Bücher ✓")))
        });
        call.await.expect("an answer");
    }
    for ledger in [&shop.ledger, &ledger] {
        let events = ledger.outbox().peek(10).await.expect("the events");
        let keys: Vec<_> = events
            .iter()
            .map(|event| event.partition_key.as_deref())
            .collect();
        assert_eq!(keys, [Some("Bücher ✓"); 2]);
    }
}

/// A session that was idle for too long in its transaction.
async fn a_session_that_the_server_ends_in_the_body_leaves_a_free_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let ledger = with(&shop.db, 2, "set session wait_timeout = 1");
    for payload in [false, true] {
        let call = ledger.call(shop_key("a"));
        let answer = call.run_with_events(async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "a").await?;
            eventually(SOON, async || match shop.db.busy_sessions().await {
                0 => Ok(()),
                busy => Err(format!("{busy} sessions are busy")),
            })
            .await;
            let emit = Emit::new(());
            Ok::<_, ShopError>(match payload {
                true => emit.event(OrderPlaced::of("a")),
                false => emit,
            })
        });
        let answer = answer.await;
        assert!(
            answer.is_err_and(|failure| failure.is_retryable()),
            "{payload}"
        );
        assert_eq!(shop.stored().await, (0, 0, 0));
    }
    shop.assert_free("a").await;
}

/// Seconds from now, by the server's clock, of every time that a call writes.
const TIMES: &str = "select cast(max(abs(off)) as signed) from (\
    select timestampdiff(second, utc_timestamp(6), created_at) as off from effectively_claims union all \
    select timestampdiff(second, utc_timestamp(6), expires_at) - 86400 from effectively_claims union all \
    select timestampdiff(second, utc_timestamp(6), created_at) from effectively_outbox union all \
    select timestampdiff(second, utc_timestamp(6), available_at) from effectively_outbox) as times";

const CLOCKS: [&str; 3] = [
    "set timestamp = 1000000000",
    "set timestamp = 2000000000",
    "set time_zone = '+05:30', timestamp = 2000000000",
];

async fn a_clock_that_a_session_has_set_moves_no_time_of_ours<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for clock in CLOCKS {
        let ledger = with(&shop.db, 1, clock);
        for literals in [false, true] {
            let here = Ledger::builder(ledger.pool().clone())
                .retention(Duration::from_secs(86_400))
                .payload_literals(literals)
                .build()
                .expect("a ledger");
            let first = order_on(&here, &shop.runs, "a", Duration::ZERO).await;
            assert!(!first.expect("an answer").is_replay());
            assert!(shop.db.number(TIMES).await < 60, "{clock}");
            let again = order_on(&here, &shop.runs, "a", Duration::ZERO).await;
            assert!(again.expect("an answer").is_replay(), "{clock}");
            // Another pool: a relay puts the clock of a session right, and here it must not have been there before.
            assert_eq!(with(&shop.db, 1, clock).purge().await.expect("a purge"), 0);
            let due = with(&shop.db, 1, clock).outbox().peek(10).await;
            assert_eq!(due.expect("what is due").len(), 1, "{clock}");
            let again = order_on(&with(&shop.db, 1, clock), &shop.runs, "a", Duration::ZERO).await;
            assert!(again.expect("an answer").is_replay(), "{clock}");
            assert_eq!(published(&shop, &with(&shop.db, 3, clock), 1).await, 1);
            let leases = "select count(*) from effectively_leases where expires_at > utc_timestamp(6) + interval 1 hour";
            assert_eq!(shop.db.number(leases).await, 0, "{clock}");
            // An expired key is free, whatever the session's clock says.
            shop.expire().await;
            let next = order_on(&with(&shop.db, 1, clock), &shop.runs, "a", Duration::ZERO).await;
            assert!(!next.expect("an answer").is_replay(), "{clock}");
            shop.db
                .execute("delete from effectively_claims; delete from effectively_outbox")
                .await;
        }
    }
}

async fn a_clock_that_a_body_sets_moves_no_time_of_ours<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (n, clock) in CLOCKS.into_iter().enumerate() {
        for literals in [false, true] {
            let ledger = Ledger::builder(shop.db.pool_with(1, None))
                .retention(Duration::from_secs(86_400))
                .payload_literals(literals)
                .build()
                .expect("a ledger");
            let sets = ledger.call(shop_key(&format!("sets {n} {literals}")));
            let sets = sets.run_with_events(async |tx: &mut DB::Connection| {
                DB::execute(tx, clock).await?;
                Ok::<_, ShopError>(Emit::new(()).event(OrderPlaced::of("a")))
            });
            sets.await.expect("an answer");
            let next = format!("next {n} {literals}");
            let next = order_on(&ledger, &shop.runs, &next, Duration::ZERO).await;
            next.expect("an answer");
            assert!(shop.db.number(TIMES).await < 60, "{clock}");
        }
    }
}

const UNCOMMITTED: &str = "set session transaction isolation level read uncommitted";

async fn a_session_that_may_read_what_is_not_committed_replays_nothing_of_it<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("an answer");
    // As a call leaves its row between the fence and COMMIT.
    shop.db
        .execute(
            "create table kept as select * from effectively_claims; delete from effectively_claims",
        )
        .await;
    let mut open = shop.db.admin().begin().await.expect("a transaction");
    DB::execute(
        &mut open,
        "insert into effectively_claims select * from kept",
    )
    .await
    .expect("a row that is not committed");
    let ledger = with(&shop.db, 4, UNCOMMITTED);
    let ask = async || {
        let call = ledger.call(shop_key("a")).wait(Duration::ZERO);
        crate::shop::place(call, &shop.runs, "a", async { Ok(()) }).await
    };
    assert_eq!(kind(&ask().await), Some(ErrorKind::InFlight));
    open.commit().await.expect("a commit");
    assert!(ask().await.expect("an answer").is_replay());
    // The ledger knows the key now, and looks it up first.
    let mut open = shop.db.admin().begin().await.expect("a transaction");
    DB::execute(&mut open, "update effectively_claims set outcome = null")
        .await
        .expect("a change that is not committed");
    assert!(!matches!(kind(&ask().await), Some(ErrorKind::Interrupted)));
    open.rollback().await.expect("a rollback");
    assert!(ask().await.expect("an answer").is_replay());
}

async fn a_session_that_may_read_what_is_not_committed_publishes_nothing_of_it<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.order("committed").await.expect("an answer");
    let columns =
        "event_id, topic, type, partition_key, partition_no, data, created_at, available_at";
    shop.db
        .execute("create table kept as select * from effectively_outbox")
        .await;
    let mut open = shop.db.admin().begin().await.expect("a transaction");
    let copy = format!("insert into effectively_outbox ({columns}) select {columns} from kept");
    for _ in 0..2 {
        DB::execute(&mut open, &copy)
            .await
            .expect("rows that are not committed");
    }
    let ledger = with(&shop.db, 5, UNCOMMITTED);
    assert_eq!(ledger.outbox().pending().await.expect("a count"), 1);
    assert_eq!(ledger.outbox().peek(10).await.expect("events").len(), 1);
    assert_eq!(ledger.outbox().backlog().await.expect("a backlog").due, 1);
    assert_eq!(published(&shop, &ledger, 1).await, 1);
    open.rollback().await.expect("a rollback");
}

async fn a_time_limit_for_statements_ends_a_wait_as_in_flight<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let limit = if is_mariadb(&shop.db.texts("select version()").await.concat()) {
        "set session max_statement_time = 0.3"
    } else {
        "set session max_execution_time = 300"
    };
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let elsewhere = with(&shop.db, 4, limit);
    let call = elsewhere.call(shop_key("a")).wait(Duration::from_secs(1));
    let duplicate = crate::shop::place(call, &shop.runs, "a", async { Ok(()) }).await;
    assert_eq!(kind(&duplicate), Some(ErrorKind::InFlight), "{duplicate:?}");
    held.finish().await.expect("an answer");
    let replay = order_on(&elsewhere, &shop.runs, "a", Duration::ZERO).await;
    assert!(replay.expect("an answer").is_replay());
}

/// The codes by which our own fence fails. Raised by somebody else they say nothing of the transaction.
async fn an_error_that_a_trigger_raises_in_the_fence_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for table in [
        "insert on effectively_outbox",
        "update on effectively_claims",
    ] {
        for code in [1305, 1242, 1792, 1100] {
            for literals in [false, true] {
                let trigger = format!(
                    "create trigger audit before {table} for each row signal sqlstate '45000' set mysql_errno = {code}"
                );
                shop.db.execute(&trigger).await;
                let ledger = Ledger::builder(shop.db.pool().clone())
                    .payload_literals(literals)
                    .build()
                    .expect("a ledger");
                let answer = order_on(&ledger, &shop.runs, "a", Duration::ZERO).await;
                let kind = kind(&answer);
                let expected = match code {
                    1792 | 1100 => ErrorKind::Unavailable,
                    _ => ErrorKind::Database,
                };
                assert_eq!(kind, Some(expected), "{table} {code} {literals}");
                assert_eq!(shop.stored().await, (0, 0, 0));
                shop.db.execute("drop trigger audit").await;
                shop.assert_free("a").await;
                shop.assert_healthy().await;
                shop.db
                    .execute("delete from orders; delete from effectively_claims; delete from effectively_outbox")
                    .await;
            }
        }
    }
}

/// What a former primary, a node outside of its cluster, a server that shuts down and one with `binlog_format = STATEMENT` answer to
/// a claim.
async fn a_server_that_cannot_write_is_unavailable<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (state, code) in [
        ("HY000", 1290),
        ("HY000", 1836),
        ("08S01", 1047),
        ("08S01", 1053),
        ("70100", 1927),
        ("08006", 1644),
        ("HY000", 1665),
    ] {
        let trigger = format!(
            "create trigger refuses before insert on effectively_claims for each row signal sqlstate '{state}' set mysql_errno = {code}"
        );
        shop.db.execute(&trigger).await;
        let answer = shop.order("a").await;
        let expected = match code {
            1665 => ErrorKind::StatementBinlog,
            _ => ErrorKind::Unavailable,
        };
        assert_eq!(kind(&answer), Some(expected), "{code}: {answer:?}");
        shop.db.execute("drop trigger refuses").await;
        shop.assert_healthy().await;
    }
    shop.assert_free("a").await;
}

/// After a failover the sessions of a pool lead to the former primary, and new ones to the new.
async fn a_connection_to_a_server_that_cannot_write_is_replaced<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    for reuse in [false, true] {
        shop.ledger = Ledger::builder(shop.db.pool_with(3, None))
            .reuse_connections(reuse)
            .build()
            .expect("a ledger");
        let mut former = Vec::new();
        for _ in 0..3 {
            former.push(shop.ledger.pool().acquire().await.expect("a connection"));
        }
        let mut ids = Vec::new();
        for connection in &mut former {
            let id = DB::number(connection, "select cast(connection_id() as signed)").await;
            ids.push(id.expect("a session's number").to_string());
        }
        drop(former);
        let refuses = format!(
            "create trigger refuses before insert on effectively_claims for each row \
             if connection_id() in ({}) then signal sqlstate 'HY000' set mysql_errno = 1290; end if",
            ids.join(",")
        );
        shop.db.execute(&refuses).await;
        for key in ["a", "b", "c"] {
            let answer = shop.order(&format!("{key} {reuse}")).await;
            assert!(!answer.expect("an answer").is_replay());
        }
        shop.db.execute("drop trigger refuses").await;
    }
}

async fn pragmas_of_foreign_keys_in_a_body_do_not_meet_the_gate<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let pragmas = [
        "pragma foreign_key_check(orders)",
        "pragma foreign_key_check",
        "pragma defer_foreign_keys = on",
        "pragma defer_foreign_keys = on; pragma defer_foreign_keys = off",
        "pragma foreign_keys = off",
    ];
    for pragma in pragmas {
        let call = shop.ledger.call(shop_key(pragma));
        let answer = call.run_with_events(async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "a").await?;
            DB::execute(tx, pragma).await?;
            Ok::<_, ShopError>(Emit::new(()).event(OrderPlaced::of("a")))
        });
        assert!(!answer.await.expect("an answer").is_replay(), "{pragma}");
    }
    let checked = shop
        .ledger
        .run(shop_key("check"), async |tx: &mut DB::Connection| {
            let wrong = "select count(*) from pragma_foreign_key_check where \"table\" not like 'effectively_%'";
            Ok::<_, ShopError>(DB::number(tx, wrong).await?)
        });
    let checked = checked.await.expect("an answer").into_result();
    assert_eq!(checked.expect("a response"), 0);
    shop.assert_healthy().await;
}

async fn a_pragma_that_stays_costs_its_connection_and_no_later_call<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    for reuse in [false, true] {
        shop.ledger = Ledger::builder(shop.db.pool_with(1, None))
            .reuse_connections(reuse)
            .build()
            .expect("a ledger");
        for pragma in ["pragma query_only = on", "pragma foreign_keys = off"] {
            let mut connection = shop.ledger.pool().acquire().await.expect("a connection");
            DB::execute(&mut connection, pragma)
                .await
                .expect("a pragma");
            drop(connection);
            let next = shop.order(&format!("{pragma} {reuse}")).await;
            assert!(!next.expect("the next call").is_replay());
            shop.assert_healthy().await;
        }
        let body = async |tx: &mut DB::Connection| {
            DB::execute(tx, "pragma query_only = on").await?;
            Ok::<_, ShopError>(())
        };
        let key = format!("body {reuse}");
        assert!(shop.ledger.run(shop_key(&key), body).await.is_err());
        shop.assert_free(&key).await;
        let next = shop.order(&format!("after the body {reuse}")).await;
        assert!(!next.expect("the next call").is_replay());
    }
}

async fn an_error_that_a_trigger_raises_in_the_fence_is_not_taken_for_a_lost_transaction<
    DB: ShopDb,
>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.db
        .execute(
            "create trigger audit before insert on effectively_outbox \
             begin select raise(abort, 'no such savepoint: effectively'); end",
        )
        .await;
    assert_eq!(kind(&shop.order("a").await), Some(ErrorKind::Database));
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.db.execute("drop trigger audit").await;
    shop.assert_free("a").await;
}
