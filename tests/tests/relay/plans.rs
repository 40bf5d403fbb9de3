//! The server plans the relay's statements once per session. A plan that was made while the outbox was small must not be one
//! that reads it from end to end: the outbox grows as soon as a sink is down.

use effectively_tests::{TestDb, on_every_database};
use sqlx::{Connection, PgConnection};

use crate::shop::{Shop, ShopDb};

on_every_database!([postgres]
    a_plan_made_on_an_empty_outbox_keeps_to_the_key_when_it_has_grown,
    no_plan_is_compiled,
);

const DUE: &str = "select count(*) from effectively_due('{5}', 10, 10, '{}', '{}')";
const SETTLE: &str = "select effectively_settle('00112233-4455-6677-8899-aabbccddeeff', '{5, 5}', '{1, 1}', '{6, 70}')";
/// Whole reads of the table in this transaction.
const WHOLE_READS: &str =
    "select seq_scan from pg_stat_xact_user_tables where relname = 'effectively_outbox'";
/// More than enough executions for the server to settle on a plan.
const USES: usize = 8;

async fn a_plan_made_on_an_empty_outbox_keeps_to_the_key_when_it_has_grown<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    let mut session = PgConnection::connect(shop.db.url())
        .await
        .expect("a session");
    // The smaller the table is known to be, the better a whole read of it looks.
    shop.numbers(&["small"], 0..1).await;
    shop.db.execute("vacuum analyze effectively_outbox").await;
    shop.db.execute("delete from effectively_outbox").await;
    for _ in 0..USES {
        assert_eq!(number(&mut session, DUE).await, 0);
        assert_eq!(number(&mut session, SETTLE).await, 0);
    }
    shop.db
        .execute(
            "insert into effectively_outbox (event_id, topic, type, partition_no, data) \
             select gen_random_uuid(), 'numbers', 'numbered.v1', n % 64, '' from generate_series(1, 20000) as n",
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
    assert_eq!(number(&mut session, DUE).await, 10);
    assert_eq!(number(&mut session, SETTLE).await, 2);
    assert_eq!(number(&mut session, WHOLE_READS).await, 0);
}

/// PostgreSQL compiles what its estimate calls dear, again in each run: of an outbox of three million events each read took four
/// times as long. Only time would show it, so this looks at what the functions are told.
async fn no_plan_is_compiled<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let told = "select proname::text from pg_proc where 'jit=off' = any (proconfig) order by 1";
    assert_eq!(
        shop.db.texts(told).await,
        ["effectively_due", "effectively_settle"]
    );
}

async fn number(session: &mut PgConnection, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement)
        .fetch_one(session)
        .await
        .expect("a number")
}
