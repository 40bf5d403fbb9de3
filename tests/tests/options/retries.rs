//! `retries = n`: after a serialization failure or a deadlock the body runs again, at most n times, and leaves one set of effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use effectively::{Emit, ErrorKind, Failure, Ledger, idempotent, outbox};
use effectively_tests::{TestDb, TestServer, on_every_database};
use sqlx::pool::PoolOptions;
use tokio::sync::{Barrier, Semaphore};

use crate::shop::{Orders, Placed, SOON, Shop, ShopDb, ShopError, first, kind, replay, send};

/// Two calls that get into each other's way: the first run of each waits for that of the other.
#[derive(Clone)]
struct Pair {
    both: Arc<Barrier>,
    runs: Arc<AtomicUsize>,
    answered: Arc<Semaphore>,
}

impl Pair {
    fn new() -> Self {
        Self {
            both: Arc::new(Barrier::new(2)),
            runs: Arc::default(),
            answered: Arc::new(Semaphore::new(0)),
        }
    }

    /// Which run of the two calls this is, from 0.
    fn run(&self) -> usize {
        self.runs.fetch_add(1, Ordering::SeqCst)
    }

    async fn meet(&self, run: usize) {
        if run < 2 {
            let both = tokio::time::timeout(SOON, self.both.wait()).await;
            both.expect("the other call in its body");
        }
    }

    /// A later run waits until the other call has its answer.
    async fn let_the_other_end(&self, run: usize) {
        if run >= 2 {
            let answered = tokio::time::timeout(SOON, self.answered.acquire()).await;
            drop(answered.expect("the other call's answer"));
        }
    }

