//! What must not compile, and what the compiler says then: one mistake per file, and every message says what is right.
//!
//! The texts are those of one compiler. After a wanted change run `TRYBUILD=overwrite cargo test -p effectively-tests
//! --test ui` and read the difference.

// A test that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used)]

use std::process::Command;

const COMPILER: &str = "rustc 1.95.";

#[test]
fn every_mistake_has_its_message() {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .expect("a compiler");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(
        version.starts_with(COMPILER),
        "the expected messages are those of `{COMPILER}`, this is {version}; use the toolchain of rust-toolchain.toml"
    );
    trybuild::TestCases::new().compile_fail("tests/ui/*/*.rs");
}
