//! I8: a call may outlive its runtime, or be dropped where there is none. No panic escapes, and nothing is torn.

use std::io::Write;
use std::panic;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, Worker, on_every_database};
use tokio::runtime::{Builder, Runtime};

use crate::marks::{Answer, Body, Gate, answered, open, order, settled};
use crate::shop::ShopDb;

on_every_database!(a_call_is_dropped_safely_without_its_runtime);

type Sent = Pin<Box<dyn Future<Output = Answer> + Send>>;

async fn a_call_is_dropped_safely_without_its_runtime<DB: ShopDb>(db: TestDb<DB>) {
    if Worker::input::<()>().is_some() {
        report_every_panic();
        dropped_on_a_plain_thread(&db).await;
        for end in [
            End::InTheCall,
            End::BeforeTheDrop,
            End::BeforeTheAnswer,
            End::AfterTheCall,
        ] {
            let db = db.pool_with(2, None).connect_options();
            let pool = sqlx::pool::PoolOptions::<DB>::new().max_connections(2);
            let pool = pool.connect_lazy_with((*db).clone());
            // A runtime cannot be ended from inside another.
            let ended = std::thread::spawn(move || end_a_runtime::<DB>(pool, end)).join();
            assert!(ended.is_ok(), "{end:?}");
        }
        return Worker::say("no panic");
    }
    let db = open(db).await;
    let said = db.worker(&()).finish().await;
    let answered_ok = match said.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["true", "no panic"] => true,
        ["false", "no panic"] => false,
        _ => panic!("{said:?}"),
    };
    let ledger = Ledger::new(db.pool().clone());
    for key in ["plain thread", "InTheCall", "BeforeTheDrop"] {
        assert_eq!(settled(&db).await.orders_of(key), [""; 0], "{key}");
        answered(order(&ledger, key, Body::Returns).await);
    }
    let there = usize::from(answered_ok);
    let book = settled(&db).await;
    assert_eq!(book.orders_of("BeforeTheAnswer").len(), there);
    assert_eq!(book.orders_of("AfterTheCall").len(), 1);
    assert_eq!(book.orders.len(), 4 + there);
}

/// Also one that a runtime catches: it would be in the log of a service that shuts down.
fn report_every_panic() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        Worker::say("a panic");
        usual(panic);
        let _ = std::io::stderr().flush();
    }));
}

/// A call that stands in its body until the gate is opened.
async fn standing<DB: ShopDb>(ledger: Ledger<DB>, key: &'static str, gate: &Arc<Gate>) -> Sent {
    let body = Body::Stands(gate.clone());
    let mut call: Sent = Box::pin(async move { order(&ledger, key, body).await });
    tokio::select! {
        _ = &mut call => unreachable!("nobody has opened the gate"),
        () = gate.reached() => call,
    }
}

async fn dropped_on_a_plain_thread<DB: ShopDb>(db: &TestDb<DB>) {
    let pool = db.pool_with(1, None);
    let ledger = Ledger::new(pool.clone());
    let call = standing(ledger, "plain thread", &Arc::default()).await;
    let dropped = std::thread::spawn(move || drop(call)).join();
    assert!(dropped.is_ok());
    // The only slot of the pool is free again.
    pool.acquire().await.expect("a connection");
}

#[derive(Clone, Copy, Debug)]
enum End {
    InTheCall,
    BeforeTheDrop,
    /// Another runtime polls it to its end.
    BeforeTheAnswer,
    /// While the ledger keeps its connection for another.
    AfterTheCall,
}

fn end_a_runtime<DB: ShopDb>(pool: sqlx::Pool<DB>, end: End) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let ledger = Ledger::builder(pool.clone()).reuse_connections(true);
    let ledger = ledger.build().expect("a ledger");
    let gate = Arc::default();
    match end {
        End::InTheCall => {
            runtime.block_on(async {
                let call = standing(ledger, "InTheCall", &gate).await;
                tokio::spawn(call);
            });
            finish(runtime);
        }
        End::BeforeTheDrop => {
            let call = runtime.block_on(standing(ledger, "BeforeTheDrop", &gate));
            finish(runtime);
            drop(call);
        }
        End::BeforeTheAnswer => {
            let call = runtime.block_on(standing(ledger, "BeforeTheAnswer", &gate));
            finish(runtime);
            gate.open();
            let next = Builder::new_current_thread().enable_all().build();
            let answer = next.expect("a runtime").block_on(call);
            // A network's connection ends with its runtime, unless what it waits for is already there. A file's does not.
            assert!(answer.is_ok() || DB::VARIABLE.is_some(), "{answer:?}");
            Worker::say(answer.is_ok());
        }
        End::AfterTheCall => {
            let call = order(&ledger, "AfterTheCall", Body::Returns);
            answered(runtime.block_on(call));
            finish(runtime);
            // Nothing is kept for a runtime that comes later.
            assert_eq!(pool.size(), 0);
        }
    }
}

fn finish(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_secs(2));
}
