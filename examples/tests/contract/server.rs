//! `Server`: the program of one framework as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use effectively_tests::eventually;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::{self, Answer, get, post};

/// Neither start nor end takes longer.
const BOUND: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped; what it logged is shown when its test fails.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Returns when it serves.
    pub async fn start(program: &str, database_url: &str) -> Self {
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--database-url", database_url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::<Mutex<String>>::default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reader = follow(stderr.expect("its log"), log.clone());
        let (said, address) = oneshot::channel();
        let stdout = stdout.expect("its output");
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let _ = said.send(lines.find_map(|line| {
                let address = line.split_once("listening on http://")?.1;
                address.trim().parse::<SocketAddr>().ok()
            }));
            // A pipe that nobody reads would stop it.
            lines.for_each(drop);
        });
        let mut server = Self {
            address: ([127, 0, 0, 1], 0).into(),
            child,
            log,
            reader: Some(reader),
        };
        let address = timeout(BOUND, address).await.expect("an address in time");
        server.address = address.ok().flatten().expect("an address");
        server
    }

    /// The answer, which must come.
    pub async fn send(&self, request: &[u8]) -> Answer {
        let answer = client::exchange(self.address, request).await;
        answer.expect("an answer")
    }

    /// An order of Ann's with this key and this body.
    pub async fn ask(&self, key: &str, body: &str) -> Answer {
        self.send(&request(key, body)).await
    }

    /// Two of the item, for Ann.
    pub async fn order(&self, key: &str, item: &str) -> Answer {
        self.ask(key, &two_of(item)).await
    }

    pub async fn get(&self, path: &str, user: Option<&str>) -> Answer {
        self.send(&get(path, user, &[])).await
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub fn kill(&mut self) {
        self.child.kill().expect("the signal");
        self.child.wait().expect("its end");
    }

    /// SIGTERM, by the shell's own `kill`: calling the system's needs `unsafe`.
    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM");
    }

    /// Waits until it has ended by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually(BOUND, async || self.child.try_wait().expect("its state")).await
    }

    /// All that it logged. It has ended.
    pub fn log(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of its log");
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            #[expect(clippy::print_stderr, reason = "shown with the failed test")]
            {
                eprintln!("the log of {}:\n{log}", self.address);
            }
        }
    }
}

/// An order of Ann's, with the key as a string of RFC 8941.
pub fn request(key: &str, body: &str) -> Vec<u8> {
    post(Some("ann"), &[format!("\"{key}\"").as_bytes()], body)
}

pub fn two_of(item: &str) -> String {
    format!(r#"{{"item":"{item}","quantity":2}}"#)
}

/// Takes as long in the transaction.
pub fn slow(milliseconds: u32) -> String {
    format!(r#"{{"item":"tea","quantity":2,"delay_ms":{milliseconds}}}"#)
}

/// Goes wrong in this way.
pub fn failing(fail: &str) -> String {
    format!(r#"{{"item":"tea","quantity":2,"fail":"{fail}"}}"#)
}

fn follow(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let mut log = into.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
