//! A sink in the parent's process: workers publish to it over a socket, and what it noted outlives them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use effectively::Envelope;
use effectively::sink::{Delivery, Sink};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};

use crate::shop::Numbered;

/// What a worker says of one event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    pub id: String,
    pub event: Numbered,
}

/// The parent's side.
pub struct Collector {
    pub address: SocketAddr,
    copies: Arc<Mutex<Vec<Copy>>>,
    /// The worker of each batch, in the order of arrival; its answer waits until this is sent.
    pub batches: UnboundedReceiver<(usize, oneshot::Sender<()>)>,
    /// Without permits no batch is answered by itself.
    answers: Arc<Semaphore>,
}

impl Collector {
    pub async fn open(answers_at_once: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, copies) = (listener.local_addr().expect("its address"), Arc::default());
        let (say, batches) = unbounded_channel();
        let answers = Arc::new(Semaphore::new(usize::from(answers_at_once)));
        let (noted, at_once) = (Arc::clone(&copies), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, at_once) = (Arc::clone(&noted), Arc::clone(&at_once));
                tokio::spawn(serve(stream, noted, at_once, say.clone()));
            }
        });
        Self {
            address,
            copies,
            batches,
            answers,
        }
    }

    /// From now on every batch is answered as soon as it is noted.
    pub fn answer_at_once(&self) {
        self.answers.add_permits(1);
    }

    pub fn copies(&self) -> Vec<Copy> {
        self.copies.lock().expect("the copies").clone()
    }
}

async fn serve(
    stream: TcpStream,
    copies: Arc<Mutex<Vec<Copy>>>,
    at_once: Arc<Semaphore>,
    say: UnboundedSender<(usize, oneshot::Sender<()>)>,
) {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let Ok((worker, batch)) = serde_json::from_str::<(usize, Vec<Copy>)>(&line) else {
            return;
        };
        copies.lock().expect("the copies").extend(batch);
        let (answer, answered) = oneshot::channel();
        let _ = say.send((worker, answer));
        if at_once.available_permits() == 0 {
            let _ = answered.await;
        }
        if stream.write_all(b"noted\n").await.is_err() || stream.flush().await.is_err() {
            return;
        }
        line.clear();
    }
}

/// The worker's side.
pub struct Collected {
    worker: usize,
    stream: tokio::sync::Mutex<BufStream<TcpStream>>,
}

impl Collected {
    pub async fn by(address: SocketAddr, worker: usize) -> Self {
        let stream = TcpStream::connect(address).await.expect("the parent");
        Self {
            worker,
            stream: tokio::sync::Mutex::new(BufStream::new(stream)),
        }
    }

    async fn send(&self, batch: &[Envelope]) -> std::io::Result<()> {
        let copy = |event: &Envelope| Copy {
            id: event.id.to_string(),
            event: Numbered::from(event),
        };
        let batch: Vec<Copy> = batch.iter().map(copy).collect();
        let mut line = serde_json::to_string(&(self.worker, batch))?;
        line.push('\n');
        let mut stream = self.stream.lock().await;
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await?;
        line.clear();
        match stream.read_line(&mut line).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Sink for Collected {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let answer = match self.send(batch).await {
            Ok(()) => Delivery::Published,
            Err(error) => Delivery::unavailable(error.to_string()),
        };
        vec![answer; batch.len()]
    }

    fn keeps_order(&self) -> bool {
        true
    }
}
