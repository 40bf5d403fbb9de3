//! What goes wrong on the first attempt: orders of a vase panic, orders of a piano take until the client has lost patience.

use std::{
    panic,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

pub const VASE: &str = "a glass vase";
pub const PIANO: &str = "a grand piano";

static VASE_IS_SLIPPERY: AtomicBool = AtomicBool::new(true);
static PIANO_IS_HEAVY: AtomicBool = AtomicBool::new(true);

/// Tells the client that the body is at work on the piano.
pub static LIFTING: Notify = Notify::const_new();

/// Called in the body, after the order was inserted.
pub async fn strike(item: &str) {
    if item == VASE && VASE_IS_SLIPPERY.swap(false, Ordering::Relaxed) {
        panic!("the vase slipped");
    }
    if item == PIANO && PIANO_IS_HEAVY.swap(false, Ordering::Relaxed) {
        LIFTING.notify_one();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

/// A panic is part of the show: one line instead of a backtrace.
#[expect(clippy::print_stderr, reason = "where panics are reported")]
pub fn say_panics_in_one_line() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        eprintln!("(a body panicked: {message})");
    }));
}
