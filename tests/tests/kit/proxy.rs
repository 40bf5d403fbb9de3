//! The proxy delays, counts and loses what it says, and nothing else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use effectively_tests::{Proxy, TestDb, TestServer, eventually, on_every_database};

const SECOND: Duration = Duration::from_secs(1);

on_every_database!([postgres, mysql] a_commit_whose_answer_is_lost_has_happened, a_commit_that_is_lost_has_not);
on_every_database!([postgres, mysql] statements_are_counted_on_the_wire, a_closed_pool_leaves_no_connection);

#[test]
fn packets_that_leave_together_are_one_flight() {
    let (mut client, _, proxy) = echo();
    assert_eq!(proxy.flights(), 0);
    for _ in 0..3 {
        exchange(&mut client, b"ping");
    }
    assert_eq!(proxy.take_flights(), 3);

    client.write_all(b"two").expect("sent");
    thread::sleep(Duration::from_millis(20));
    client.write_all(b" packets").expect("sent");
    client.read_exact(&mut [0; 11]).expect("the echo");
    // The echo of the first packet may come before the second one leaves: only then there are two.
    assert!((1..=2).contains(&proxy.take_flights()));

    proxy.delay(Duration::from_millis(50));
    client.write_all(b"two").expect("sent");
    thread::sleep(Duration::from_millis(20));
    client.write_all(b" packets").expect("sent");
    client.read_exact(&mut [0; 11]).expect("the echo");
    assert_eq!(
        proxy.flights(),
        1,
        "the second left before the client could have seen an answer"
    );
}

#[test]
fn a_round_trip_takes_twice_the_delay() {
    let (mut client, _, proxy) = echo();
    proxy.delay(Duration::from_millis(2));
    let mut fastest = SECOND;
    for _ in 0..50 {
        let begun = Instant::now();
        exchange(&mut client, b"ping");
        assert!(begun.elapsed() >= Duration::from_millis(4));
        fastest = fastest.min(begun.elapsed());
    }
    // The fastest, since a busy machine makes any other late. A timer with a grain of a millisecond would need 5 ms and more.
    assert!(fastest < Duration::from_micros(4_900), "{fastest:?}");
}

