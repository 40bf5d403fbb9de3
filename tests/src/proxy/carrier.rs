//! The thread that carries: it waits for the sockets of all connections, and for the next parcel that is due.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Line;
use super::link::Link;

/// Carries until the proxy is gone. `woken` has a byte for it when something changes that no socket tells of.
pub(super) fn carry(line: &Line, joining: &Receiver<Link>, mut woken: &UnixStream) {
    let mut links: Vec<Link> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !line.gone.load(Ordering::SeqCst) {
        let ready = wait(&links, line.hole.load(Ordering::SeqCst), woken);
        if ready.woken {
            let _ = woken.read(&mut buffer);
        }
        for (link, ready) in links.iter_mut().zip(ready.links) {
            if ready.client {
                link.read_requests(line, &mut buffer);
            }
            if ready.server {
                link.read_answers(line, &mut buffer);
            }
        }
        links.extend(joining.try_iter());
        let hole = line.hole.load(Ordering::SeqCst);
        links.iter_mut().for_each(|link| link.deliver(hole));
        links.retain(|link| !link.is_over());
    }
}

/// Who has something to read.
struct Ready {
    woken: bool,
    links: Vec<ReadyLink>,
}

#[derive(Clone, Copy, Default)]
struct ReadyLink {
    client: bool,
    server: bool,
}

/// Waits with the grain of the kernel's timers: those of an event loop have one of a millisecond, as long as what is measured.
fn wait(links: &[Link], hole: bool, woken: &UnixStream) -> Ready {
    let mut waits = vec![PollFd::new(woken, PollFlags::IN)];
    // Whose socket each further entry is. One that nothing is wanted of is left out: it would say again and again that it hung up.
    let mut whose = Vec::new();
    for (place, link) in links.iter().enumerate() {
        for (is_client, (socket, read, write)) in [(true, link.client()), (false, link.server())] {
            if let Some(wanted) = wanted(socket, read, write) {
                waits.push(wanted);
                whose.push((place, is_client, read));
            }
        }
    }
    let next = links.iter().filter_map(|link| link.due(hole)).min();
    let timeout = next.map(|due| timespec(due.saturating_duration_since(Instant::now())));
    let mut ready = Ready {
        woken: false,
        links: vec![ReadyLink::default(); links.len()],
    };
    // A signal: nothing is ready, and the caller waits again.
    if poll(&mut waits, timeout.as_ref()).is_err() {
        return ready;
    }
    ready.woken = !waits[0].revents().is_empty();
    // Whatever it says, reading finds out what it is.
    let told = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
    for (wait, (place, is_client, read)) in waits[1..].iter().zip(whose) {
        let readable = read && wait.revents().intersects(told);
        let link = &mut ready.links[place];
        if is_client {
            link.client = readable;
        } else {
            link.server = readable;
        }
    }
    ready
}

fn wanted(socket: &TcpStream, read: bool, write: bool) -> Option<PollFd<'_>> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, read);
    flags.set(PollFlags::OUT, write);
    (!flags.is_empty()).then(|| PollFd::new(socket, flags))
}

fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}
