//! Runs the program, and makes what it is to find.

use std::borrow::Cow;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use effectively::sink::{Delivery, Memory};
use effectively::{Dialect, Emit, Error, Event, Failure, Key, Ledger, Relay};
use effectively_tests::{TestDb, TestServer, eventually};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A database of the suite that the toolkit works on.
pub trait OperatorDb: TestServer + Dialect {}
impl<DB: TestServer + Dialect> OperatorDb for DB {}

/// Longer than anything that is waited for; a test that reaches it has failed.
pub const SOON: Duration = Duration::from_secs(60);

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless it ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert!(!self.err.contains("panicked"), "{self:?}");
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// The program, with an environment that says nothing.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_effectively"));
    command.args(arguments).stdin(Stdio::null());
    command.env_remove("DATABASE_URL").env_remove("RUST_LOG");
    command
}

/// Runs the program to its end.
pub fn effectively(arguments: &[&str]) -> Ran {
    let output = program(arguments).output().expect("the program");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Runs the program on a database.
pub fn on<DB: OperatorDb>(db: &TestDb<DB>, arguments: &[&str]) -> Ran {
    let mut all = vec!["--database-url", db.url()];
    all.extend(arguments);
    effectively(&all)
}

/// A migrated database.
pub async fn ledger<DB: OperatorDb>(db: &TestDb<DB>) -> Ledger<DB> {
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    ledger
}

#[derive(Debug, Serialize)]
pub struct Placed {
    pub order: u64,
}

impl Event for Placed {
    const TOPIC: &'static str = "orders";
    const NAME: &'static str = "order.placed.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        Some(self.order.to_string().into())
    }
}

#[derive(Debug, Serialize)]
pub struct Mail(pub &'static str);

impl Event for Mail {
    const TOPIC: &'static str = "mail.welcome";
    const NAME: &'static str = "mail.v1";

    fn partition_key(&self) -> Option<Cow<'_, str>> {
        None
    }
}

pub async fn emit<DB: OperatorDb>(ledger: &Ledger<DB>, emission: Emit<()>) {
    let id = sqlx::types::Uuid::new_v4().to_string();
    let key = Key::new("emit", &[&id]).expect("a key");
    let emitted: Result<_, Failure<Error>> = ledger
        .call(key)
        .run_with_events(async |_: &mut DB::Connection| Ok(emission))
        .await;
    emitted.expect("a committed call");
}

/// The orders with these numbers, in one call.
pub async fn orders<DB: OperatorDb>(ledger: &Ledger<DB>, numbers: std::ops::Range<u64>) {
    let events = numbers.map(|order| Placed { order });
    emit(ledger, Emit::new(()).events(events)).await;
}

/// Makes dead letters of everything that waits.
pub async fn refuse_all<DB: OperatorDb>(ledger: &Ledger<DB>) {
    let sink = Memory::new().judged_by(|_| Some(Delivery::refused_for_good("closed on Sundays")));
    let relay = Relay::builder(ledger.clone())
        .route("*", sink)
        .poll(Duration::from_millis(20))
        .build()
        .expect("a relay");
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async { _ = ended.await }));
    eventually(SOON, async || {
        ledger.outbox().pending().await.expect("a count") == 0
    })
    .await;
    drop(end);
    running.await.expect("no panic").expect("an end in order");
}

/// A relay that is killed when the test ends early.
pub struct Running(pub Child);

impl Running {
    pub fn with(arguments: &[&str]) -> Self {
        let child = program(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("the program"))
    }

    /// Its exit code, what it printed, and what it said.
    pub async fn stop(mut self, signal: &str) -> (Option<i32>, String, String) {
        let process = self.0.id();
        let kill = format!("kill -{signal} {process}");
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.expect("a shell").success());
        let end = eventually(SOON, async || self.0.try_wait().expect("its state")).await;
        let (mut out, mut err) = (String::new(), String::new());
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        stdout
            .expect("stdout")
            .read_to_string(&mut out)
            .expect("text");
        stderr
            .expect("stderr")
            .read_to_string(&mut err)
            .expect("text");
        (end.code(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file in a directory that goes with the test.
pub struct File {
    pub path: PathBuf,
    _directory: TempDir,
}

impl File {
    pub fn holding(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("relay.toml");
        std::fs::write(&path, text).expect("a file");
        Self {
            path,
            _directory: directory,
        }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("a path")
    }
}
