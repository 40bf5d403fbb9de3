//! `Transcript`: all that a worker printed.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Shown when the worker fails: by then its process is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    fn push(&self, line: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(line);
        text.push('\n');
    }

    pub(super) fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Reads lines until the pipe ends.
pub(super) fn follow(
    pipe: Option<impl Read + Send + 'static>,
    transcript: Transcript,
    mut each: impl FnMut(&str) + Send + 'static,
) {
    let pipe = pipe.expect("a pipe, as asked for");
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            transcript.push(&line);
            each(&line);
        }
    });
}