    fn answered(&self) {
        self.answered.add_permits(1);
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// When the two calls meet: each has read then, or each has also written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meet {
    AfterReading,
    AfterWriting,
}

/// Goes off duty unless that leaves nobody.
#[idempotent(key = "{doctor}", retries = 3, isolation = "serializable")]
#[outbox]
async fn go_off_duty<C: Orders>(
    tx: &mut C,
    doctor: i64,
    meet: Meet,
    pair: Pair,
) -> Result<Emit<bool>, ShopError> {
    let run = pair.run();
    tx.insert(&format!("run {run}")).await?;
    pair.let_the_other_end(run).await;
    let on_duty = tx.count("select count(*) from doctors where on_duty = 1");
    let goes = on_duty.await? > 1;
    if meet == Meet::AfterReading {
        pair.meet(run).await;
    }
    if goes {
        let leave = format!("update doctors set on_duty = 0 where id = {doctor}");
        tx.run(&leave).await?;
    }
    if meet == Meet::AfterWriting {
        pair.meet(run).await;
    }
    Ok(Emit::new(goes).event(Placed::of(doctor.to_string())))
}

on_every_database!([postgres, mysql] a_write_skew_runs_one_body_again_and_one_doctor_stays);
on_every_database!([postgres] a_conflict_that_shows_after_the_body_runs_it_again);

async fn a_write_skew_runs_one_body_again_and_one_doctor_stays<DB: ShopDb>(db: TestDb<DB>) {
    write_skew(db, Meet::AfterReading).await;
}

/// Each body has done all it does when the first of the two commits.
async fn a_conflict_that_shows_after_the_body_runs_it_again<DB: ShopDb>(db: TestDb<DB>) {
    write_skew(db, Meet::AfterWriting).await;
}

async fn write_skew<DB: ShopDb>(db: TestDb<DB>, meet: Meet) {
    let shop = Shop::open(db).await;
    let doctors = "create table doctors (id int primary key, on_duty int not null);
        insert into doctors values (1, 1), (2, 1)";
    shop.db.execute(doctors).await;
    let pair = Pair::new();
    let leave = |doctor| go_off_duty::<DB::Connection>(shop.ledger(), doctor, meet, pair.clone());
    let call = async |doctor| {
        let answer = send(leave(doctor)).await;
        pair.answered();
        answer
    };
    let (one, two) = tokio::join!(call(1), call(2));
    let (one, two) = (first(one), first(two));
    // The run after the conflict may have begun before the other's commit was to be seen, and is refused once more. The next
    // one begins after the other's answer.
    let runs = pair.runs();
    assert!(
        (3..=4).contains(&runs),
        "one of the two ran once more, or twice: {runs}"
    );
    let gone =
        |outcome: &effectively::Outcome<bool>| outcome.clone().into_result().expect("a response");
    assert_ne!(gone(&one), gone(&two), "one went, one stayed");
    let on_duty = "select count(*) from doctors where on_duty = 1";
    assert_eq!(shop.db.number(on_duty).await, 1);
    // What the run that was in the way had written is not there.
    assert_eq!(shop.stored().await, (2, 2, 2));
    assert_eq!(replay(leave(1).await).recorded(), one.recorded());
    assert_eq!(replay(leave(2).await).recorded(), two.recorded());
    assert_eq!(pair.runs(), runs);
}

#[idempotent(key = "{from}", retries = 3)]
#[outbox]
async fn transfer<C: Orders>(
    tx: &mut C,
    from: i64,
    to: i64,
    pair: Pair,
) -> Result<Emit<usize>, ShopError> {
    let run = pair.run();
    let take = format!("update accounts set balance = balance - 1 where id = {from}");
    tx.run(&take).await?;
    pair.meet(run).await;
    let give = format!("update accounts set balance = balance + 1 where id = {to}");
    tx.run(&give).await?;
    Ok(Emit::new(run).event(Placed::of(from.to_string())))
}

#[outbox(retries = 3)]
async fn transfer_without_a_key<C: Orders>(
    tx: &mut C,
    from: i64,
    to: i64,
    pair: Pair,
) -> Result<Vec<Placed>, ShopError> {
    let run = pair.run();
    let take = format!("update accounts set balance = balance - 1 where id = {from}");
    tx.run(&take).await?;
    pair.meet(run).await;
    let give = format!("update accounts set balance = balance + 1 where id = {to}");
    tx.run(&give).await?;
    Ok(vec![Placed::of(from.to_string())])
}

on_every_database!([postgres, mysql] a_deadlock_runs_one_body_again, a_deadlock_without_a_key_runs_one_body_again);

async fn a_deadlock_runs_one_body_again<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, pair) = (bank(db).await, Pair::new());
    let call = |from, to| transfer::<DB::Connection>(shop.ledger(), from, to, pair.clone());
    let (one, two) = tokio::join!(send(call(1, 2)), send(call(2, 1)));
    first(one);
    first(two);
    assert_eq!(pair.runs(), 3, "one of the two ran once more");
    assert_eq!(shop.stored().await, (0, 2, 2));
    assert_eq!(balances(&shop).await, ["10", "10"]);
}

async fn a_deadlock_without_a_key_runs_one_body_again<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, pair) = (bank(db).await, Pair::new());
    let call =
        |from, to| transfer_without_a_key::<DB::Connection>(shop.ledger(), from, to, pair.clone());
    let (one, two) = tokio::join!(send(call(1, 2)), send(call(2, 1)));
    one.expect("an answer");
    two.expect("an answer");
    assert_eq!(pair.runs(), 3, "one of the two ran once more");
    assert_eq!(shop.stored().await, (0, 2, 0));
    assert_eq!(balances(&shop).await, ["10", "10"]);
}

async fn bank<DB: ShopDb>(db: TestDb<DB>) -> Shop<DB> {
    let shop = Shop::open(db).await;
    let accounts = "create table accounts (id int primary key, balance int not null);
        insert into accounts values (1, 10), (2, 10)";
    shop.db.execute(accounts).await;
    shop
}

async fn balances<DB: ShopDb>(shop: &Shop<DB>) -> Vec<String> {
    let balances = "select cast(balance as char(9)) from accounts order by id";
    let balances = shop.db.texts(balances).await;
    balances.iter().map(|text| text.trim().to_owned()).collect()
}

