//! What sessions, servers and tenants of PostgreSQL set, leave behind or share moves neither a claim nor what is committed with it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use effectively::{Emit, ErrorKind, Failure, Isolation, KeyState, Ledger};
use effectively_tests::{TestDb, eventually, is_given, on_every_database};
use sqlx::pool::PoolOptions;
use sqlx::{Connection, Pool};
use tokio::time::timeout;

use crate::held::Held;
use crate::shop::{OrderPlaced, SOON, Shop, ShopDb, ShopError, insert, kind, order_on, shop_key};

/// A pool whose sessions begin with this statement.
fn pool_that_begins_with<DB: ShopDb>(db: &TestDb<DB>, max: u32, sql: &'static str) -> Pool<DB> {
    let options = PoolOptions::new().max_connections(max);
    let options = options.after_connect(move |conn, _| {
        Box::pin(async move { DB::execute(conn, sql).await.map(drop) })
    });
    db.pool_from(options, None)
}

/// The three ways in which a call ends: bound, as text, and without anything to record.
fn ledgers<DB: ShopDb>(pool: &Pool<DB>) -> [Ledger<DB>; 2] {
    [false, true].map(|literals| {
        let ledger = Ledger::builder(pool.clone()).payload_literals(literals);
        ledger.build().expect("a ledger")
    })
}

async fn forget<DB: ShopDb>(shop: &Shop<DB>) {
    for table in ["orders", "effectively_claims", "effectively_outbox"] {
        shop.db.execute(&format!("delete from {table}")).await;
    }
}

on_every_database!([postgres]
    what_is_written_after_a_dropped_savepoint_is_refused,
    a_dropped_savepoint_and_a_client_that_hangs_up_leave_a_free_key,
    a_dropped_savepoint_does_not_let_a_second_charge_in,
    a_nested_savepoint_that_is_dropped_takes_no_other_write_along,
);

/// What `timeout` and `select!` do with a savepoint: it is sent, and dropped before the server has answered.
async fn begins_and_drops<C: Connection>(tx: &mut C) {
    loop {
        let mut begin = pin!(tx.begin());
        match poll_fn(|context| Poll::Ready(begin.as_mut().poll(context))).await {
            Poll::Pending => return,
            // The answer came at once: again.
            Poll::Ready(inner) => inner.expect("a savepoint").commit().await.expect("its end"),
        }
    }
}

async fn what_is_written_after_a_dropped_savepoint_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (key, passes_on) in [("a", true), ("b", false)] {
        let body = async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "before").await?;
            begins_and_drops(tx).await;
            let late = insert::<DB>(tx, "after").await;
            let own = tx.begin().await;
            if let Ok(mut own) = own {
                assert!(insert::<DB>(&mut own, "own").await.is_err());
            }
            assert!(late.is_err(), "a write outside of the transaction");
            if passes_on {
                late?;
            }
            Ok::<_, ShopError>(())
        };
        let answer = shop.ledger.run(shop_key(key), body).await;
        assert_eq!(kind(&answer), Some(ErrorKind::TransactionLost));
        assert_eq!(shop.orders().await, 0);
        shop.assert_interrupted(key).await;
        shop.assert_healthy().await;
        forget(&shop).await;
    }
}

async fn a_dropped_savepoint_and_a_client_that_hangs_up_leave_a_free_key<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let body = async |tx: &mut DB::Connection| {
        begins_and_drops(tx).await;
        assert!(insert::<DB>(tx, "after").await.is_err());
        std::future::pending::<()>().await;
        Ok::<_, ShopError>(())
    };
    let call = shop.ledger.run(shop_key("a"), body);
    assert!(timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!(shop.orders().await, 0);
    shop.assert_free("a").await;
    shop.assert_healthy().await;
}

async fn a_dropped_savepoint_does_not_let_a_second_charge_in<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (begun, in_body) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "charge").await?;
        begun.take().map(|begun| begun.send(()));
        tokio::time::sleep(Duration::from_millis(100)).await;
        begins_and_drops(tx).await;
        let _ = insert::<DB>(tx, "charge").await;
        Ok::<_, ShopError>(())
    };
    let elsewhere = shop.elsewhere();
    let second = async {
        in_body.await.expect("the first is in its body");
        let second = elsewhere.call(shop_key("a")).wait(Duration::from_secs(5));
        let body = async |tx: &mut DB::Connection| insert::<DB>(tx, "charge").await;
        second.run(body).await.map(drop).map_err(|_| ())
    };
    let (first, second) = tokio::join!(shop.ledger.run(shop_key("a"), body), second);
    assert_eq!(kind(&first), Some(ErrorKind::TransactionLost));
    assert_eq!(shop.orders().await, i64::from(second.is_ok()));
}

