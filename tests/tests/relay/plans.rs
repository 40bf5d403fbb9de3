//! The server plans the relay's statements once per session. A plan that was made while the outbox was small must not be one
//! that reads it from end to end: the outbox grows as soon as a sink is down. And what waits for its time may be much, too.

use std::time::Duration;

use effectively::sink::{Delivery, Memory};
use effectively::{Emit, Ledger, Route};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::{Connection, PgConnection, Pool};

use crate::shop::{Mail, Numbered, Running, SOON, Shop, ShopDb, brisk};

on_every_database!([postgres]
    a_plan_made_on_an_empty_outbox_keeps_to_the_key_when_it_has_grown,
    no_plan_is_compiled,
    a_look_at_the_first_events_does_not_read_all,
    a_relay_that_began_on_an_empty_outbox_does_not_read_all_for_a_refused_event,
    what_operators_ask_reads_none_of_the_keys_that_are_kept,
);
on_every_database!([postgres]
    a_drain_that_began_on_an_empty_outbox_does_not_read_all_for_each_event,
    a_purge_that_began_on_empty_tables_does_not_read_what_is_kept,
);
on_every_database!([postgres, mysql]
    a_relay_does_not_read_what_is_delayed_again_and_again,
    a_relay_does_not_read_what_waits_for_another_one_again_and_again,
);

const DUE: &str = "select count(*) from effectively_due('{5}', 10, 10, '{}', '{}')";
const READ_DUE: &str = "select count(*) from effectively_due('{5}', 10, 10, '{mail.%,%}', '{f,t}', '{mail.%,numbers}')";
const SETTLE: &str = "select effectively_settle('00112233-4455-6677-8899-aabbccddeeff', '{5, 5}', '{1, 1}', '{6, 70}')";
const KEEP: &str = "select effectively_settle_and_keep('00112233-4455-6677-8899-aabbccddeeff', '{5, 5}', '{1, 1}', '{134, 198}', 1000)";
/// By this session, since it last told the server: not before its transaction ends.
const READ: &str = "select sum(seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables \
     where relname in ('effectively_outbox', 'effectively_leases')";
/// More than enough executions for the server to settle on a plan.
const USES: usize = 8;

async fn a_plan_made_on_an_empty_outbox_keeps_to_the_key_when_it_has_grown<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let mut session = PgConnection::connect(shop.db.url())
        .await
        .expect("a session");
    // The smaller the tables are known to be, the better a whole read of them looks.
    shop.numbers(&["small"], 0..1).await;
    shop.db.execute("delete from effectively_outbox").await;
    shop.db.execute("vacuum analyze effectively_outbox").await;
    shop.db.execute("vacuum analyze effectively_leases").await;
    for _ in 0..USES {
        assert_eq!(number(&mut session, DUE).await, 0);
        assert_eq!(number(&mut session, READ_DUE).await, 0);
        assert_eq!(number(&mut session, SETTLE).await, 0);
        assert_eq!(number(&mut session, KEEP).await, 0);
    }
    shop.db
        .execute(
            "insert into effectively_outbox (event_id, topic, type, partition_key, partition_no, data) \
             select gen_random_uuid(), 'numbers', 'numbered.v1', case when n = 69 then '69' end, n % 64, '' \
             from generate_series(1, 20000) as n",
        )
        .await;
    // One of the first ten events of the partition stands behind one that waits, and there are many others that wait.
    shop.db
        .execute(
            "insert into effectively_outbox (event_id, topic, type, partition_key, partition_no, data, attempts) \
             select gen_random_uuid(), 'numbers', 'numbered.v1', n::text, -1 - n % 64, '', 1 from generate_series(1, 20000) as n",
        )
        .await;
    shop.db
        .execute(
            "update effectively_leases set holder = '00112233-4455-6677-8899-aabbccddeeff', epoch = 1, \
             expires_at = now() + interval '1 minute'",
        )
        .await;
    sqlx::raw_sql("begin")
        .execute(&mut session)
        .await
        .expect("a transaction");
    let before = number(&mut session, READ).await;
    assert_eq!(number(&mut session, DUE).await, 10);
    assert_eq!(number(&mut session, READ_DUE).await, 10);
    assert_eq!(number(&mut session, SETTLE).await, 2);
    assert_eq!(number(&mut session, KEEP).await, 2);
    // Twice ten events, one that stands behind another and that one, and, four times, an event with its lease.
    assert_eq!(number(&mut session, READ).await - before, 30);
}

/// PostgreSQL compiles what its estimate calls dear, again in each run: of an outbox of three million events each read took four
/// times as long. Only time would show it, so this looks at what the functions are told.
async fn no_plan_is_compiled<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let told = "select proname::text from pg_proc where 'jit=off' = any (proconfig) order by 1";
    assert_eq!(
        shop.db.texts(told).await,
        [
            "effectively_due",
            "effectively_due",
            "effectively_due_by_topic",
            "effectively_settle",
            "effectively_settle_and_keep"
        ]
    );
}

