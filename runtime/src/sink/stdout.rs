//! A sink that prints, for development.

use std::io::Write;

use serde_json::{Map, Value};

use super::{Delivery, Sink};
use crate::model::Envelope;

/// Prints each event as one line of JSON: CloudEvents 1.0 in structured mode, with the topic as `subject`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Stdout;

impl Stdout {
    /// To the process's standard output.
    pub fn new() -> Self {
        Self
    }
}

impl Sink for Stdout {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let lines: String = batch.iter().map(line).collect();
        let mut out = std::io::stdout().lock();
        let answer = match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Delivery::Published,
            Err(error) => Delivery::unavailable(error.to_string()),
        };
        vec![answer; batch.len()]
    }

    fn keeps_order(&self) -> bool {
        true
    }
}

fn line(event: &Envelope) -> String {
    let text = |value: &str| Value::from(value);
    let mut line: Map<String, Value> = event
        .attributes()
        .map(|(name, value)| (name.to_owned(), text(&value)))
        .collect();
    line.insert("subject".to_owned(), text(&event.topic));
    for (name, value) in &event.headers {
        line.entry(name.clone()).or_insert_with(|| text(value));
    }
    let data = serde_json::from_slice(&event.data).unwrap_or(Value::Null);
    line.insert("data".to_owned(), data);
    format!("{}\n", Value::Object(line))
}
