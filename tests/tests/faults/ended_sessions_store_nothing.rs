//! I2 and I10: the server may end a session at any time. Nothing of its call stays, and the caller is told so.

use effectively::{ErrorKind, Failure, Ledger};
use effectively_tests::{TestDb, eventually, on_every_database};
use futures_util::future::join_all;

use crate::marks::{BOUND, Body, answered, mark_of, open, order, order_with, settled};
use crate::sessions::{end, is_there, number_of};
use crate::shop::{ShopDb, ShopError, kind};

on_every_database!([postgres, mysql]
    a_session_that_ends_in_the_body_fails_the_body,
    a_session_that_ends_before_the_fence_is_no_success,
    sessions_that_end_between_calls_fail_none,
);

async fn a_session_that_ends_in_the_body_fails_the_body<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool_with(1, None));
    let answer = order_with(&ledger, &mark_of("a"), async |tx: &mut DB::Connection| {
        end_of::<DB>(&db, tx).await?;
        DB::execute(tx, "insert into orders values ('a#later')").await?;
        Ok(())
    })
    .await;
    assert!(
        matches!(answer, Err(Failure::Handler(ShopError::Sql(_)))),
        "{answer:?}"
    );
    retry(&db, &ledger).await;
}

async fn a_session_that_ends_before_the_fence_is_no_success<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    for literals in [false, true] {
        let ledger = Ledger::builder(db.pool_with(1, None)).payload_literals(literals);
        let ledger = ledger.build().expect("a ledger");
        let mark = mark_of(&literals.to_string());
        let answer = order_with(&ledger, &mark, async |tx: &mut DB::Connection| {
            end_of::<DB>(&db, tx).await
        })
        .await;
        assert!(
            matches!(
                kind(&answer),
                Some(ErrorKind::Unavailable | ErrorKind::NotCommitted)
            ),
            "{answer:?}"
        );
        assert_eq!(settled(&db).await.orders_of(&literals.to_string()), [""; 0]);
        answered(order(&ledger, &literals.to_string(), Body::Returns).await);
    }
    assert_eq!(settled(&db).await.orders.len(), 2);
}

/// Also those that the ledger keeps for its next call, which no pool has tested.
async fn sessions_that_end_between_calls_fail_none<DB: ShopDb>(db: TestDb<DB>) {
    let db = open(db).await;
    let proxy = db.proxy();
    let ledger = Ledger::builder(db.pool_with(6, Some(&proxy))).reuse_connections(true);
    let ledger = ledger.build().expect("a ledger");
    for round in 0..20 {
        let keys: Vec<String> = (0..6).map(|n| format!("{round} {n}")).collect();
        let calls = keys.iter().map(|key| order(&ledger, key, Body::Returns));
        join_all(calls).await.into_iter().for_each(|answer| {
            answered(answer);
        });
        proxy.sever();
        // One that the process remembers to be complete, and one that is new.
        for key in [keys[0].clone(), format!("{round} next")] {
            answered(order(&ledger, &key, Body::Returns).await);
        }
    }
    assert_eq!(settled(&db).await.orders.len(), 20 * 7);
}

async fn end_of<DB: ShopDb>(db: &TestDb<DB>, tx: &mut DB::Connection) -> Result<(), ShopError> {
    let session = number_of::<DB>(tx).await?;
    end(db, session).await;
    eventually(BOUND, async || !is_there(db, session).await).await;
    Ok(())
}

async fn retry<DB: ShopDb>(db: &TestDb<DB>, ledger: &Ledger<DB>) {
    assert_eq!(settled(db).await.orders, [""; 0]);
    let mark = answered(order(ledger, "a", Body::Returns).await);
    assert_eq!(settled(db).await.orders, [mark]);
}
