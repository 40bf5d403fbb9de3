//! A key is marked as interrupted only where no row is: while a body runs on without its transaction, its key may be claimed elsewhere,
//! and what that call answered stays.

use effectively::{ErrorKind, Ledger};
use effectively_tests::{TestDb, on_every_database};

use crate::marks::{Body, open, order, order_with};
use crate::shop::{ShopDb, kind};

on_every_database!(the_answer_of_another_call_outlives_an_interruption);

async fn the_answer_of_another_call_outlives_an_interruption<DB: ShopDb>(db: TestDb<DB>) {
    assert_eq!(interrupted_beside_another(db).await, Ok(()));
}

/// What becomes of the answer of a call while another one with its key has ended its own transaction.
pub async fn interrupted_beside_another<DB: ShopDb>(db: TestDb<DB>) -> Result<(), String> {
    let db = open(db).await;
    let ledger = Ledger::new(db.pool().clone());
    // As in another process: it knows nothing of the first one's calls.
    let elsewhere = Ledger::new(db.pool_with(2, None));
    let mut theirs = None;
    let first = order_with(&ledger, "one#first", async |tx: &mut DB::Connection| {
        DB::execute(tx, "rollback").await?;
        let elsewhere = elsewhere.clone();
        // In a task of its own: it is no call within this one.
        let call = tokio::spawn(async move { order(&elsewhere, "one", Body::Returns).await });
        theirs = Some(call.await.expect("no panic"));
        Ok(())
    });
    let first = kind(&first.await);
    assert_eq!(first, Some(ErrorKind::TransactionLost));
    let theirs = match theirs.expect("the body ran") {
        Ok(theirs) => theirs,
        // The key was not to be had: there was nothing to overwrite.
        refused if kind(&refused) == Some(ErrorKind::InFlight) => return Ok(()),
        Err(error) => return Err(format!("{error:?}")),
    };
    let again = order(&elsewhere, "one", Body::Returns).await;
    let stays =
        matches!(&again, Ok(again) if again.is_replay() && again.recorded() == theirs.recorded());
    stays.then_some(()).ok_or(format!("{again:?}"))
}
