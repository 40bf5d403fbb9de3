//! The sink: a file that gets one line of JSON for each event.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use effectively::{
    Envelope,
    sink::{Delivery, Sink},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

/// In bytes.
pub const LONGEST_LINE: usize = 4096;

pub struct Journal(Arc<Mutex<File>>);

/// What stands in the file.
#[derive(Serialize, Deserialize)]
pub struct Line<'a> {
    pub topic: String,
    /// The attributes of CloudEvents, the id among them, and the event's own headers.
    pub head: BTreeMap<String, String>,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl Journal {
    /// Opens the file, or makes it. Half a line, which a crash can leave, is cut off: its event was not called published.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        file.set_len(whole.map_or(0, |end| end + 1) as u64)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }
}

impl Sink for Journal {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let (mut answers, mut lines) = (Vec::with_capacity(batch.len()), Vec::new());
        let mut stopped = HashSet::new();
        for event in batch {
            let key = event.partition_key.as_deref();
            if key.is_some_and(|key| stopped.contains(key)) {
                answers.push(Delivery::Held); // nothing passes an earlier event of its key
                continue;
            }
            match line(event) {
                Ok(line) => {
                    lines.extend(line);
                    answers.push(Delivery::Published);
                }
                Err(reason) => {
                    stopped.extend(key);
                    answers.push(Delivery::refused_for_good(reason));
                }
            }
        }
        // A disk is slow, so not on this thread. If this future is dropped meanwhile, the lines are written all the same, and
        // once more when the relay publishes the events again, with the same ids.
        let file = Arc::clone(&self.0);
        let written = spawn_blocking(move || append(&file, &lines)).await;
        let failed = match written {
            Ok(Ok(())) => return answers,
            Ok(Err(error)) => Delivery::unavailable(error.kind().to_string()),
            Err(_) => Delivery::unavailable("the writing thread has panicked"),
        };
        answers.fill(failed);
        answers
    }

    /// It writes in the order of the batch, all of it or nothing, and holds what stands behind a refused event.
    fn keeps_order(&self) -> bool {
        true
    }
}

fn line(event: &Envelope) -> Result<Vec<u8>, &'static str> {
    let mut head = event.headers.clone();
    let attributes = event.attributes();
    head.extend(attributes.map(|(name, value)| (name.to_owned(), value.into_owned())));
    let topic = event.topic.clone();
    let data = serde_json::from_slice(&event.data).map_err(|_| "the data is no JSON")?;
    let line = serde_json::to_vec(&Line { topic, head, data });
    let mut line = line.map_err(|_| "the event cannot be written as JSON")?;
    line.push(b'\n');
    if line.len() > LONGEST_LINE {
        return Err("the event is longer than a line may be");
    }
    Ok(line)
}

/// All lines or none. `Published` may be said once they are on the disk, and not only in the memory of the system.
fn append(file: &Mutex<File>, lines: &[u8]) -> io::Result<()> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    let before = file.metadata()?.len();
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(before)?; // or the next line would begin in the middle of this one
    }
    written
}
