//! What the relay moves, how late an event is, and what it costs the database, beside the limit measured in the same run.
//!
//! ```sh
//! ./tests/run --servers cargo bench -p effectively-tests --bench relay                     # everything, about 12 minutes
//! ./tests/run --servers cargo bench -p effectively-tests --bench relay -- --only drain     # events per second alone
//! ```
//!
//! `--only` takes `drain`, `relays`, `latency`, `cost`, `snapshot` or `handler`; `--sink memory` (or kafka, nats, redis) limits the
//! drains to one. PostgreSQL is found through `EFFECTIVELY_TEST_POSTGRES`, the brokers through theirs. What is left out is said at
//! the end, and is exit code 1.
//!
//! The limit is a bare loop on one connection: read a batch, produce it with the broker's own client and await all answers,
//! delete the batch by its ids. It keeps no order under failure, shares with nobody and knows no refusal.

// A benchmark that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used, clippy::large_futures)]

mod relay {
    pub mod args;
    pub mod cost;
    pub mod drain;
    pub mod handler;
    pub mod latency;
    pub mod limit;
    pub mod report;
    pub mod shop;
    pub mod sinks;
    pub mod snapshot;
}

use std::env;
use std::process::ExitCode;

use effectively_tests::{TestDb, TestServer};
use relay::args::{Args, Part};
use relay::report::say;
use relay::{cost, drain, handler, latency, snapshot};
use sqlx::Postgres;

fn main() -> ExitCode {
    let args = match Args::read(env::args().skip(1)) {
        Ok(args) => args,
        Err(mistake) => {
            say(format_args!("{mistake}"));
            return ExitCode::from(2);
        }
    };
    if !args.measure {
        say(format_args!(
            "nothing is measured by `cargo test`: run `cargo bench`"
        ));
        return ExitCode::SUCCESS;
    }
    let is_set = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    if !Postgres::VARIABLE.is_some_and(is_set) {
        say(format_args!(
            "LEFT OUT: everything, because EFFECTIVELY_TEST_POSTGRES is not set; \
             `./tests/run --servers …` starts a server"
        ));
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let left_out = runtime.block_on(async {
        let mut lines = Vec::new();
        let mut left_out = Vec::new();
        if args.asks_for(Part::Drain) {
            drain::measure(&args, &mut lines, &mut left_out).await;
        }
        if args.asks_for(Part::Relays) {
            drain::one_against_four().await;
        }
        if args.asks_for(Part::Cost) {
            cost::measure(&TestDb::<Postgres>::new().await).await;
        }
        if args.asks_for(Part::Latency) {
            latency::measure().await;
        }
        if args.asks_for(Part::Handler) {
            handler::measure().await;
        }
        if args.asks_for(Part::Snapshot) {
            snapshot::measure().await;
        }
        for line in lines {
            say(format_args!("{line}"));
        }
        left_out
    });
    for sink in &left_out {
        say(format_args!("LEFT OUT: {sink}"));
    }
    ExitCode::from(u8::from(!left_out.is_empty()))
}