async fn a_relay_that_began_on_an_empty_outbox_does_not_read_all_for_a_refused_event<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    shop.numbers(&["small"], 0..1).await;
    shop.db.execute("delete from effectively_outbox").await;
    shop.db.execute("vacuum analyze effectively_outbox").await;
    let pool = shop.db.pool_with(1, None);
    let sink = Memory::new()
        .judged_by(|event| (event.attempts == 0).then(|| Delivery::rejected("not yet")));
    let route =
        Route::to(sink.clone()).backoff(Duration::from_millis(5), Duration::from_millis(10));
    let relay = Running::start(brisk(Ledger::new(pool.clone())).route("numbers", route));
    let one_more = async |number: u64| {
        shop.numbers(&["refused once"], number..number + 1).await;
        eventually(SOON, async || sink.len() as u64 > number).await;
    };
    for number in 0..USES as u64 {
        one_more(number).await;
    }
    shop.db
        .execute(
            "insert into effectively_outbox (event_id, topic, type, partition_no, data, available_at) \
             select gen_random_uuid(), 'numbers', 'numbered.v1', -1 - n % 64, '', now() + interval '1 hour' \
             from generate_series(1, 20000) as n",
        )
        .await;
    for number in USES as u64..USES as u64 + 3 {
        one_more(number).await;
    }
    relay.stop().await;
    let read = rows_read(&shop.db, pool).await;
    assert!(read < 20_000, "{read} rows were read");
}

async fn a_drain_that_began_on_an_empty_outbox_does_not_read_all_for_each_event<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let pool = shop.db.pool_with(1, None);
    let ledger = Ledger::new(pool.clone());
    for number in 0..USES as u64 {
        shop.numbers(&["small"], number..number + 1).await;
        shop.db.execute("vacuum analyze effectively_outbox").await;
        let drained = ledger.outbox().drain(async |_| Ok::<_, ()>(())).await;
        assert_eq!(drained.expect("an event"), 1);
    }
    fill(&shop).await;
    let mut left = 10;
    let outbox = ledger.outbox();
    let drained = outbox.drain(async |_| {
        left -= 1;
        if left == 0 { Err(()) } else { Ok(()) }
    });
    assert!(drained.await.is_err(), "all was drained");
    let read = rows_read(&shop.db, pool).await;
    // The batch of a hundred is read from all partitions.
    assert!(read < 20_000, "{read} rows were read");
}

async fn a_purge_that_began_on_empty_tables_does_not_read_what_is_kept<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let tables = ["effectively_claims", "effectively_published"];
    for table in tables {
        shop.db.execute(&format!("vacuum analyze {table}")).await;
    }
    let pool = shop.db.pool_with(1, None);
    let ledger = Ledger::new(pool.clone());
    let purge = async || {
        assert_eq!(ledger.purge().await.expect("a purge"), 0);
        let purged = ledger.outbox().purge_published().await;
        assert_eq!(purged.expect("a purge"), 0);
    };
    for _ in 0..USES {
        purge().await;
    }
    shop.db
        .execute(
            "insert into effectively_claims (id, scope, attempt, outcome, expires_at) \
             select sha256(n::text::bytea), 'orders', '\\x00', '\\x00', now() + interval '1 day' \
             from generate_series(1, 20000) as n",
        )
        .await;
    shop.db
        .execute(
            "insert into effectively_published (id, event_id, topic, type, partition_no, data, created_at, published_at, expires_at) \
             select n, gen_random_uuid(), 'numbers', 'numbered.v1', 0, '', now(), now(), now() + interval '1 day' \
             from generate_series(1, 20000) as n",
        )
        .await;
    purge().await;
    pool.close().await;
    for table in tables {
        let of = |what: &str| {
            format!("select {what} from pg_stat_user_tables where relname = '{table}'")
        };
        let looks = of("seq_scan + idx_scan");
        eventually(SOON, async || shop.db.number(&looks).await > USES as i64).await;
        let read = shop.db.number(&of("seq_tup_read + idx_tup_fetch")).await;
        assert!(read < 20_000, "{read} rows of {table} were read");
    }
}

async fn a_look_at_the_first_events_does_not_read_all<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.db.execute("analyze effectively_outbox").await;
    fill(&shop).await;
    let pool = shop.db.pool_with(1, None);
    let ledger = Ledger::new(pool.clone());
    let first = ledger.outbox().peek(3).await.expect("events");
    let places: Vec<i64> = first.iter().map(|event| event.outbox_id).collect();
    assert_eq!(places, [1, 2, 3]);
    pool.close().await;
    // Nobody else has read from it.
    let read = "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'effectively_outbox'";
    eventually(SOON, async || shop.db.number(read).await > 0).await;
    let read = shop.db.number(read).await;
    assert!(read <= 3 * 128, "{read} rows were read");
}

