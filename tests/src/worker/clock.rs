//! The clock of a worker.

use std::env;

/// Holds the path of libfaketime, which stands between a process and the system's clock.
const LIBRARY: &str = "EFFECTIVELY_TEST_FAKETIME";

/// The environment of a process whose time of day is off by so much: `+2d`, `-3h`. What it measures between two moments is right.
pub(super) fn off_by(clock: &str) -> [(&'static str, String); 3] {
    let library = env::var(LIBRARY);
    let library = library.unwrap_or_else(|_| panic!("{LIBRARY} is not set; ./tests/run sets it"));
    [
        ("LD_PRELOAD", library),
        ("FAKETIME", clock.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}
