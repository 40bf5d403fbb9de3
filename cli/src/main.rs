//! The operator's command line of `effectively`: migrate, look, relay, repair.
//!
//! ```text
//! effectively migrate            creates the tables, or brings them up to date
//! effectively status             what waits, what was given up, who relays
//! effectively relay              publishes events until it is told to stop
//! effectively dead-letters …     list, show, retry, discard
//! effectively keys …             show, interrupted, release
//! effectively purge              deletes outcomes and published events whose retention is over
//! effectively doctor             looks for what is wrong, and says what to do
//! ```
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | fine |
//! | 1 | findings, or the operation failed |
//! | 2 | wrong usage or configuration |
//! | 3 | the database cannot be reached |
//! | 4 | its tables are missing or of another version |
//!
//! Results go to stdout, progress and errors to stderr. A reader that closes stdout early (`| head -1`) ends it in silence, but
//! for `relay`, whose sink `stdout` is then down.
//!
//! # The configuration of a relay
#![doc = concat!("```toml\n", include_str!("relay.toml"), "```")]

use std::process::ExitCode;

use clap::Parser;

mod args;
mod commands;
mod config;
mod database;
mod failure;
mod output;
mod sinks;
#[cfg(any(feature = "sqs", feature = "tls", feature = "webhook"))]
mod tls;

use args::{Args, Command};
use failure::{End, Failure};
use output::Output;

fn main() -> ExitCode {
    #[cfg(feature = "tls")]
    tls::start();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let end = match runtime {
        Ok(runtime) => {
            let end = runtime.block_on(run(&args));
            // A blocking call of a client must not hold the end.
            runtime.shutdown_background();
            end
        }
        Err(error) => Err(Failure::Failed(format!("no runtime: {error}"))),
    };
    failure::exit_code(end)
}

async fn run(args: &Args) -> Result<End, Failure> {
    let out = Output::new(args.json);
    if let Command::Relay(relay) = &args.command {
        return commands::relay::run(args, relay).await;
    }
    if let Command::Doctor(doctor) = &args.command {
        return commands::doctor::run(args, doctor, &out).await;
    }
    let database = database::connect(&args.at(), 2).await?;
    database::on!(database, ledger => match &args.command {
        Command::Migrate => commands::migrate::run(&ledger, &out).await,
        Command::Status(status) => commands::status::run(&ledger, status, &out).await,
        Command::DeadLetters { command } => commands::dead_letters::run(&ledger, command, &out).await,
        Command::Keys { command } => commands::keys::run(&ledger, command, &out).await,
        Command::Purge => commands::purge::run(&ledger, &out).await,
        Command::Relay(_) | Command::Doctor(_) => Ok(End::Fine),
    })
}