/// The inner one ends the outer savepoint only; sqlx then takes the outer one's end for ours, and the gate refuses it.
async fn a_nested_savepoint_that_is_dropped_takes_no_other_write_along<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let body = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "before").await?;
        let mut outer = tx.begin().await?;
        insert::<DB>(&mut outer, "outer").await?;
        begins_and_drops(&mut *outer).await;
        let _ = insert::<DB>(&mut outer, "late").await;
        let _ = outer.commit().await;
        let _ = insert::<DB>(tx, "after").await;
        Ok::<_, ShopError>(())
    };
    let answer = shop.ledger.run(shop_key("a"), body).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(shop.orders().await, 0);
    shop.assert_healthy().await;
}

on_every_database!([postgres]
    a_body_that_makes_its_transaction_read_only_frees_the_key,
    a_body_that_gives_up_its_rights_frees_the_key,
    a_session_that_is_read_only_is_replaced,
    a_pool_of_a_former_primary_is_replaced_at_the_first_call,
    a_transaction_that_a_borrower_has_left_open_is_not_committed,
    a_commit_that_the_server_refuses_costs_no_connection,
);

async fn a_transaction_that_a_borrower_has_left_open_is_not_committed<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    for (n, left) in [
        "begin; insert into orders values ('half')",
        "begin; select 1 / 0",
    ]
    .iter()
    .enumerate()
    {
        let mut conn = shop.ledger.pool().acquire().await.expect("a connection");
        // sqlx knows nothing of it.
        let _ = DB::execute(&mut conn, left).await;
        drop(conn);
        shop.order(&n.to_string()).await.expect("an order");
    }
    let half = "select count(*) from orders where item = 'half'";
    assert_eq!(shop.db.number(half).await, 0);
    assert_eq!(shop.orders().await, 2);
}

async fn a_commit_that_the_server_refuses_costs_no_connection<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let session = async |ledger: &Ledger<DB>| {
        let mut conn = ledger.pool().acquire().await.expect("a connection");
        DB::number(&mut conn, "select pg_backend_pid()::bigint")
            .await
            .expect("a number")
    };
    shop.db.execute("create function refuses() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$; \
         create constraint trigger refuses after insert on orders deferrable initially deferred for each row execute function refuses()").await;
    for literals in [false, true] {
        let ledger = Ledger::builder(shop.db.pool_with(1, None)).payload_literals(literals);
        let ledger = ledger.build().expect("a ledger");
        let first = session(&ledger).await;
        let body = async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "a").await?;
            Ok::<_, ShopError>(String::from("x"))
        };
        assert!(ledger.run(shop_key("a"), body).await.is_err());
        assert_eq!(session(&ledger).await, first);
        let mut conn = ledger.pool().acquire().await.expect("a connection");
        DB::execute(
            &mut conn,
            "create temp table writable (n int); drop table writable",
        )
        .await
        .expect("a write");
    }
}

async fn a_body_that_makes_its_transaction_read_only_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for ledger in ledgers(shop.db.pool()) {
        let body = async |tx: &mut DB::Connection| {
            DB::execute(tx, "set transaction read only").await?;
            Ok::<_, ShopError>(Emit::new(String::from("x")).event(OrderPlaced::of("a")))
        };
        let answer = ledger.call(shop_key("a")).run_with_events(body).await;
        assert_eq!(kind(&answer), Some(ErrorKind::TransactionReadOnly));
        assert_eq!(shop.stored().await, (0, 0, 0));
        shop.assert_free("a").await;
        shop.assert_healthy().await;
        forget(&shop).await;
    }
}

async fn a_body_that_gives_up_its_rights_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for ledger in ledgers(shop.db.pool()) {
        let body = async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "a").await?;
            DB::execute(tx, "set local role pg_monitor").await?;
            Ok::<_, ShopError>(Emit::new(String::from("x")).event(OrderPlaced::of("a")))
        };
        let answer = ledger.call(shop_key("a")).run_with_events(body).await;
        assert!(matches!(answer, Err(Failure::Toolkit(_))), "{answer:?}");
        assert_eq!(shop.stored().await, (0, 0, 0));
        shop.assert_free("a").await;
        shop.assert_healthy().await;
        forget(&shop).await;
    }
}

async fn a_session_that_is_read_only_is_replaced<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    let left = [
        "set session characteristics as transaction read only",
        "set default_transaction_read_only = on",
    ];
    for sql in left {
        let body = async |tx: &mut DB::Connection| {
            DB::execute(tx, sql).await?;
            Ok::<_, ShopError>(())
        };
        shop.ledger.run(shop_key(sql), body).await.expect("a call");
        shop.order(&format!("after {sql}")).await.expect("an order");
        let mut conn = shop.ledger.pool().acquire().await.expect("a connection");
        DB::execute(&mut conn, sql).await.expect("a setting");
        drop(conn);
        let borrowed = shop.order(&format!("borrowed {sql}")).await;
        borrowed.expect("an order");
    }
    assert_eq!(shop.orders().await, 4);
}

