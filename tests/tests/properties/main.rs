//! What holds for every key, fingerprint, outcome and header, and not only for those that somebody thought of.
//!
//! Each is compared with a model that is too simple to be wrong: the values that it was made of.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use proptest::test_runner::Config;

mod fingerprints;
mod headers;
mod keys;
mod outcomes;

/// Quick, and without a file of old failures: one that is found becomes a test.
fn bounded(cases: u32) -> Config {
    Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    }
}
