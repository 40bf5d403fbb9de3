//! Wake-ups across processes: by NOTIFY, and never inside the transaction of a call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use effectively::sink::Memory;
use effectively::{Emit, Ledger, Relay};
use effectively_tests::{TestDb, TestServer, eventually, on_every_database};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::shop::{Numbered, Running, SOON, Shop, ShopDb, emit};

on_every_database!([postgres] a_commit_wakes_a_relay_in_another_process_from_outside_of_its_transaction);

/// What both sides of one connection said, in its order.
type Said = Arc<Mutex<Vec<Vec<(bool, Vec<u8>)>>>>;

/// Passes everything on and notes it.
async fn listening_proxy(server: SocketAddr) -> (SocketAddr, Said) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let said = Said::default();
    let noted = Arc::clone(&said);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.expect("the server");
            let place = {
                let mut said = noted.lock().expect("the notes");
                said.push(Vec::new());
                said.len() - 1
            };
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            tokio::spawn(pass(
                client_reads,
                server_writes,
                true,
                place,
                Arc::clone(&noted),
            ));
            tokio::spawn(pass(
                server_reads,
                client_writes,
                false,
                place,
                Arc::clone(&noted),
            ));
        }
    });
    (address, said)
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    by_client: bool,
    place: usize,
    noted: Said,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let words = buffer[..read].to_vec();
        noted.lock().expect("the notes")[place].push((by_client, words));
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn pool(db: &TestDb<Postgres>, address: SocketAddr) -> PgPool {
    let options: PgConnectOptions = Postgres::through(db.options(None), address);
    sqlx::postgres::PgPoolOptions::new()
        .max_connections(8)
        .connect_lazy_with(options)
}

async fn a_commit_wakes_a_relay_in_another_process_from_outside_of_its_transaction<DB: ShopDb>(
    db: TestDb<DB>,
) {
    drop(db);
    let db = TestDb::<Postgres>::new().await;
    let shop = Shop::open(db).await;
    let (host, port) = Postgres::address(&shop.db.options(None)).expect("a network");
    let server = tokio::net::lookup_host((host.as_str(), port)).await;
    let server = server.expect("the server").next().expect("an address");
    let (address, said) = listening_proxy(server).await;
    // Two ledgers, as in two processes: neither hears of the other's commits but through the database.
    let notifying = |pool| {
        let ledger = Ledger::builder(pool).notify_relays(true);
        ledger.build().expect("a ledger")
    };
    let (service, beside) = (
        notifying(pool(&shop.db, address)),
        notifying(shop.db.pool_with(5, None)),
    );
    let sink = Memory::new();
    let relay = Running::start(
        Relay::builder(beside)
            .route("*", sink.clone())
            .poll(Duration::from_secs(600)),
    );
    emit(&service, Emit::new(()).event(Numbered::of("ada", 0))).await;
    eventually(SOON, async || sink.len() == 1).await;
    for number in 1..40 {
        emit(&service, Emit::new(()).event(Numbered::of("ada", number))).await;
    }
    eventually(SOON, async || sink.len() == 40).await;
    relay.stop().await;

    let said = said.lock().expect("the notes");
    let mut notifies = 0;
    for connection in said.iter() {
        for (place, (by_client, words)) in connection.iter().enumerate() {
            if !by_client || !contains(words, b"NOTIFY") {
                continue;
            }
            notifies += 1;
            let alone = words.starts_with(b"Q")
                && !contains(words, b"COMMIT")
                && !contains(words, b"BEGIN");
            assert!(alone, "NOTIFY travels with something else");
            let before = connection[..place]
                .iter()
                .rev()
                .find(|(by_client, _)| !by_client);
            let (_, before) = before.expect("the server spoke before");
            // ReadyForQuery with the status: idle, in no transaction.
            assert!(
                before.ends_with(b"Z\0\0\0\x05I"),
                "NOTIFY inside a transaction"
            );
        }
    }
    assert!((1..=40).contains(&notifies), "{notifies} NOTIFYs");
}

fn contains(words: &[u8], needle: &[u8]) -> bool {
    words.windows(needle.len()).any(|window| window == needle)
}