/// Reads an account, lets somebody else change it as often as asked for, and changes it.
#[idempotent(key = "{account}", retries = 2, isolation = "repeatable read")]
async fn withdraw<C: Orders>(
    tx: &mut C,
    account: i64,
    admin: &TestDb<C::Db>,
    conflicts: usize,
    runs: &AtomicUsize,
) -> Result<usize, ShopError>
where
    C::Db: TestServer,
{
    let run = runs.fetch_add(1, Ordering::SeqCst);
    tx.insert("a").await?;
    let read = format!("select balance from accounts where id = {account} and balance < 1000000");
    tx.run(&read).await?;
    let change = format!("update accounts set balance = balance - 1 where id = {account}");
    if run < conflicts {
        admin.execute(&change).await;
    }
    tx.run(&change).await?;
    Ok(run)
}

on_every_database!([postgres, mysql] the_body_runs_again_as_often_as_it_may_and_then_the_caller_gets_the_error);
on_every_database!(
    an_error_that_is_no_conflict_is_not_run_again,
    a_refused_commit_that_is_no_conflict_is_not_run_again,
);

/// A ledger whose repeatable reads refuse to write over what they have not seen. MariaDB has a setting for that; without it,
/// and on MySQL, they write over it.
async fn strict<DB: ShopDb>(shop: &Shop<DB>) -> Option<Ledger<DB>> {
    if DB::NAME == "PostgreSQL" {
        return Some(shop.ledger());
    }
    let setting = "show variables like 'innodb_snapshot_isolation'";
    if shop.db.texts(setting).await.is_empty() {
        return None;
    }
    let pool = PoolOptions::new().after_connect(|connection, _| {
        Box::pin(async {
            DB::execute(connection, "set innodb_snapshot_isolation = on").await?;
            Ok(())
        })
    });
    Some(Ledger::new(shop.db.pool_from(pool, None)))
}

async fn the_body_runs_again_as_often_as_it_may_and_then_the_caller_gets_the_error<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = bank(db).await;
    let Some(ledger) = strict(&shop).await else {
        return;
    };
    let call = async |account, conflicts, runs: &AtomicUsize| {
        withdraw::<DB::Connection>(ledger.clone(), account, &shop.db, conflicts, runs).await
    };
    let enough = AtomicUsize::new(0);
    let run = first(call(1, 2, &enough).await).into_result();
    assert_eq!((run.expect("a response"), enough.into_inner()), (2, 3));
    assert_eq!(shop.stored().await, (1, 0, 1));
    assert_eq!(balances(&shop).await, ["7", "10"]);

    let too_many = AtomicUsize::new(0);
    let answer = call(2, 9, &too_many).await;
    let Err(Failure::Handler(ShopError::Sql(conflict))) = answer else {
        panic!("{answer:?}");
    };
    let message = conflict.to_string();
    assert!(
        message.contains("concurrent update") || message.contains("has changed since last read"),
        "{message}"
    );
    assert_eq!(too_many.into_inner(), 3, "once, and two times more");
    assert_eq!(shop.stored().await, (1, 0, 1));
    assert_eq!(balances(&shop).await, ["7", "7"], "theirs alone");
    first(call(2, 0, &AtomicUsize::new(0)).await);
}

/// What the body does wrong.
#[idempotent(key = "{item}", retries = 5)]
async fn misbehave<C: Orders>(
    tx: &mut C,
    item: &str,
    wrong: &str,
    runs: &AtomicUsize,
) -> Result<(), ShopError> {
    runs.fetch_add(1, Ordering::SeqCst);
    tx.insert(item).await?;
    tx.run(wrong).await?;
    Ok(())
}

async fn an_error_that_is_no_conflict_is_not_run_again<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, runs) = (Shop::open(db).await, AtomicUsize::new(0));
    let wrong = "insert into nowhere values (1)";
    let answer = misbehave::<DB::Connection>(shop.ledger(), "a", wrong, &runs).await;
    assert!(matches!(answer, Err(Failure::Handler(ShopError::Sql(_)))));
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(shop.stored().await, (0, 0, 0));
}

async fn a_refused_commit_that_is_no_conflict_is_not_run_again<DB: ShopDb>(db: TestDb<DB>) {
    let (shop, runs) = (Shop::open(db).await, AtomicUsize::new(0));
    let answer = misbehave::<DB::Connection>(shop.ledger(), "a", "rollback", &runs).await;
    assert_eq!(kind(&answer), Some(ErrorKind::TransactionLost));
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(shop.orders().await, 0);
}
