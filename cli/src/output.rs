//! Results on stdout, everything else on stderr.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::failure::Failure;

/// Where results go, and in which form.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// The result of a command: as one line of JSON, or as the text made by `text`.
    pub(crate) fn result(
        &self,
        json: &Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let mut result = if self.json { json.to_string() } else { text() };
        if !result.ends_with('\n') {
            result.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(result.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// A line on stderr. Where nobody reads it, there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A bar on stderr, if that is a terminal. `None`: the end is not known.
pub(crate) fn progress(length: Option<u64>, doing: &'static str) -> ProgressBar {
    let (bar, style) = match length {
        Some(length) => (ProgressBar::new(length), "{msg} {bar:30} {pos}/{len}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {pos}"),
    };
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.with_message(doing)
}

/// Rows as columns, the first row their titles.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What others have written, without what could steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    let harmless = |letter: char| {
        if letter.is_control() {
            '\u{fffd}'
        } else {
            letter
        }
    };
    text.chars().map(harmless).collect()
}

/// A time since 1970 as RFC 3339.
pub(crate) fn time(since_1970: Duration) -> String {
    match SystemTime::UNIX_EPOCH.checked_add(since_1970) {
        Some(time) => humantime::format_rfc3339_millis(time).to_string(),
        None => format!("{} ms after 1970", since_1970.as_millis()),
    }
}

/// A duration in words, no finer than a second above a minute.
pub(crate) fn span(duration: Duration) -> String {
    let finest = if duration.as_secs() >= 60 {
        Duration::from_secs(duration.as_secs())
    } else {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    };
    humantime::format_duration(finest).to_string()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `1 event`, `2 events`.
pub(crate) fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
