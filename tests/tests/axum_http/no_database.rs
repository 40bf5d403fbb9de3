//! Without the database the answer is 503 and a time to come back, and never a 500 or a wait without end.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use effectively::Ledger;
use effectively_tests::{TestDb, on_every_database};
use sqlx::pool::PoolOptions;
use tokio::net::TcpListener;

use crate::app::{Server, ShopDb};
use crate::client::{Answer, assert_problem};

on_every_database!(
    an_exhausted_pool_is_unavailable_and_then_the_key_is_free,
    a_closed_pool_is_unavailable,
);
on_every_database!([postgres, mysql] a_database_that_cannot_be_reached_is_unavailable);

fn impatient<DB: ShopDb>() -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(300))
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_problem(answer, 503, "database_unavailable");
    let seconds = answer.header("retry-after").expect("a time to come back");
    assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 1));
}

async fn an_exhausted_pool_is_unavailable_and_then_the_key_is_free<DB: ShopDb>(db: TestDb<DB>) {
    let ledger = Ledger::new(db.pool_from(impatient(), None));
    ledger.migrate().await.expect("the toolkit's tables");
    db.execute("create table orders (item varchar(100) not null)")
        .await;
    let server = Server::on(db, ledger).await;
    let only = server.ledger.pool().acquire().await.expect("a connection");
    assert_unavailable(&server.order("k", "book").await);
    assert_eq!((server.hand.runs(), server.stored().await), (0, (0, 0, 0)));
    drop(only);
    let answer = server.order("k", "book").await;
    assert_eq!((answer.status, answer.is_replay()), (201, false));
}

async fn a_closed_pool_is_unavailable<DB: ShopDb>(db: TestDb<DB>) {
    let server = Server::start(db).await;
    server.ledger.pool().close().await;
    assert_unavailable(&server.order("k", "book").await);
    assert_eq!((server.hand.runs(), server.stored().await), (0, (0, 0, 0)));
}

async fn a_database_that_cannot_be_reached_is_unavailable<DB: ShopDb>(db: TestDb<DB>) {
    let options = DB::through(db.options(None), closed_port().await);
    let ledger = Ledger::new(impatient().connect_lazy_with(options));
    let server = Server::on(db, ledger).await;
    assert_unavailable(&server.order("k", "book").await);
    assert_eq!(server.hand.runs(), 0);
}

/// Nobody listens there any more.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    listener.local_addr().expect("its address")
}
