//! `LogCapture`: everything that was logged, to be searched.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::Subscriber;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// A subscriber that writes every span and event, at every level, into memory.
///
/// A test that looks for a secret in the logs uses [`LogCapture::global`]: drivers log from threads of their own. It belongs into a
/// [`Worker`](crate::Worker) or a test binary of its own, for the whole process logs into it from then on.
#[derive(Debug)]
pub struct LogCapture {
    buffer: Buffer,
    _until_dropped: Option<DefaultGuard>,
}

impl LogCapture {
    /// Captures what *this thread* logs until the value is dropped. Enough for a test on a current-thread runtime.
    #[must_use = "the capture ends when this is dropped"]
    pub fn on_this_thread() -> Self {
        let buffer = Buffer::default();
        let guard = tracing::subscriber::set_default(subscriber(buffer.clone()));
        Self {
            buffer,
            _until_dropped: Some(guard),
        }
    }

    /// Captures what *any thread of this process* logs, through `tracing` or `log`, until the process ends.
    ///
    /// Later calls see the same text.
    ///
    /// # Panics
    /// If the process has another global subscriber already.
    pub fn global() -> Self {
        static BUFFER: OnceLock<Buffer> = OnceLock::new();
        let buffer = BUFFER.get_or_init(|| {
            let buffer = Buffer::default();
            subscriber(buffer.clone())
                .try_init()
                .expect("no other global subscriber in this process");
            buffer
        });
        Self {
            buffer: buffer.clone(),
            _until_dropped: None,
        }
    }

    /// All of it, as a formatter would have printed it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer.bytes()).into_owned()
    }

    /// The lines that contain `needle`; none is what a search for a secret hopes for.
    pub fn lines_with(&self, needle: &str) -> Vec<String> {
        self.text()
            .lines()
            .filter(|line| line.contains(needle))
            .map(str::to_owned)
            .collect()
    }

    /// Forgets what was logged so far.
    pub fn clear(&self) {
        self.buffer.bytes().clear();
    }
}

/// `FULL`: a span that is entered and left without an event still shows its fields.
fn subscriber(buffer: Buffer) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(buffer)
        .finish()
}

#[derive(Clone, Debug, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    /// A test that panicked while logging must not take the log of the others with it.
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'writer> MakeWriter<'writer> for Buffer {
    type Writer = Self;
    fn make_writer(&'writer self) -> Self {
        self.clone()
    }
}