#[test]
fn many_chunks_are_under_way_at_once() {
    let (mut client, _, proxy) = echo();
    proxy.delay(Duration::from_millis(100));
    let mut reader = client.try_clone().expect("a second handle");
    let begun = Instant::now();
    let sender = thread::spawn(move || {
        for _ in 0..20 {
            client.write_all(b"chunk").expect("sent");
            thread::sleep(Duration::from_millis(5));
        }
    });
    reader.read_exact(&mut [0; 100]).expect("all echoes");
    let took = begun.elapsed();
    sender.join().expect("the sender");
    assert!(took >= Duration::from_millis(295), "{took:?}");
    // One after the other would take 20 x 200 ms.
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_cut_reply_was_asked_for_and_never_comes() {
    let (mut client, seen, proxy) = echo();
    proxy.cut_next_reply(b"COMMIT");
    exchange(&mut client, b"INSERT");
    assert!(proxy.is_armed());
    // In two pieces: a read may end anywhere.
    client.write_all(b"..COM").expect("sent");
    client
        .read_exact(&mut [0; 5])
        .expect("the echo of what is no message yet");
    client.write_all(b"MIT..").expect("sent");
    assert_eq!(rest_of(&mut client), b"");
    assert!(!proxy.is_armed());
    assert_eq!(all(&seen), b"INSERT..COMMIT..");

    let mut next = TcpStream::connect(proxy.address()).expect("a connection");
    exchange(&mut next, b"COMMIT");
}

#[test]
fn a_lost_request_never_arrives() {
    let (mut client, seen, proxy) = echo();
    proxy.lose_next_request(b"COMMIT");
    exchange(&mut client, b"INSERT");
    client.write_all(b"COMMIT").expect("sent");
    assert_eq!(rest_of(&mut client), b"");
    assert!(!proxy.is_armed());
    assert_eq!(all(&seen), b"INSERT");
}

#[test]
fn a_stalled_connection_is_silent_and_open() {
    let (mut client, seen, proxy) = echo();
    let mut other = TcpStream::connect(proxy.address()).expect("a connection");
    exchange(&mut other, b"before");
    proxy.stall_at(b"COMMIT");
    client.write_all(b"COMMIT").expect("sent");
    assert!(is_silent(&mut client));
    exchange(&mut other, b"the other goes on");
    assert_eq!(all(&seen), b"beforethe other goes on");
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn a_black_hole_holds_everything_back_until_it_ends() {
    let (mut client, seen, proxy) = echo();
    exchange(&mut client, b"before");
    proxy.black_hole(true);
    client.write_all(b"during").expect("sent");
    assert!(is_silent(&mut client));
    assert_eq!(all(&seen), b"before");
    proxy.black_hole(false);
    let mut echo = [0; 6];
    client.read_exact(&mut echo).expect("the echo");
    assert_eq!(&echo, b"during");
}

#[test]
fn severed_connections_end_and_new_ones_work() {
    let (mut client, _, proxy) = echo();
    exchange(&mut client, b"before");
    proxy.sever();
    assert_eq!(rest_of(&mut client), b"");
    exchange(
        &mut TcpStream::connect(proxy.address()).expect("a connection"),
        b"after",
    );
}

async fn a_commit_whose_answer_is_lost_has_happened<DB: TestServer>(db: TestDb<DB>) {
    db.execute("create table orders (id bigint primary key)")
        .await;
    let proxy = db.proxy();
    let pool = db.pool_with(1, Some(&proxy));
    for id in 0..5 {
        let mut tx = pool.begin().await.expect("a transaction");
        DB::execute(&mut tx, &format!("insert into orders values ({id})"))
            .await
            .expect("an order");
        proxy.cut_next_reply(b"COMMIT");
        tx.commit().await.expect_err("the answer was cut");
        assert!(!proxy.is_armed());
        assert_eq!(db.number("select count(*) from orders").await, id + 1);
    }
}

async fn a_commit_that_is_lost_has_not<DB: TestServer>(db: TestDb<DB>) {
    db.execute("create table orders (id bigint primary key)")
        .await;
    let proxy = db.proxy();
    let mut tx = db
        .pool_with(1, Some(&proxy))
        .begin()
        .await
        .expect("a transaction");
    DB::execute(&mut tx, "insert into orders values (1)")
        .await
        .expect("an order");
    proxy.lose_next_request(b"COMMIT");
    tx.commit().await.expect_err("the commit was lost");
    assert!(!proxy.is_armed());
    eventually(5 * SECOND, async || db.busy_sessions().await == 0).await;
    assert_eq!(db.number("select count(*) from orders").await, 0);
}

async fn statements_are_counted_on_the_wire<DB: TestServer>(db: TestDb<DB>) {
    let proxy = db.proxy();
    let pool = db.pool_with(1, Some(&proxy));
    let mut connection = pool.acquire().await.expect("a connection");
    assert!(proxy.take_flights() > 0, "opening it is counted");
    for statements in 1..=3 {
        for _ in 0..statements {
            DB::execute(&mut connection, "select 1")
                .await
                .expect("an answer");
        }
        assert_eq!(proxy.take_flights(), statements);
    }
}

async fn a_closed_pool_leaves_no_connection<DB: TestServer>(db: TestDb<DB>) {
    let proxy = db.proxy();
    let pool = db.pool_with(3, Some(&proxy));
    let held = (
        pool.acquire().await.expect("a connection"),
        pool.acquire().await.expect("a connection"),
    );
    assert_eq!(proxy.connections(), 2);
    drop(held);
    pool.close().await;
    eventually(5 * SECOND, async || proxy.connections() == 0).await;
}

/// A connection through a proxy to a server that says back what it hears, and what all its connections heard.
fn echo() -> (TcpStream, Receiver<Vec<u8>>, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Proxy::to(listener.local_addr().expect("its address"));
    let (hear, heard) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, hear) = (socket.expect("a client"), hear.clone());
            thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = socket.read(&mut buffer) {
                    let _ = hear.send(buffer[..length].to_vec());
                    let _ = socket.write_all(&buffer[..length]);
                }
            });
        }
    });
    let client = TcpStream::connect(proxy.address()).expect("a connection");
    client.set_nodelay(true).expect("no delay");
    client.set_read_timeout(Some(10 * SECOND)).expect("a bound");
    (client, heard, proxy)
}

/// One message and its echo.
fn exchange(socket: &mut TcpStream, message: &[u8]) {
    socket.write_all(message).expect("sent");
    let mut echo = vec![0; message.len()];
    socket.read_exact(&mut echo).expect("the echo");
    assert_eq!(echo, message);
}

/// What still comes until the connection ends. A reset is an end, too.
fn rest_of(socket: &mut TcpStream) -> Vec<u8> {
    let (mut rest, begun) = (Vec::new(), Instant::now());
    let _ = socket.read_to_end(&mut rest);
    assert!(begun.elapsed() < 5 * SECOND, "the connection never ended");
    rest
}

fn all(heard: &Receiver<Vec<u8>>) -> Vec<u8> {
    heard.try_iter().flatten().collect()
}

/// No byte, and no end either.
fn is_silent(socket: &mut TcpStream) -> bool {
    let bound = socket.read_timeout().expect("the bound");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a short bound");
    let silent = socket
        .read(&mut [0; 1])
        .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    socket.set_read_timeout(bound).expect("the bound again");
    silent
}
