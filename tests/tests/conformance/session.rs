//! I8: a connection goes back to the pool as it came, whatever the call's end was, and the body runs under the session's settings.

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, is_mariadb, on_every_database};

use crate::shop::{Shop, ShopDb, ShopError, insert, kind, order_on, shop_key};

on_every_database!(
    a_pool_of_one_serves_on_after_every_end_of_a_call,
    a_call_leaves_no_setting_behind,
);
on_every_database!([mysql] a_body_waits_for_locks_as_long_as_its_session_says);

/// The number of the session, as its server counts.
async fn session<DB: ShopDb>(ledger: &Ledger<DB>) -> i64 {
    let sql = match DB::NAME {
        "PostgreSQL" => "select pg_backend_pid()::bigint",
        "MySQL" => "select cast(connection_id() as signed)",
        _ => "select 0",
    };
    let mut connection = ledger.pool().acquire().await.expect("a connection");
    DB::number(&mut connection, sql).await.expect("a number")
}

async fn a_pool_of_one_serves_on_after_every_end_of_a_call<DB: ShopDb>(db: TestDb<DB>) {
    let mut shop = Shop::open(db).await;
    shop.ledger = Ledger::new(shop.db.pool_with(1, None));
    let first = session(&shop.ledger).await;
    let gives_up = async |tx: &mut DB::Connection| {
        insert::<DB>(tx, "a").await?;
        Err::<(), _>(ShopError::GaveUp)
    };
    for n in 0..5 {
        assert!(shop.ledger.run(shop_key("a"), gives_up).await.is_err());
        // An error that the body passes on, after which the transaction is aborted on Postgres.
        let wrong = async |tx: &mut DB::Connection| {
            DB::execute(tx, "insert into nowhere values (1)").await?;
            Ok::<_, ShopError>(())
        };
        assert!(shop.ledger.run(shop_key("a"), wrong).await.is_err());
        let key = format!("good {n}");
        assert!(!shop.order(&key).await.expect("an answer").is_replay());
        assert!(shop.order(&key).await.expect("a replay").is_replay());
        let held = order_on(&shop.elsewhere(), &shop.runs, &key, Default::default()).await;
        assert!(held.expect("a replay").is_replay());
        shop.assert_healthy().await;
    }
    // None of these ends costs a connection.
    assert_eq!(session(&shop.ledger).await, first);
    assert_eq!(shop.ledger.pool().size(), 1);
    // This one does, and the pool opens the next.
    shop.interrupt("b").await;
    assert_eq!(kind(&shop.order("b").await), Some(ErrorKind::Interrupted));
    shop.assert_healthy().await;
    assert_eq!(shop.ledger.pool().size(), 1);
    assert_eq!(shop.stored().await, (5, 5, 6));
}

/// Everything that a call sets, as text.
async fn settings<DB: ShopDb>(db: &TestDb<DB>) -> &'static str {
    match DB::NAME {
        "PostgreSQL" => {
            "select concat_ws(' ', current_setting('lock_timeout'), current_setting('client_connection_check_interval'), \
             current_setting('transaction_isolation'), current_setting('default_transaction_read_only'), coalesce(nullif(current_setting('effectively.attempt', true), ''), 'none'))"
        }
        "MySQL" if is_mariadb(&db.texts("select version()").await.concat()) => {
            "select concat_ws(' ', @@session.autocommit, @@session.innodb_lock_wait_timeout, @@session.tx_isolation, @@session.tx_read_only)"
        }
        "MySQL" => {
            "select concat_ws(' ', @@session.autocommit, @@session.innodb_lock_wait_timeout, @@session.transaction_isolation, @@session.transaction_read_only)"
        }
        _ => "select foreign_keys || ' ' || timeout from pragma_foreign_keys, pragma_busy_timeout",
    }
}

async fn a_call_leaves_no_setting_behind<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let ledger = Ledger::new(shop.db.pool_with(1, None));
    let settings = settings(&shop.db).await;
    let look = async || {
        let mut connection = ledger.pool().acquire().await.expect("a connection");
        DB::texts(&mut connection, settings)
            .await
            .expect("settings")
    };
    let before = look().await;
    for key in ["a", "a", "b"] {
        let call = ledger
            .call(shop_key(key))
            .isolation(effectively::Isolation::Serializable);
        let answer = crate::shop::place(call, &shop.runs, key, async { Ok(()) }).await;
        answer.expect("an answer");
        assert_eq!(look().await, before);
    }
    let wrong = async |tx: &mut DB::Connection| {
        DB::execute(tx, "insert into nowhere values (1)").await?;
        Ok::<_, ShopError>(())
    };
    assert!(ledger.run(shop_key("c"), wrong).await.is_err());
    assert_eq!(look().await, before);
}

/// The second that a claim may wait for another one is over when the body begins.
async fn a_body_waits_for_locks_as_long_as_its_session_says<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let timeout = "select cast(@@session.innodb_lock_wait_timeout as signed)";
    let outside = shop.db.number(timeout).await;
    let inside = shop
        .ledger
        .run(shop_key("a"), async |tx: &mut DB::Connection| {
            Ok::<_, ShopError>(DB::number(tx, timeout).await?)
        })
        .await;
    let inside = inside.expect("an answer").into_result();
    assert_eq!(inside.expect("a response"), outside);
}