async fn what_operators_ask_reads_none_of_the_keys_that_are_kept<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let key = "sha256(n::text::bytea), 'orders', '\\x00'";
    let kept = format!(
        "insert into effectively_claims (id, scope, attempt, outcome, expires_at) \
         select {key}, '\\x00', now() + interval '1 day' from generate_series(1, 20000) as n"
    );
    shop.db.execute(&kept).await;
    let interrupted = format!(
        "insert into effectively_claims (id, scope, attempt, expires_at) select {key}, now() from generate_series(0, 0) as n"
    );
    shop.db.execute(&interrupted).await;
    shop.db.execute("vacuum analyze effectively_claims").await;
    let pool = shop.db.pool_with(1, None);
    let ledger = Ledger::new(pool.clone());
    let backlog = ledger.outbox().backlog().await.expect("a backlog");
    assert_eq!(backlog.interrupted_keys, 1);
    assert_eq!(ledger.interrupted().await.expect("a list").len(), 1);
    pool.close().await;
    // Its session tells all at once, and nobody else has looked at this table.
    let told =
        "select seq_scan + idx_scan from pg_stat_user_tables where relname = 'effectively_relays'";
    eventually(SOON, async || shop.db.number(told).await > 0).await;
    let read = "select seq_tup_read from pg_stat_user_tables where relname = 'effectively_claims'";
    assert_eq!(shop.db.number(read).await, 0);
}

async fn a_relay_does_not_read_what_is_delayed_again_and_again<DB: ShopDb>(db: TestDb<DB>) {
    const DELAYED: u64 = 3000;
    let shop = Shop::open(db).await;
    let delayed = (0..DELAYED).fold(Emit::new(()), |emission, number| {
        let event = Numbered::of(&format!("later {}", number % 100), number);
        emission.event_after(Duration::from_secs(3600), event)
    });
    shop.emit(delayed).await;
    let analyze = match DB::NAME {
        "PostgreSQL" => "analyze effectively_outbox",
        _ => "analyze table effectively_outbox",
    };
    shop.db.execute(analyze).await;

    // One session, which knows how much it has read.
    let pool = shop.db.pool_with(1, None);
    let sink = Memory::new();
    let relay = brisk(Ledger::new(pool.clone())).route("numbers", sink.clone());
    let relay = Running::start(relay);
    for number in 1..=10 {
        let event = Numbered::of("soon", number);
        let emission = Emit::new(()).event_after(Duration::from_millis(1), event);
        shop.emit(emission).await;
        eventually(SOON, async || sink.len() as u64 == number).await;
    }
    relay.stop().await;
    assert_eq!(shop.pending().await, DELAYED);
    let read = rows_read(&shop.db, pool).await;
    assert!(read < 5 * DELAYED, "{read} rows were read");
}

async fn a_relay_does_not_read_what_waits_for_another_one_again_and_again<DB: ShopDb>(
    db: TestDb<DB>,
) {
    const OTHERS: u64 = 20_000;
    let shop = Shop::open(db).await;
    let keys: Vec<String> = (0..100).map(|key| format!("key {key}")).collect();
    let mails = (0..OTHERS / 100).flat_map(|number| {
        let mail = move |key: &String| Mail(Numbered::of(key, number));
        keys.iter().map(mail)
    });
    shop.emit(Emit::new(()).events(mails)).await;
    // One session, which knows how much it has read.
    let pool = shop.db.pool_with(1, None);
    let sink = Memory::new();
    let relay = brisk(Ledger::new(pool.clone())).route("numbers", sink.clone());
    let relay = Running::start(relay.poll(Duration::from_millis(500)));
    for number in 0..40 {
        shop.numbers(&["ada"], number..number + 1).await;
        eventually(SOON, async || sink.len() as u64 == number + 1).await;
    }
    relay.stop().await;
    assert_eq!(shop.pending().await, OTHERS);
    let read = rows_read(&shop.db, pool).await;
    assert!(read < 10 * OTHERS, "{read} rows were read");
}

/// Places are given out in another order than partitions.
async fn fill<DB: ShopDb>(shop: &Shop<DB>) {
    let fill = "insert into effectively_outbox (event_id, topic, type, partition_no, data) \
         select gen_random_uuid(), 'numbers', 'numbered.v1', (n * 37) % 128 - 64, '' from generate_series(1, 20000) as n";
    shop.db.execute(fill).await;
}

/// By the only session of this pool.
async fn rows_read<DB: ShopDb>(db: &TestDb<DB>, pool: Pool<DB>) -> u64 {
    let read = match DB::NAME {
        "PostgreSQL" => {
            pool.close().await;
            let settled =
                "select n_tup_del from pg_stat_user_tables where relname = 'effectively_outbox'";
            eventually(SOON, async || db.number(settled).await >= 10).await;
            db.number("select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'effectively_outbox'")
                .await
        }
        _ => {
            // Without the searches for a beginning, of which each look makes one per partition.
            let there = "select count(*) from information_schema.tables \
                 where table_schema = 'information_schema' and table_name = 'session_status'";
            let schema = match db.number(there).await {
                0 => "performance_schema",
                _ => "information_schema",
            };
            let read = format!(
                "select cast(sum(variable_value) as signed) from {schema}.session_status \
                 where variable_name in ('handler_read_next', 'handler_read_rnd_next')"
            );
            let mut session = pool.acquire().await.expect("the session");
            DB::number(&mut session, &read).await.expect("a number")
        }
    };
    read.unsigned_abs()
}

async fn number(session: &mut PgConnection, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement)
        .fetch_one(session)
        .await
        .expect("a number")
}
