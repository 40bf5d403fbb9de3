//! `Link`: one connection through the proxy, as the thread that carries sees it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::trap::{Fault, Tail};
use super::{Line, shut};

/// How long a swallowed answer must have paused before the connection ends.
///
/// A server that answers a message in pieces must have done all of it: it may stop when it cannot write the next piece.
const ANSWER_IS_OVER: Duration = Duration::from_millis(50);

/// The two sockets. The thread that carries owns them; when it lets go of them, the connection is over.
#[derive(Debug)]
pub(super) struct Ends {
    client: TcpStream,
    server: TcpStream,
    over: AtomicBool,
}

impl Ends {
    pub(super) fn new(client: TcpStream, server: TcpStream) -> Self {
        Self {
            client,
            server,
            over: AtomicBool::new(false),
        }
    }

    /// The server is told first: it must not do what it has not begun when the client hears that the connection is gone.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        shut(&self.server, Shutdown::Both);
        shut(&self.client, Shutdown::Both);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// What came from one side and has not arrived at the other.
#[derive(Debug)]
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
    /// How much of it has arrived.
    gone: usize,
    /// Happens when the parcel arrives, not when it is sent: what is under way before it still arrives.
    fault: Option<Fault>,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    under_way: VecDeque<Parcel>,
    /// The sender is done.
    sent_all: bool,
    /// The receiver has been told so.
    told: bool,
    /// The receiver takes no more for now.
    full: bool,
}

impl Way {
    fn push(&mut self, line: &Line, chunk: &[u8], fault: Option<Fault>) {
        self.under_way.push_back(Parcel {
            due: Instant::now() + line.one_way(),
            bytes: chunk.to_vec(),
            gone: 0,
            fault,
        });
    }

    /// Writes what is due. `false`: the receiver is gone, and the sender must learn of it.
    fn deliver(&mut self, now: Instant, mut to: &TcpStream) -> bool {
        self.full = false;
        while let Some(parcel) = self.under_way.front_mut()
            && parcel.due <= now
            && parcel.fault.is_none()
        {
            match to.write(&parcel.bytes[parcel.gone..]) {
                Ok(wrote) => parcel.gone += wrote,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.full = true;
                    return true;
                }
                Err(_) => return false,
            }
            if parcel.gone == parcel.bytes.len() {
                self.under_way.pop_front();
            }
        }
        if self.sent_all && !self.told && self.under_way.is_empty() {
            self.told = true;
            shut(to, Shutdown::Write);
        }
        true
    }

    /// When there is something to deliver.
    fn due(&self) -> Option<Instant> {
        let next = self.under_way.front().filter(|_| !self.full);
        next.map(|parcel| parcel.due)
    }
}

/// One connection and what is under way on it.
#[derive(Debug)]
pub(super) struct Link {
    ends: Arc<Ends>,
    requests: Way,
    answers: Way,
    /// What the client sent last: a read may cut a message anywhere.
    tail: Tail,
    /// The server spoke last, or nobody has yet: what the client sends now is a new flight.
    server_spoke: bool,
    answer_is_lost: bool,
    /// The lost answer has begun; the connection ends when it has paused until then.
    answer_is_over: Option<Instant>,
    stalled: bool,
}

impl Link {
    pub(super) fn new(ends: Arc<Ends>) -> Self {
        Self {
            ends,
            requests: Way::default(),
            answers: Way::default(),
            tail: Tail::default(),
            server_spoke: true,
            answer_is_lost: false,
            answer_is_over: None,
            stalled: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.is_over() || (self.requests.told && self.answers.told)
    }

    /// The socket of the client, whether to read from it, and whether to write to it.
    pub(super) fn client(&self) -> (&TcpStream, bool, bool) {
        (
            &self.ends.client,
            !self.requests.sent_all,
            self.answers.full,
        )
    }

    /// The same of the server.
    pub(super) fn server(&self) -> (&TcpStream, bool, bool) {
        (
            &self.ends.server,
            !self.answers.sent_all,
            self.requests.full,
        )
    }

    /// When there is something to do that no socket tells of.
    pub(super) fn due(&self, hole: bool) -> Option<Instant> {
        if hole || self.stalled {
            return self.answer_is_over;
        }
        [self.requests.due(), self.answers.due(), self.answer_is_over]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn read_requests(&mut self, line: &Line, buffer: &mut [u8]) {
        let Some(chunk) = read(&self.ends.client, buffer) else {
            return;
        };
        if chunk.is_empty() {
            self.requests.sent_all = true;
            return;
        }
        if std::mem::take(&mut self.server_spoke) {
            line.flights.fetch_add(1, Ordering::SeqCst);
        }
        let fault = line.spring(&self.tail, chunk);
        self.tail.push(chunk);
        self.requests.push(line, chunk, fault);
    }

    pub(super) fn read_answers(&mut self, line: &Line, buffer: &mut [u8]) {
        let Some(chunk) = read(&self.ends.server, buffer) else {
            return;
        };
        match (self.answer_is_lost, chunk.is_empty()) {
            (false, false) => self.answers.push(line, chunk, None),
            (false, true) => self.answers.sent_all = true,
            (true, false) => self.answer_is_over = Some(Instant::now() + ANSWER_IS_OVER),
            (true, true) => self.ends.end(),
        }
    }

    /// Does what is due.
    pub(super) fn deliver(&mut self, hole: bool) {
        let now = Instant::now();
        if self.answer_is_over.is_some_and(|over| over <= now) {
            return self.ends.end();
        }
        while !hole && !self.stalled {
            if !self.requests.deliver(now, &self.ends.server) {
                return self.ends.end();
            }
            let Some(fault) = self.next_fault(now) else {
                break;
            };
            match fault {
                // Before the request is written: what the server says next is the answer to it.
                Fault::LoseReply => self.answer_is_lost = true,
                Fault::Stall => self.stalled = true,
                Fault::LoseRequest => return self.ends.end(),
            }
        }
        if hole || self.stalled {
            // A socket that takes more would say so again and again while nothing passes.
            (self.requests.full, self.answers.full) = (false, false);
            return;
        }
        // Only what the client has seen can have made it speak again; and before it has seen it.
        let next = self.answers.under_way.front();
        self.server_spoke |= next.is_some_and(|parcel| parcel.due <= now);
        if !self.answers.deliver(now, &self.ends.client) {
            self.ends.end();
        }
    }

    fn next_fault(&mut self, now: Instant) -> Option<Fault> {
        let parcel = self.requests.under_way.front_mut()?;
        (parcel.due <= now).then(|| parcel.fault.take())?
    }
}

/// What has come: nothing when the sender is done, `None` when nothing has come yet.
fn read<'a>(mut socket: &TcpStream, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match socket.read(buffer) {
        Ok(length) => Some(&buffer[..length]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            None
        }
        Err(_) => Some(&[]),
    }
}
