//! `Proxy`: the network between a client and its server.

mod carrier;
mod link;
mod trap;

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use carrier::carry;
use link::{Ends, Link};
use trap::{Fault, Tail, Trap};

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
        let (bell, woken) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("a socket that is open");
        let line = Arc::new(Line::new(server, bell));
        let (joined, joining) = mpsc::channel();
        let shared = line.clone();
        thread::spawn(move || accept(&listener, &shared, &joined));
        let shared = line.clone();
        thread::spawn(move || carry(&shared, &joining, &woken));
        Self { address, line }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads connections to another server from now on. Those that are open stay where they are.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.line.server() = server;
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
            .ends()
            .iter()
            .filter(|ends| ends.strong_count() > 0)
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
        self.line.hole.store(on, Ordering::SeqCst);
        self.line.ring();
    }

    /// Ends all connections at once, as a server that goes down does.
    pub fn sever(&self) {
        for ends in self.line.ends().iter().filter_map(Weak::upgrade) {
            ends.end();
        }
        self.line.ring();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.gone.store(true, Ordering::SeqCst);
        self.sever();
        // Wakes the thread that accepts, too, so that it sees it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// What all connections of one proxy share.
#[derive(Debug)]
struct Line {
    /// Where new connections go.
    server: Mutex<SocketAddr>,
    delay_nanos: AtomicU64,
    flights: AtomicUsize,
    trap: Mutex<Option<Trap>>,
    ends: Mutex<Vec<Weak<Ends>>>,
    /// Nothing passes while this is true.
    hole: AtomicBool,
    gone: AtomicBool,
    /// A byte here wakes the thread that carries.
    bell: UnixStream,
}

impl Line {
    fn new(server: SocketAddr, bell: UnixStream) -> Self {
        Self {
            server: Mutex::new(server),
            delay_nanos: AtomicU64::default(),
            flights: AtomicUsize::default(),
            trap: Mutex::default(),
            ends: Mutex::default(),
            hole: AtomicBool::default(),
            gone: AtomicBool::default(),
            bell,
        }
    }

    fn one_way(&self) -> Duration {
        Duration::from_nanos(self.delay_nanos.load(Ordering::SeqCst))
    }

    /// When the bell is full of bytes, the thread wakes up anyway.
    fn ring(&self) {
        let _ = (&self.bell).write(&[1]);
    }

    fn server(&self) -> MutexGuard<'_, SocketAddr> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_trap(&self, fault: Fault, message: &[u8]) {
        *self.trap() = Some(Trap::new(fault, message));
    }

    /// Takes the trap away with the fault: it springs once.
    fn spring(&self, tail: &Tail, chunk: &[u8]) -> Option<Fault> {
        let mut trap = self.trap();
        let fault = trap.as_ref()?.springs_on(tail, chunk)?;
        *trap = None;
        Some(fault)
    }

    fn ends(&self) -> MutexGuard<'_, Vec<Weak<Ends>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client after the other, until the proxy is gone.
fn accept(listener: &TcpListener, line: &Line, joined: &Sender<Link>) {
    for client in listener.incoming() {
        if line.gone.load(Ordering::SeqCst) {
            return;
        }
        // A server that is down looks like one: the client's socket is dropped, and closed by that.
        let _ = client.and_then(|client| join(client, line, joined));
    }
}

fn join(client: TcpStream, line: &Line, joined: &Sender<Link>) -> io::Result<()> {
    let address = *line.server();
    let server = TcpStream::connect(address)?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
    }
    let ends = Arc::new(Ends::new(client, server));
    let mut all = line.ends();
    all.retain(|ends| ends.strong_count() > 0);
    all.push(Arc::downgrade(&ends));
    drop(all);
    // Nobody carries any more: the proxy is gone, and the sockets close.
    let _ = joined.send(Link::new(ends));
    line.ring();
    Ok(())
}

/// Ends both directions. A socket that is closed already is what was wanted.
fn shut(socket: &TcpStream, how: Shutdown) {
    let _ = socket.shutdown(how);
}
