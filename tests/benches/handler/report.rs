//! A small aligned report.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::time::Duration;

use super::load::Measured;
use super::variants::Variant;
use super::wire::{Trips, Wire};

/// One line to the standard output. A reader that is gone wants no more of it.
pub fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A title and a table: the first column to the left, numbers to the right.
#[derive(Debug)]
pub struct Report {
    title: String,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Report {
    fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            rows: vec![head.iter().map(|&word| word.to_owned()).collect()],
            notes: Vec::new(),
        }
    }

    pub fn of_wire(wire: &Wire) -> Self {
        let mut report = Self::new(
            "Round trips on the wire, PostgreSQL, warm",
            &["", "call", "with the release", "over bare"],
        );
        let bare = wire.of(Variant::Bare).call;
        let mut row = |name: &str, trips: Trips, over: String| {
            let cells = [
                name.into(),
                trips.call.to_string(),
                trips.with_release.to_string(),
                over,
            ];
            report.rows.push(cells.into());
        };
        for (variant, trips) in &wire.variants {
            let over = match variant {
                Variant::Bare | Variant::Replay | Variant::KnownReplay => String::new(),
                _ => format!("+{}", trips.call - bare),
            };
            row(variant.name(), *trips, over);
        }
        row(
            "duplicate in flight, other process, replays",
            wire.duplicate_elsewhere,
            String::new(),
        );
        row(
            "duplicate in flight, other process, 409",
            wire.refused_elsewhere,
            String::new(),
        );
        report.notes = vec![
            format!("a duplicate in flight in the same process adds {}", wire.duplicate_here),
            "the release is sqlx's ping when a connection goes back to its pool; the line at the end counts it for calls \
             and leaves it out for replays"
                .to_owned(),
        ];
        report
    }

    pub fn of_load(title: &str, measured: &[Measured]) -> Self {
        let head = [
            "",
            "calls/s",
            "p50 ms",
            "p99 ms",
            "of (a) bare",
            "of (b) by hand",
            "of first call",
        ];
        let mut report = Self::new(title, &head);
        for one in measured {
            let mut latencies = one
                .slices
                .iter()
                .flat_map(|slice| &slice.latencies)
                .copied()
                .collect::<Vec<_>>();
            latencies.sort_unstable();
            let took: Duration = one.slices.iter().map(|slice| slice.took).sum();
            let replay = matches!(one.variant, Variant::Replay | Variant::KnownReplay);
            let ratio = |to: Variant, wanted: bool| {
                if wanted && to != one.variant {
                    ratio(measured, one, to)
                } else {
                    String::new()
                }
            };
            report.rows.push(vec![
                one.variant.name().to_owned(),
                format!("{:.0}", latencies.len() as f64 / took.as_secs_f64()),
                milliseconds(&latencies, 50),
                milliseconds(&latencies, 99),
                ratio(Variant::Bare, !replay),
                ratio(Variant::ByHand, !replay && one.variant != Variant::Bare),
                ratio(Variant::Attribute, replay),
            ]);
        }
        report.notes = vec![
            "ratios of throughput: the median over the rounds, and the lowest and highest"
                .to_owned(),
        ];
        report
    }

    pub fn print(&self) {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        say(format_args!("\n{}", self.title));
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                line += &if column == 0 {
                    format!("  {cell:<width$}")
                } else {
                    format!("  {cell:>width$}")
                };
            }
            say(format_args!("{}", line.trim_end()));
        }
        for note in &self.notes {
            say(format_args!("  {note}"));
        }
    }
}

fn milliseconds(sorted: &[Duration], percent: usize) -> String {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    let latency = sorted.get(at).copied().unwrap_or_default();
    format!("{:.2}", latency.as_secs_f64() * 1000.0)
}

/// Of throughputs in the same round.
fn ratio(measured: &[Measured], one: &Measured, to: Variant) -> String {
    let Some(other) = measured.iter().find(|other| other.variant == to) else {
        return String::new();
    };
    let mut ratios: Vec<f64> = one
        .slices
        .iter()
        .zip(&other.slices)
        .map(|(one, other)| one.calls_per_second() / other.calls_per_second())
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (Some(lowest), Some(highest)) = (ratios.first(), ratios.last()) else {
        return String::new();
    };
    format!("{:.2} ({lowest:.2}-{highest:.2})", median(&ratios))
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}
