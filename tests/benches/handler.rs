//! What a call costs: round trips on the wire, throughput and latency against the same transaction bare and by hand.
//!
//! ```sh
//! cargo bench -p effectively-tests --bench handler                          # counts and speeds, about three minutes
//! cargo bench -p effectively-tests --bench handler -- --only wire           # the counts alone
//! cargo bench -p effectively-tests --bench handler -- --database sqlite     # needs no server
//! cargo bench -p effectively-tests --bench handler -- --only build          # build time and dependencies; slow
//! ```
//!
//! PostgreSQL is found through `EFFECTIVELY_TEST_POSTGRES`. What is left out is said at the end, and is exit code 1.

// A benchmark that cannot go on says why and stops: here that is the right thing to do.
// And the size of a future on one stack does not matter where it is polled by one task.
#![allow(clippy::expect_used, clippy::large_futures)]

mod handler {
    pub mod args;
    pub mod build;
    pub mod by_hand;
    pub mod duplicates;
    pub mod load;
    pub mod report;
    pub mod shop;
    pub mod variants;
    pub mod wire;
}

use std::env;
use std::process::ExitCode;

use effectively_tests::{TestDb, TestServer};
use handler::args::{Args, Db, Part};
use handler::report::{Report, say};
use handler::{build, load, wire};
use sqlx::{Postgres, Sqlite};

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
    if args.asks_for(Part::Build) {
        build::compare();
    }
    let missing = args.on(Db::Postgres)
        && Postgres::VARIABLE.is_some_and(|url| env::var_os(url).is_none_or(|url| url.is_empty()));
    let postgres = args.on(Db::Postgres) && !missing;

    let wire = (postgres && args.asks_for(Part::Wire)).then(wire::count);
    if let Some(wire) = &wire {
        Report::of_wire(wire).print();
    }
    if args.asks_for(Part::Load) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        if postgres {
            runtime.block_on(async { load::postgres(&TestDb::<Postgres>::new().await).await });
        }
        if args.on(Db::Sqlite) {
            runtime.block_on(async { load::sqlite(&TestDb::<Sqlite>::new().await).await });
        }
    }
    if missing && (args.asks_for(Part::Wire) || args.asks_for(Part::Load)) {
        say(format_args!(
            "LEFT OUT: PostgreSQL, because EFFECTIVELY_TEST_POSTGRES is not set; \
             `./tests/run --servers …` starts a server"
        ));
        return ExitCode::FAILURE;
    }
    if let Some(wire) = wire {
        say(format_args!("{}", wire.line()));
    }
    ExitCode::SUCCESS
}
