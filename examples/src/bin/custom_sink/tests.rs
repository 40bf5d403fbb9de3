//! The suite of the toolkit's own sinks against this one, and what only this one has: a file that a crash has torn.

use std::fs;

use effectively::{
    sink::Sink,
    testing::sink::{Received, Rig, events},
};
use tempfile::TempDir;

use crate::journal::{Journal, LONGEST_LINE, Line};

effectively::sink_conformance!(rig);

async fn rig() -> Option<Folder> {
    tempfile::tempdir().ok().map(Folder)
}

/// The other side.
struct Folder(TempDir);

impl Folder {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("journal")
    }

    fn lines(&self) -> Vec<Received> {
        let text = fs::read_to_string(self.path()).expect("the journal");
        text.lines().map(received).collect()
    }
}

/// What a consumer makes of a line.
fn received(line: &str) -> Received {
    let line: Line = serde_json::from_str(line).expect("a line");
    Received {
        id: line.head["id"].clone(),
        name: line.head["type"].clone(),
        key: line.head.get("partitionkey").cloned(),
        data: line.data.get().as_bytes().to_vec(),
        headers: line.head,
    }
}

impl Rig for Folder {
    type Sink = Journal;

    async fn sink(&mut self) -> Journal {
        Journal::open(&self.path()).expect("the journal")
    }

    async fn topic(&mut self) -> String {
        "orders".to_owned()
    }

    async fn received(&mut self, _: &str, _: usize) -> Vec<Received> {
        self.lines()
    }

    fn oversized(&mut self) -> Option<usize> {
        Some(LONGEST_LINE)
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_line_spoils_no_other() {
    let folder = Folder(tempfile::tempdir().expect("a folder"));
    let sent = events("orders", &[Some("ann"), Some("bob")]);
    for event in &sent {
        let journal = Journal::open(&folder.path()).expect("the journal");
        let answers = journal.publish(std::slice::from_ref(event)).await;
        assert!(answers[0].is_published(), "{answers:?}");
        let mut torn = fs::read(folder.path()).expect("the journal");
        torn.extend(b"{\"topic\":\"ord");
        fs::write(folder.path(), torn).expect("the journal");
    }
    Journal::open(&folder.path()).expect("the journal");
    let ids: Vec<_> = folder.lines().into_iter().map(|line| line.id).collect();
    let sent: Vec<_> = sent.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids, sent);
}
