//! `Link`: one connection through the proxy, with a reader and a writer for each direction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::trap::{Fault, Tail};
use super::{Line, shut};

/// How long a swallowed answer must have paused before the connection ends.
///
/// A server that answers a message in pieces must have done all of it: it may stop when it cannot write the next piece.
const ANSWER_IS_OVER: Duration = Duration::from_millis(50);

/// The two sockets. The threads that carry own it together; when the last of them ends, the connection is over.
#[derive(Debug)]
pub(super) struct Link {
    client: TcpStream,
    server: TcpStream,
    /// The server spoke last, or nobody has yet: what the client sends now is a new flight.
    server_spoke: AtomicBool,
    answer_is_lost: AtomicBool,
    stalled: AtomicBool,
    over: AtomicBool,
}

/// What travels from a reader to its writer.
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
    /// Happens when the parcel arrives, not when it is sent: what is under way before it still arrives.
    fault: Option<Fault>,
}

impl Link {
    pub(super) fn new(client: TcpStream, server: TcpStream) -> Self {
        Self {
            client,
            server,
            server_spoke: AtomicBool::new(true),
            answer_is_lost: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The server is told first: it must not do what it has not begun when the client hears that the connection is gone.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        shut(&self.server, Shutdown::Both);
        shut(&self.client, Shutdown::Both);
    }
}

/// Starts the four threads.
pub(super) fn carry(link: &Arc<Link>, line: &Arc<Line>) {
    let (requests, requests_in) = mpsc::channel();
    let (answers, answers_in) = mpsc::channel();
    spawn(link, line, move |link, line| {
        read_requests(link, line, &requests);
    });
    spawn(link, line, move |link, line| {
        write_requests(link, line, &requests_in);
    });
    spawn(link, line, move |link, line| {
        read_answers(link, line, &answers);
    });
    spawn(link, line, move |link, line| {
        write_answers(link, line, &answers_in);
    });
}

fn spawn(link: &Arc<Link>, line: &Arc<Line>, work: impl FnOnce(&Link, &Line) + Send + 'static) {
    let (link, line) = (link.clone(), line.clone());
    thread::spawn(move || work(&link, &line));
}

fn read_requests(link: &Link, line: &Line, requests: &Sender<Parcel>) {
    let mut tail = Tail::default();
    read_from(&link.client, |chunk| {
        if link.server_spoke.swap(false, Ordering::SeqCst) {
            line.flights.fetch_add(1, Ordering::SeqCst);
        }
        let fault = spring(line, &tail, chunk);
        tail.push(chunk);
        send(line, requests, chunk, fault)
    });
}

/// Takes the trap away with the fault: it springs once.
fn spring(line: &Line, tail: &Tail, chunk: &[u8]) -> Option<Fault> {
    let mut trap = line.trap();
    let fault = trap.as_ref()?.springs_on(tail, chunk)?;
    *trap = None;
    Some(fault)
}

fn write_requests(link: &Link, line: &Line, requests: &Receiver<Parcel>) {
    for parcel in requests {
        wait_for(&parcel);
        match parcel.fault {
            // Before the request is written: the answer could be faster than this thread.
            Some(Fault::LoseReply) => link.answer_is_lost.store(true, Ordering::SeqCst),
            Some(Fault::Stall) => link.stalled.store(true, Ordering::SeqCst),
            Some(Fault::LoseRequest) => return link.end(),
            None => {}
        }
        if !deliver(link, line, &parcel, &link.server) {
            return link.end();
        }
    }
    line.wait_until_open(link);
    shut(&link.server, Shutdown::Write);
}

fn read_answers(link: &Link, line: &Line, answers: &Sender<Parcel>) {
    let cut = read_from(&link.server, |chunk| {
        !link.answer_is_lost.load(Ordering::SeqCst) && send(line, answers, chunk, None)
    });
    if cut {
        let _ = link.server.set_read_timeout(Some(ANSWER_IS_OVER));
        read_from(&link.server, |_| true);
        link.end();
    }
}

fn write_answers(link: &Link, line: &Line, answers: &Receiver<Parcel>) {
    for parcel in answers {
        wait_for(&parcel);
        // Only what the client has seen can have made it speak again; and before it has seen it.
        link.server_spoke.store(true, Ordering::SeqCst);
        if !deliver(link, line, &parcel, &link.client) {
            return link.end();
        }
    }
    line.wait_until_open(link);
    shut(&link.client, Shutdown::Write);
}

/// Reads until the other side is done (`false`) or `take` wants no more (`true`).
fn read_from(mut socket: &TcpStream, mut take: impl FnMut(&[u8]) -> bool) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(length) if !take(&buffer[..length]) => return true,
            Ok(_) => {}
        }
    }
}

fn send(line: &Line, to: &Sender<Parcel>, chunk: &[u8], fault: Option<Fault>) -> bool {
    to.send(Parcel {
        due: Instant::now() + line.one_way(),
        bytes: chunk.to_vec(),
        fault,
    })
    .is_ok()
}

fn wait_for(parcel: &Parcel) {
    thread::sleep(parcel.due.saturating_duration_since(Instant::now()));
}

/// `false`: the receiver is gone, and the sender must learn of it.
fn deliver(link: &Link, line: &Line, parcel: &Parcel, mut to: &TcpStream) -> bool {
    line.wait_until_open(link);
    !link.is_over() && to.write_all(&parcel.bytes).is_ok()
}
