//! What the relay moves, how late an event is, and what it costs the database, beside the limit measured in the same run.
//!
//! ```sh
//! ./tests/run --servers cargo bench -p effectively-tests --bench relay                     # everything, about 12 minutes
//! ./tests/run --servers cargo bench -p effectively-tests --bench relay -- --only drain     # events per second alone
//! ```
//!
//! `--only` takes `drain`, `relays`, `latency`, `cost`, `snapshot` or `handler`; `--sink memory` (or kafka, nats, redis) limits
//! drains and latency to one; `--short` holds the snapshot for 20 s. PostgreSQL is found through `EFFECTIVELY_TEST_POSTGRES`, the brokers through theirs. What is left out is said at
//! the end, and is exit code 1.
//!
//! The limit is a bare loop on one connection: read a batch, produce it with the broker's own client and await all answers,
//! delete the batch by its ids. It keeps no order under failure, shares with nobody and knows no refusal. Against
//! `kafka-transactional` it produces each batch in one transaction, where the sink needs one for each virtual partition.

// A benchmark that cannot go on says why and stops: here that is the right thing to do.
#![allow(clippy::expect_used, clippy::large_futures)]

mod relay {
    pub mod args;
    pub mod cost;
    pub mod drain;
    pub mod handler;
    #[cfg(feature = "kafka")]
    pub mod kafka;
    pub mod latency;
    pub mod limit;
    pub mod load;
    #[cfg(feature = "nats")]
    pub mod nats;
    #[cfg(feature = "redis")]
    pub mod redis;
    pub mod report;
    pub mod running;
    pub mod shop;
    pub mod sinks;
    pub mod snapshot;
}

use std::env;
use std::process::ExitCode;

use effectively_tests::TestServer;
use relay::args::{Args, Part};
use relay::report::{Summary, say};
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
    let summary = runtime.block_on(async {
        let mut summary = Summary::default();
        if args.asks_for(Part::Drain) {
            drain::measure(&args, &mut summary).await;
        }
        if args.asks_for(Part::Relays) {
            drain::one_against_four(&mut summary).await;
        }
        if args.asks_for(Part::Cost) {
            cost::measure(&mut summary).await;
        }
        if args.asks_for(Part::Latency) {
            latency::measure(&args, &mut summary).await;
        }
        if args.asks_for(Part::Handler) {
            handler::measure(&mut summary).await;
        }
        if args.asks_for(Part::Snapshot) {
            snapshot::measure(&args, &mut summary).await;
        }
        summary
    });
    say(format_args!(""));
    for line in &summary.lines {
        say(format_args!("{line}"));
    }
    for sink in &summary.left_out {
        say(format_args!("LEFT OUT: {sink}"));
    }
    ExitCode::from(u8::from(!summary.left_out.is_empty()))
}
