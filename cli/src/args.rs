//! What is written on the command line. The comments are the text of `--help`.

use std::{path::PathBuf, time::Duration};

use clap::{Args as Group, Parser, Subcommand};

use crate::database::At;

const EXIT_CODES: &str = "Exit codes:
  0  fine
  1  findings, or the operation failed
  2  wrong usage or configuration
  3  the database cannot be reached
  4  its tables are missing or of another version

Results go to stdout, progress and errors to stderr.";

const RELAY: &str = concat!(
    "All that a configuration can hold:\n\n",
    include_str!("relay.toml")
);

/// Operates the outbox, the relay and the idempotency keys of `effectively`.
#[derive(Debug, Parser)]
#[command(name = "effectively", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// The database: postgres://, mysql://, mariadb:// or sqlite:
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database_url: Option<String>,
    /// The schema of the tables; on MySQL the database
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// What the tables' names begin with [default: effectively_]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub(crate) table_prefix: Option<String>,
    /// Answers in JSON, one line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    pub(crate) fn at(&self) -> At {
        At {
            url: self.database_url.clone(),
            schema: self.schema.clone(),
            table_prefix: self.table_prefix.clone(),
            notify: false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates the tables, or brings them to the version of this program
    Migrate,
    /// What waits, what was given up, who relays
    Status(Status),
    /// Publishes committed events until SIGINT or SIGTERM, then ends in order
    #[command(after_long_help = RELAY)]
    Relay(Relay),
    /// Events that a relay has given up
    DeadLetters {
        #[command(subcommand)]
        command: DeadLetters,
    },
    /// Idempotency keys
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// Deletes outcomes and published events whose retention is over, beside traffic
    Purge,
    /// Looks for what is wrong with the database, the configuration and the brokers, and says what to do
    Doctor(Doctor),
}

#[derive(Debug, Group)]
pub(crate) struct Status {
    /// Lists all 64 leases
    #[arg(long)]
    pub(crate) leases: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Relay {
    /// The configuration, in TOML. A database that it names goes before --database-url
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Reads the configuration, builds the relay, and ends
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Lists them, oldest first, without their data
    List {
        /// Only those of this topic
        #[arg(long)]
        topic: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Those after this id: the end of the page before
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
    },
    /// Shows one with its data and headers
    Show {
        /// Its id, from `list`
        id: i64,
    },
    /// Puts them back into the outbox, with the same event ids
    Retry(Selection),
    /// Deletes them for ever
    Discard {
        #[command(flatten)]
        selection: Selection,
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters.
#[derive(Debug, Group)]
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// Ids, from `list`
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<i64>,
    /// All there are now
    #[arg(long)]
    pub(crate) all: bool,
    /// All there are now of this topic
    #[arg(long)]
    pub(crate) topic: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Whether a key is free, complete or interrupted
    Show(KeyChoice),
    /// Frees an interrupted key, so that the next call with it executes. Look first whether its effects happened
    Release(KeyChoice),
    /// Lists keys whose call ended its own transaction
    Interrupted,
}

/// Which key.
#[derive(Debug, Group)]
pub(crate) struct KeyChoice {
    /// The id, 64 hex digits, from `keys interrupted`
    #[arg(long, value_name = "HEX", conflicts_with_all = ["scope", "key", "parts"], required_unless_present = "scope")]
    pub(crate) id: Option<String>,
    /// The scope: the handler's `scope`, or its function's name
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// The handler's template with the values in its braces, for example 'order:{42}'
    #[arg(
        long,
        value_name = "TEXT",
        requires = "scope",
        conflicts_with = "parts"
    )]
    pub(crate) key: Option<String>,
    /// The parts of a key that was made without a template (`Key::new`)
    #[arg(value_name = "PART", requires = "scope")]
    pub(crate) parts: Vec<String>,
}

#[derive(Debug, Group)]
pub(crate) struct Doctor {
    /// The configuration of the relay, to be looked at as well
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How long consumers of the events keep their claims: it must outlive what a broker can deliver again
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) retention: Duration,
    /// Exit code 1 for warnings, too
    #[arg(long)]
    pub(crate) strict: bool,
}
