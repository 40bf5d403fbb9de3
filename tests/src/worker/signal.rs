//! The signals that the standard library does not know.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// By the shell's own `kill`: calling the system's needs `unsafe`.
pub(super) fn send(process: u32, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "SIG{name} to the worker"
    );
}

/// Returns when nothing of the process runs any more. `kill` itself only says that the signal is on its way, and each thread stops
/// when it is met by it.
pub(super) fn stop(process: u32, bound: Duration) {
    send(process, "STOP");
    let end = Instant::now() + bound;
    while !has_stopped(process) {
        assert!(Instant::now() < end, "the worker runs on after SIGSTOP");
        sleep(Duration::from_millis(1));
    }
}

/// Whether all its threads have. Where there is no `/proc`, the answer is yes.
fn has_stopped(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // After the name in brackets, which may itself contain some.
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}
