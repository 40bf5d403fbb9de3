//! `Proxy`: the network between a client and its server.

mod link;
mod trap;

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use link::Link;
use trap::{Fault, Trap};

/// Stands before a server on a free port of the loopback interface, until it is dropped.
///
/// It works in threads of its own: it needs no runtime, it is never late because a test blocks its runtime, and its delays are as
/// exact as the kernel's timers (the timers of tokio have a grain of a millisecond, as long as what is measured here). Each chunk
/// leaves a fixed time after it came, in order, so that many chunks are under way at once, as on a real line.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

impl Proxy {
    /// A proxy in front of `server`.
    ///
    /// # Panics
    /// If this machine has no free port left.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let line = Arc::new(Line::default());
        let shared = line.clone();
        thread::spawn(move || accept(&listener, server, &shared));
        Self { address, line }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, each chunk takes this long, in either direction. A round trip takes twice as long.
    pub fn delay(&self, one_way: Duration) {
        let nanos = u64::try_from(one_way.as_nanos()).expect("a delay of less than centuries");
        self.line.delay_nanos.store(nanos, Ordering::SeqCst);
    }

    /// Round trips on the wire since the last [`Proxy::take_flights`], over all connections.
    ///
    /// A flight begins with bytes from the client that follow bytes from the server: however many packets and messages leave
    /// together, they are one. Opening a connection counts too; a test that does not want that warms its pool up first.
    pub fn flights(&self) -> usize {
        self.line.flights.load(Ordering::SeqCst)
    }

    /// [`Proxy::flights`], and begins again at 0.
    pub fn take_flights(&self) -> usize {
        self.line.flights.swap(0, Ordering::SeqCst)
    }

    /// Connections that at least one side still holds open.
    pub fn connections(&self) -> usize {
        self.line
            .links()
            .iter()
            .filter(|link| link.strong_count() > 0)
            .count()
    }

    /// Lets the next message with these bytes in it reach the server, swallows the answer, and ends the connection.
    pub fn cut_next_reply(&self, message: &[u8]) {
        self.line.set_trap(Fault::LoseReply, message);
    }

    /// Swallows the next message with these bytes in it, and ends the connection. The server never sees the message.
    pub fn lose_next_request(&self, message: &[u8]) {
        self.line.set_trap(Fault::LoseRequest, message);
    }

    /// From the next message with these bytes in it, that one connection is silent in both directions, and nobody is told.
    pub fn stall_at(&self, message: &[u8]) {
        self.line.set_trap(Fault::Stall, message);
    }

    /// Whether the fault that was asked for last has not happened yet. A test asserts that it has, or it has tested nothing.
    pub fn is_armed(&self) -> bool {
        self.line.trap().is_some()
    }

    /// All connections become silent, old and new, until `false` lets what was held back go on.
    pub fn black_hole(&self, on: bool) {
        *self
            .line
            .hole
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = on;
        self.line.changed.notify_all();
    }

    /// Ends all connections at once, as a server that goes down does.
    pub fn sever(&self) {
        for link in self.line.links().iter().filter_map(Weak::upgrade) {
            link.end();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.gone.store(true, Ordering::SeqCst);
        self.sever();
        // Wakes the thread that accepts, so that it sees it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// How long a thread before a hole waits until it looks whether its connection is over.
const NEXT_LOOK: Duration = Duration::from_millis(20);

/// What all connections of one proxy share.
#[derive(Debug, Default)]
struct Line {
    delay_nanos: AtomicU64,
    flights: AtomicUsize,
    trap: Mutex<Option<Trap>>,
    links: Mutex<Vec<Weak<Link>>>,
    /// Nothing passes while this is true.
    hole: Mutex<bool>,
    changed: Condvar,
    gone: AtomicBool,
}

impl Line {
    fn one_way(&self) -> Duration {
        Duration::from_nanos(self.delay_nanos.load(Ordering::SeqCst))
    }

    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_trap(&self, fault: Fault, message: &[u8]) {
        *self.trap() = Some(Trap::new(fault, message));
    }

    fn links(&self) -> MutexGuard<'_, Vec<Weak<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once bytes may pass on this link, or it is over.
    fn wait_until_open(&self, link: &Link) {
        let mut hole = self.hole.lock().unwrap_or_else(PoisonError::into_inner);
        while (*hole || link.is_stalled()) && !link.is_over() {
            // With a bound: the link may end without a word to those who wait here.
            hole = self
                .changed
                .wait_timeout(hole, NEXT_LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// One client after the other, until the proxy is gone.
fn accept(listener: &TcpListener, server: SocketAddr, line: &Arc<Line>) {
    for client in listener.incoming() {
        if line.gone.load(Ordering::SeqCst) {
            return;
        }
        // A server that is down looks like one: the client's socket is dropped, and closed by that.
        let _ = client.and_then(|client| join(client, server, line));
    }
}

fn join(client: TcpStream, server: SocketAddr, line: &Arc<Line>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let link = Arc::new(Link::new(client, server));
    let mut links = line.links();
    links.retain(|link| link.strong_count() > 0);
    links.push(Arc::downgrade(&link));
    drop(links);
    link::carry(&link, line);
    Ok(())
}

/// Ends both directions. A socket that is closed already is what was wanted.
fn shut(socket: &TcpStream, how: Shutdown) {
    let _ = socket.shutdown(how);
}