/// Sessions opened before the failover are read-only, those opened after it are not.
async fn a_pool_of_a_former_primary_is_replaced_at_the_first_call<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let former = Arc::new(AtomicBool::new(true));
    let is_former = Arc::clone(&former);
    let options = PoolOptions::<DB>::new()
        .min_connections(4)
        .max_connections(4);
    let options = options.after_connect(move |conn, _| {
        let former = is_former.load(Ordering::SeqCst);
        Box::pin(async move {
            if former {
                DB::execute(conn, "set default_transaction_read_only = on").await?;
            }
            Ok(())
        })
    });
    let ledger = Ledger::new(shop.db.pool_from(options, None));
    let refused = order_on(&ledger, &shop.runs, "a", Duration::ZERO).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Unavailable));
    assert_eq!(shop.orders().await, 0);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(ledger.pool().acquire().await.expect("a connection"));
    }
    drop(held);
    eventually(SOON, async || ledger.pool().num_idle() == 4).await;
    former.store(false, Ordering::SeqCst);
    let answer = order_on(&ledger, &shop.runs, "a", Duration::ZERO).await;
    assert!(!answer.expect("an order").is_replay());
}

on_every_database!([postgres]
    nothing_depends_on_how_the_server_reads_and_writes_bytes,
    a_session_may_have_a_limit_on_statements_that_is_shorter_than_a_wait,
    a_session_that_the_server_ends_while_the_body_works_is_told_to_come_back,
    an_error_that_the_application_raises_at_commit_is_not_taken_for_ours,
    the_same_key_of_two_tenants_is_two_keys,
);

on_every_database!([postgres] calls_add_no_statement_to_the_statistics_of_the_server);

/// Before version 17 the constants of CALL and SET are part of a statement's text: each call would be a statement of its own.
async fn calls_add_no_statement_to_the_statistics_of_the_server<DB: ShopDb>(db: TestDb<DB>) {
    let preloaded = db.texts("show shared_preload_libraries").await.concat();
    let preloaded = preloaded.contains("pg_stat_statements");
    if !is_given(preloaded, "the server preloads no pg_stat_statements") {
        return;
    }
    let shop = Shop::open(db).await;
    shop.db.execute("create extension pg_stat_statements").await;
    let statements = async || {
        let ours = "select count(*) from pg_stat_statements where dbid = \
             (select oid from pg_database where datname = current_database())";
        shop.db.number(ours).await
    };
    let calls = async |from: usize| {
        for (form, ledger) in ledgers(shop.db.pool()).iter().enumerate() {
            for n in from..from + 5 {
                let key = format!("{form} {n}");
                let call = || ledger.call(shop_key(&key));
                let body = async |tx: &mut DB::Connection| {
                    insert::<DB>(tx, "a").await?;
                    Ok::<_, ShopError>(Emit::new(String::from("x")).event(OrderPlaced::of("a")))
                };
                let fails = async |_: &mut DB::Connection| Err::<(), _>(ShopError::GaveUp);
                assert!(call().run(fails).await.is_err());
                call().run_with_events(body).await.expect("an answer");
                let replay = Ledger::new(shop.db.pool().clone());
                let replay = replay.call(shop_key(&key)).run_with_events(body).await;
                assert!(replay.expect("an answer").is_replay());
            }
        }
    };
    calls(0).await;
    let before = statements().await;
    calls(5).await;
    // Two of the test's own.
    let more = statements().await - before;
    assert!(more <= 2, "{more} statements more");
}

async fn nothing_depends_on_how_the_server_reads_and_writes_bytes<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let odd = "set bytea_output = 'escape'; set standard_conforming_strings = off; set escape_string_warning = off; \
               set default_transaction_isolation = 'serializable'; set timezone = 'Pacific/Chatham'; set datestyle = 'german'; \
               set intervalstyle = 'sql_standard'; set default_transaction_deferrable = on";
    let odd = pool_that_begins_with(&shop.db, 4, odd);
    for (n, ledger) in ledgers(&odd).iter().enumerate() {
        for isolation in [Isolation::ReadCommitted, Isolation::Serializable] {
            let key = format!("{n} {isolation:?}");
            let call = async |ledger: &Ledger<DB>| {
                let call = ledger.call(shop_key(&key)).isolation(isolation);
                let call = call.fingerprint(&key).expect("a fingerprint");
                let body = async |tx: &mut DB::Connection| {
                    insert::<DB>(tx, "a").await?;
                    let answer = String::from("\\ \u{0} ' é");
                    Ok::<_, ShopError>(Emit::new(answer).event(OrderPlaced::of("\\x27 'é")))
                };
                let answer = call.run_with_events(body).await.expect("an answer");
                (answer.is_replay(), answer.into_result().expect("its text"))
            };
            let first = call(ledger).await;
            assert!(!first.0);
            for other in [ledger, &Ledger::new(odd.clone()), &shop.elsewhere()] {
                assert_eq!(call(other).await, (true, first.1.clone()));
                let state = other.state_of(&shop_key(&key)).await.expect("a state");
                assert!(matches!(state, KeyState::Complete { .. }), "{state:?}");
            }
        }
    }
    let events = shop.drain().await;
    let keys = events.iter().map(|event| event.partition_key.as_deref());
    assert!(keys.eq([Some("\\x27 'é"); 4]), "{events:?}");
}

