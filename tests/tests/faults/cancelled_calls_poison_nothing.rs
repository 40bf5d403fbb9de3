//! I8: a call may be dropped anywhere, as when a client hangs up. The next borrower of the connection must not pay for it.

use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, cancel_after, eventually, on_every_database, poll_times};
use sqlx::Pool;

use crate::marks::{Answer, BOUND, Body, Call, answered, open, order, settled};
use crate::shop::ShopDb;

on_every_database!(a_call_dropped_after_any_number_of_polls_leaves_no_trace);
on_every_database!([postgres, mysql] a_call_dropped_at_any_time_leaves_no_trace);
on_every_database!([postgres] a_statement_of_a_dropped_call_does_not_run_on);

async fn a_call_dropped_after_any_number_of_polls_leaves_no_trace<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    for (literals, reuse) in [(false, false), (true, false), (false, true)] {
        // Far enough away that each answer is waited for: else a busy machine finds it there at once.
        let proxy = DB::VARIABLE.is_some().then(|| db.proxy());
        let sweep = Sweep::new(&db, db.pool_with(1, proxy.as_ref()), literals, reuse).await;
        if let Some(proxy) = &proxy {
            proxy.delay(Duration::from_millis(1));
        }
        let mut polls = 0;
        sweep
            .run(async |call| {
                polls += 1;
                poll_times(polls, call).await
            })
            .await;
    }
}

async fn a_call_dropped_at_any_time_leaves_no_trace<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let proxy = db.proxy();
    let sweep = Sweep::new(&db, db.pool_with(1, Some(&proxy)), false, true).await;
    proxy.delay(Duration::from_millis(3));
    let mut millis = -1_i64;
    sweep
        .run(async |call| {
            millis += 2;
            cancel_after(Duration::from_millis(millis.unsigned_abs()), call).await
        })
        .await;
}

/// Drops one call after the other, each a little later, until some were no longer dropped.
struct Sweep<'a, DB: ShopDb> {
    db: &'a TestDb<DB>,
    pool: Pool<DB>,
    ledger: Ledger<DB>,
    /// Of its keys.
    name: String,
}

impl<'a, DB: ShopDb> Sweep<'a, DB> {
    async fn new(db: &'a TestDb<DB>, pool: Pool<DB>, literals: bool, reuse: bool) -> Self {
        let ledger = Ledger::builder(pool.clone())
            .payload_literals(literals)
            .reuse_connections(reuse);
        let ledger = ledger.build().expect("a ledger");
        db.execute("create table if not exists probes (name varchar(100) not null)")
            .await;
        let name = format!("{literals} {reuse}");
        answered(order(&ledger, &format!("warm {name}"), Body::Returns).await);
        Self {
            db,
            pool,
            ledger,
            name,
        }
    }

    async fn run(&self, mut cut: impl AsyncFnMut(Call<'_>) -> Option<Answer>) {
        let (mut dropped, mut ended) = (0, 0);
        while ended < 3 {
            let key = format!("{} {dropped} {ended}", self.name);
            let call = order(&self.ledger, &key, Body::Returns);
            match cut(Box::pin(call)).await {
                None => dropped += 1,
                Some(answer) => {
                    answered(answer);
                    ended += 1;
                }
            }
            self.look(&key).await;
        }
        assert!(dropped >= 3, "only {dropped} calls were dropped");
        let book = settled(self.db).await;
        assert_eq!(self.pool.size(), 1, "a pool of one connection is in use");
        assert_eq!(book.orders_of(&format!("{} 0 0", self.name)).len(), 1);
    }

    async fn look(&self, key: &str) {
        let mut next = self.pool.acquire().await.expect("the next borrower");
        DB::execute(&mut next, &format!("insert into probes values ('{key}')"))
            .await
            .expect("its write");
        drop(next);
        let stayed = format!("select count(*) from probes where name = '{key}'");
        assert_eq!(self.db.number(&stayed).await, 1, "{key}: a write was lost");
        settled(self.db).await;
        let retried = answered(order(&self.ledger, key, Body::Returns).await);
        assert_eq!(settled(self.db).await.orders_of(key), [retried]);
    }
}

async fn a_statement_of_a_dropped_call_does_not_run_on<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let pool = db.pool_with(2, None);
    let ledger = Ledger::new(pool.clone());
    for _ in 0..4 {
        let call = order(&ledger, "sleeper", Body::Runs("select pg_sleep(30)"));
        assert!(
            cancel_after(Duration::from_millis(200), call)
                .await
                .is_none()
        );
    }
    // The pool has its slots back at once, whatever the server still does.
    let (one, two) = (pool.acquire().await, pool.acquire().await);
    assert!(one.is_ok() && two.is_ok());
    drop((one, two));
    eventually(BOUND, async || db.busy_sessions().await == 0).await;
    answered(order(&ledger, "sleeper", Body::Returns).await);
    assert_eq!(settled(&db).await.orders.len(), 1);
}
