//! What the command line asks for.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Drain,
    Relays,
    Latency,
    Cost,
    Snapshot,
    Handler,
}

const SINKS: [&str; 4] = ["memory", "kafka", "nats", "redis"];

#[derive(Debug, Default)]
pub struct Args {
    /// `cargo bench` says `--bench`, `cargo test --all-targets` does not.
    pub measure: bool,
    /// The part that takes minutes takes less, and says less.
    pub short: bool,
    only: Option<Part>,
    sink: Option<String>,
}

impl Args {
    /// # Errors
    /// What is wrong, and what is right.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => args.measure = true,
                "--short" => args.short = true,
                "--only" => args.only = Some(part(words.next())?),
                "--sink" => args.sink = Some(sink(words.next())?),
                other => {
                    return Err(format!(
                        "unknown argument {other:?}; there are --only, --sink and --short"
                    ));
                }
            }
        }
        Ok(args)
    }

    pub fn asks_for(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    pub fn on(&self, sink: &str) -> bool {
        self.sink.as_deref().is_none_or(|only| only == sink)
    }
}

fn part(word: Option<String>) -> Result<Part, String> {
    match word.as_deref() {
        Some("drain") => Ok(Part::Drain),
        Some("relays") => Ok(Part::Relays),
        Some("latency") => Ok(Part::Latency),
        Some("cost") => Ok(Part::Cost),
        Some("snapshot") => Ok(Part::Snapshot),
        Some("handler") => Ok(Part::Handler),
        _ => Err("--only drain, relays, latency, cost, snapshot or handler".to_owned()),
    }
}

fn sink(word: Option<String>) -> Result<String, String> {
    word.filter(|word| SINKS.contains(&word.as_str()))
        .ok_or_else(|| "--sink memory, kafka, nats or redis".to_owned())
}