async fn a_session_may_have_a_limit_on_statements_that_is_shorter_than_a_wait<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let brief = pool_that_begins_with(&shop.db, 4, "set statement_timeout = '150ms'");
    let ledger = Ledger::new(brief);
    let body = async |tx: &mut DB::Connection| insert::<DB>(tx, "b").await;
    let call = ledger.call(shop_key("a")).wait(Duration::from_millis(900));
    assert_eq!(kind(&call.run(body).await), Some(ErrorKind::InFlight));
    // The limit is the body's again.
    let slow = async |tx: &mut DB::Connection| {
        DB::execute(tx, "select pg_sleep(2)").await?;
        Ok::<_, ShopError>(())
    };
    let cancelled = ledger.run(shop_key("slow"), slow).await;
    assert!(matches!(cancelled, Err(Failure::Handler(_))));
    held.finish().await.expect("an answer");
}

async fn a_session_that_the_server_ends_while_the_body_works_is_told_to_come_back<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let brief = "set idle_in_transaction_session_timeout = '50ms'";
    let brief = pool_that_begins_with(&shop.db, 4, brief);
    for ledger in ledgers(&brief) {
        let body = async |tx: &mut DB::Connection| {
            insert::<DB>(tx, "a").await?;
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok::<_, ShopError>(String::from("x"))
        };
        let answer = ledger.run(shop_key("a"), body).await;
        match answer {
            Err(Failure::Toolkit(error)) => assert!(error.is_retryable(), "{error:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(shop.stored().await, (0, 0, 0));
        shop.assert_free("a").await;
        forget(&shop).await;
    }
}

/// A deferred trigger may raise any SQLSTATE in the message that commits, ours and those that we read a meaning from as well.
async fn an_error_that_the_application_raises_at_commit_is_not_taken_for_ours<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    for code in [
        "ZE001", "ZE002", "22P02", "25P02", "25P01", "3B001", "25006", "23503", "42501",
    ] {
        let refuses = format!(
            "create or replace function refuses() returns trigger language plpgsql as $$ begin \
             raise exception 'no' using errcode = '{code}'; end $$"
        );
        shop.db.execute(&refuses).await;
        shop.db
            .execute(
                "create constraint trigger refuses after insert on orders deferrable initially deferred \
                 for each row execute function refuses()",
            )
            .await;
        for ledger in ledgers(shop.db.pool()) {
            let body = async |tx: &mut DB::Connection| {
                insert::<DB>(tx, "a").await?;
                Ok::<_, ShopError>(())
            };
            let with_payload = async |tx: &mut DB::Connection| {
                insert::<DB>(tx, "a").await?;
                Ok::<_, ShopError>(Emit::new(String::from("x")).event(OrderPlaced::of("a")))
            };
            let one = ledger.run(shop_key("a"), body).await.map(drop);
            let other = ledger.call(shop_key("a")).run_with_events(with_payload);
            for answer in [one, other.await.map(drop)] {
                let found = kind(&answer);
                assert!(
                    found.is_some() && found != Some(ErrorKind::TransactionLost),
                    "{code}: {answer:?}"
                );
            }
            assert_eq!(shop.stored().await, (0, 0, 0), "{code}");
        }
        shop.db.execute("drop trigger refuses on orders").await;
        shop.assert_free("a").await;
        shop.assert_healthy().await;
        forget(&shop).await;
    }
}

async fn the_same_key_of_two_tenants_is_two_keys<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let held = Held::by(&shop.ledger, &shop.runs, "a", "").await;
    let tenants = [
        Ledger::builder(shop.db.pool().clone()).schema("tenant"),
        Ledger::builder(shop.db.pool().clone()).table_prefix("tenant_"),
    ];
    for tenant in tenants {
        let tenant = tenant.build().expect("a ledger");
        tenant.migrate().await.expect("the tables of the tenant");
        let call = tenant.call(shop_key("a")).wait(Duration::ZERO);
        let body = async |tx: &mut DB::Connection| insert::<DB>(tx, "b").await;
        call.run(body).await.expect("a key of its own");
    }
    held.finish().await.expect("an answer");
}
