//! `Worker`: the test's second process, which can be killed.

mod clock;
mod role;
mod signal;
mod transcript;

use std::env;
use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use role::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use transcript::{Transcript, follow};

use crate::eventually;

/// Marks a line as a message, among whatever else a test binary prints.
const MARK: &str = "@@ ";

/// No wait for another process is longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same test, run once more as another process. Killed when dropped.
///
/// ```no_run
/// # use effectively_tests::{TestDb, TestServer, Worker};
/// async fn a_killed_process_leaves_nothing<DB: TestServer>(db: TestDb<DB>) {
///     if let Some(order) = Worker::input::<i64>() {
///         // Here: the child. `db` is the parent's database.
///         let mut tx = db.pool().begin().await.expect("a transaction");
///         DB::execute(&mut tx, &format!("insert into orders values ({order})")).await.expect("an order");
///         Worker::say("inserted");
///         return Worker::wait_for_death().await;
///     }
///     db.execute("create table orders (id bigint primary key)").await;
///     let mut worker = db.worker(&7);
///     worker.expect("inserted").await;
///     worker.kill();
///     assert_eq!(db.number("select count(*) from orders").await, 0);
/// }
/// ```
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: UnboundedReceiver<String>,
    transcript: Transcript,
}

/// The child's side.
impl Worker {
    /// What the parent gave, if this process is a worker. A test that starts workers asks this before anything else.
    pub fn input<T: DeserializeOwned>() -> Option<T> {
        Role::of_this_process().map(|role| {
            serde_json::from_value(role.input).expect("the input that the parent wrote")
        })
    }

    /// Sends one line to the parent.
    pub fn say(message: impl Display) {
        // libtest may have left an unfinished line; and a message must be out before the process is killed.
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "\n{MARK}{message}");
        let _ = out.flush();
    }

    /// The next line that the parent sends with [`Worker::tell`].
    pub async fn listen() -> String {
        let mut line = String::new();
        let read = spawn_blocking(move || io::stdin().lock().read_line(&mut line).map(|_| line));
        read.await
            .expect("a reading thread")
            .expect("a line from the parent")
            .trim_end()
            .to_owned()
    }

    /// Stays as it is, transactions open and all, until the parent kills it or is gone itself.
    pub async fn wait_for_death() {
        while !Self::listen().await.is_empty() {}
    }
}

/// The parent's side.
impl Worker {
    /// Starts the running test once more, with this input. With a database: [`TestDb::worker`](crate::TestDb::worker).
    ///
    /// # Panics
    /// If called from another thread than the test's own, whose name is the test's.
    pub fn spawn<T: Serialize>(input: &T) -> Self {
        Self::spawn_on(None, None, input)
    }

    /// `clock`: how far its clock is off.
    pub(crate) fn spawn_on<T: Serialize>(
        database: Option<&str>,
        clock: Option<&str>,
        input: &T,
    ) -> Self {
        assert!(
            env::var_os(role::VARIABLE).is_none(),
            "a worker started a worker: the test must ask `Worker::input` first"
        );
        let this_thread = thread::current();
        let test = this_thread
            .name()
            .filter(|name| *name != "main" && !name.starts_with("tokio"));
        let role = Role {
            database: database.map(str::to_owned),
            input: serde_json::to_value(input).expect("an input that is JSON"),
        };
        let mut child = Command::new(env::current_exe().expect("the test binary"))
            .args([
                "--exact",
                test.expect("a worker is started from the test's own thread"),
                "--nocapture",
                "--include-ignored",
            ])
            .env(role::VARIABLE, role.to_variable())
            .envs(clock.map(clock::off_by).into_iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a second process of the test binary");
        let transcript = Transcript::default();
        let (send, messages) = unbounded_channel();
        follow(child.stderr.take(), transcript.clone(), |_| {});
        follow(child.stdout.take(), transcript.clone(), move |line| {
            if let Some(message) = line.strip_prefix(MARK) {
                let _ = send.send(message.to_owned());
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            messages,
            transcript,
        }
    }

    /// The worker's next message.
    ///
    /// # Panics
    /// If it ends, or is silent for a minute. The panic shows what it printed.
    pub async fn hear(&mut self) -> String {
        match timeout(PATIENCE, self.messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => panic!(
                "the worker ended without a message; it printed:\n{}",
                self.transcript.text()
            ),
            Err(_) => panic!(
                "no message from the worker for {PATIENCE:?}; it printed:\n{}",
                self.transcript.text()
            ),
        }
    }

    /// Waits until the worker has said exactly this, as its next message.
    pub async fn expect(&mut self, message: &str) {
        assert_eq!(self.hear().await, message);
    }

    /// Sends one line to the worker, which gets it from [`Worker::listen`].
    pub fn tell(&mut self, message: &str) {
        let stdin = self.stdin.as_mut().expect("the worker's stdin");
        writeln!(stdin, "{message}")
            .and_then(|()| stdin.flush())
            .expect("a worker that listens");
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub fn kill(&mut self) {
        self.child.kill().expect("the signal");
        self.child.wait().expect("its end");
    }

    /// SIGSTOP: it stands still, connections open and leases running, until [`Worker::resume`].
    pub fn pause(&self) {
        signal::stop(self.child.id(), PATIENCE);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        signal::send(self.child.id(), "CONT");
    }

    /// Waits until it has ended by itself; what it said that was not heard yet.
    ///
    /// # Panics
    /// If it failed, or takes over a minute. The panic shows what it printed.
    pub async fn finish(mut self) -> Vec<String> {
        let status = self.exit().await;
        let rest = self.last_words().await;
        assert!(
            status.success(),
            "the worker ended with {status}; it printed:\n{}",
            self.transcript.text()
        );
        rest
    }

    /// What it said before its end that was not heard yet. It has ended, or this waits until it does.
    pub async fn last_words(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(message) = self.messages.recv().await {
            rest.push(message);
        }
        rest
    }

    /// Waits until it has ended, one way or another: by `abort`, for example.
    pub async fn exit(&mut self) -> ExitStatus {
        self.stdin = None;
        eventually(PATIENCE, async || self.child.try_wait().expect("its state")).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The database that this worker shares with its parent.
pub(crate) fn database_of_the_parent() -> Option<String> {
    Role::of_this_process().and_then(|role| role.database)
}
