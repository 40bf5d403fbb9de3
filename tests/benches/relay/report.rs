//! Aligned lines.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::time::Duration;

/// One line to the standard output. A reader that is gone wants no more of it.
pub fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What stands at the end.
#[derive(Debug, Default)]
pub struct Summary {
    /// For programs.
    pub lines: Vec<String>,
    pub left_out: Vec<String>,
}

impl Summary {
    /// Once, however many parts miss it.
    pub fn leave_out(&mut self, what: &str, why: &str) {
        let line = format!("{what}: {why}");
        if !self.left_out.contains(&line) {
            self.left_out.push(line);
        }
    }
}

/// A title, a head and rows: the first column to the left, numbers to the right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    say(format_args!("\n{title}"));
    let mut all: Vec<Vec<String>> = vec![head.iter().map(|word| (*word).to_owned()).collect()];
    all.extend(rows.iter().cloned());
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &all {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            if column == 0 {
                line += &format!("  {cell:width$}");
            } else {
                line += &format!("  {cell:>width$}");
            }
        }
        say(format_args!("{line}"));
    }
}

/// The value below which this part of all lies, in milliseconds.
pub fn percentile(sorted: &[Duration], part: f64) -> f64 {
    let place = ((sorted.len() as f64 - 1.0) * part).round() as usize;
    sorted
        .get(place)
        .map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
