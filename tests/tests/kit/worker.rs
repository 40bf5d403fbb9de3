//! A worker is another process on the same database; it can be spoken to, stopped and killed.

use std::time::Duration;

use effectively_tests::{TestDb, TestServer, Worker, cancel_after, eventually, on_every_database};

on_every_database!(
    a_killed_process_leaves_nothing,
    four_processes_share_a_database
);

async fn a_killed_process_leaves_nothing<DB: TestServer>(db: TestDb<DB>) {
    if let Some(order) = Worker::input::<i64>() {
        let mut tx = db.pool().begin().await.expect("a transaction");
        DB::execute(&mut tx, &format!("insert into orders values ({order})"))
            .await
            .expect("an order");
        Worker::say("inserted");
        return Worker::wait_for_death().await;
    }
    db.execute("create table orders (id bigint primary key)")
        .await;
    let mut worker = db.worker(&7);
    worker.expect("inserted").await;
    worker.kill();
    eventually(Duration::from_secs(10), async || {
        db.busy_sessions().await == 0
    })
    .await;
    assert_eq!(db.number("select count(*) from orders").await, 0);
    assert_eq!(
        db.execute("insert into orders values (7)").await,
        1,
        "no lock is left"
    );
}

async fn four_processes_share_a_database<DB: TestServer>(db: TestDb<DB>) {
    if let Some(number) = Worker::input::<u32>() {
        Worker::say("ready");
        assert_eq!(Worker::listen().await, "go");
        let mut connection = db.pool().acquire().await.expect("a connection");
        DB::execute(
            &mut connection,
            &format!("insert into orders values ({number})"),
        )
        .await
        .expect("an order");
        Worker::say(format_args!("{number} done"));
        return;
    }
    db.execute("create table orders (id bigint primary key)")
        .await;
    let mut workers: Vec<Worker> = (0..4_u32).map(|number| db.worker(&number)).collect();
    for worker in &mut workers {
        worker.expect("ready").await;
    }
    for worker in &mut workers {
        worker.tell("go");
    }
    for (number, worker) in workers.into_iter().enumerate() {
        assert_eq!(worker.finish().await, [format!("{number} done")]);
    }
    assert_eq!(db.number("select count(*) from orders").await, 4);
}

#[tokio::test]
async fn a_paused_process_stands_still() {
    if Worker::input::<()>().is_some() {
        loop {
            Worker::say(Worker::listen().await);
        }
    }
    let mut worker = Worker::spawn(&());
    worker.tell("one");
    worker.expect("one").await;
    worker.pause();
    worker.tell("two");
    assert_eq!(
        cancel_after(Duration::from_millis(200), worker.hear()).await,
        None
    );
    worker.resume();
    worker.expect("two").await;
}

#[tokio::test]
#[should_panic(expected = "what the worker printed")]
async fn a_worker_that_fails_fails_its_test() {
    if Worker::input::<()>().is_some() {
        eprintln_of_the_child();
    }
    Worker::spawn(&()).finish().await;
}

/// The child must end with a failure of its own, not by the panic that its parent expects.
fn eprintln_of_the_child() -> ! {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "what the worker printed");
    std::process::exit(3)
}
