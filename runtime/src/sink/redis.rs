//! Redis Streams, by the crate [`redis`]. Feature `redis`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Cmd, Pipeline, RedisResult, ServerError, Value,
    aio::MultiplexedConnection as Connection,
    streams::{StreamId, StreamInfoStreamReply, StreamRangeReply},
};
use tokio::time::timeout;

use super::{CONTENT_TYPE, Delivery, Sink};
use crate::model::{Envelope, limits::LONGEST_TIMEOUT};

/// Appends each event to the stream that is called like its topic, a whole batch in one pipeline.
///
/// ```no_run
/// use effectively::sink::redis::RedisStreams;
///
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let sink = RedisStreams::new(client).prefix("events:");
/// # Ok::<(), redis::RedisError>(())
/// ```
///
/// # What a consumer gets
/// The fields `id`, `data`, the attributes of CloudEvents as `ce_…`, and the event's own headers under their own names. A header
/// that is called `id` or `data`, or begins with `ce_`, has `header_` put before its name. Delivery is at least once: look for
/// repeats by `id`.
///
/// # What Redis promises
/// An answer to XADD means that the server has the entry in memory. To keep it over a crash the server needs `appendonly yes` and
/// `appendfsync always` (`everysec` loses up to a second). Replication is asynchronous: a failover can lose entries that were
/// confirmed. With an eviction policy other than `noeviction` whole streams can go.
#[derive(Debug)]
pub struct RedisStreams {
    client: Client,
    /// Open connections that no batch is using.
    idle: Mutex<Vec<Connection>>,
    prefix: String,
    explicit_ids: bool,
    max_len: Option<usize>,
    max_bytes: usize,
    timeout: Duration,
}

impl RedisStreams {
    /// A sink on this client's server (not a Redis Cluster). It connects when it first publishes, and again after an error.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            idle: Mutex::default(),
            prefix: String::new(),
            explicit_ids: false,
            max_len: None,
            max_bytes: 512 * 1024 * 1024,
            timeout: Duration::from_secs(10),
        }
    }

    /// Puts this before the topic to make the stream's key. Default: nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Gives each entry the id `<outbox id>-0`, so that the server itself refuses most repeats, however late they come. Default:
    /// off, the server makes the ids.
    ///
    /// Ids only grow in a stream, so each virtual partition has a stream of its own: `<topic>.0` to `<topic>.63`. Where an
    /// outbox id is not above the stream's last one, its event is looked for in the 100 entries from that id on, and appended at
    /// the end if it is not there: its transaction began early and ended late. So a repeat still comes through when the first
    /// copy was deleted or trimmed, or was such a late one over 100 entries after its place. Keep looking at `id`.
    ///
    /// One outbox alone may write to such streams. Needs Redis 7.0 and the right to XRANGE and XINFO.
    pub fn explicit_ids(mut self) -> Self {
        self.explicit_ids = true;
        self
    }

    /// Trims a stream to about so many entries when one is added (`MAXLEN ~`). **Events that no consumer has read yet are lost
    /// with it.** Default: no trimming.
    pub fn max_len(mut self, entries: usize) -> Self {
        self.max_len = Some(entries);
        self
    }

    /// The most bytes of data that an event may have; larger ones are refused for good. Must not exceed the server's
    /// `proto-max-bulk-len`, since the server answers that by ending the connection. Default: 512 MiB, as the server's.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long a batch, with connecting, may take, at most a day; then it is unavailable. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    /// The stream and the id in it.
    fn place(&self, event: &Envelope) -> (String, String) {
        let key = format!("{}{}", self.prefix, event.topic);
        match self.explicit_ids {
            true => (
                format!("{key}.{}", event.partition),
                format!("{}-0", event.outbox_id),
            ),
            false => (key, "*".to_owned()),
        }
    }

    fn add(&self, event: &Envelope, (key, id): (String, String)) -> Cmd {
        let mut add = redis::cmd("XADD");
        add.arg(key);
        if let Some(entries) = self.max_len {
            add.arg("MAXLEN").arg("~").arg(entries);
        }
        add.arg(id).arg("id").arg(event.id.to_string());
        add.arg("data").arg(event.data.as_slice());
        for (name, value) in event.attributes() {
            add.arg(format!("ce_{name}")).arg(&*value);
        }
        // The protocol has no content type of its own that could stand for it.
        add.arg("ce_datacontenttype").arg(CONTENT_TYPE);
        for (name, value) in &event.headers {
            // A second field of one name would hide the first from a consumer that reads into a map.
            let is_ours = name == "id" || name == "data" || name.starts_with("ce_");
            let prefix = if is_ours { "header_" } else { "" };
            add.arg(format!("{prefix}{name}")).arg(value);
        }
        add
    }

    async fn connection(&self) -> RedisResult<Connection> {
        if let Some(idle) = { self.idle().pop() } {
            return Ok(idle);
        }
        // One bound for all, around connecting and commands, is in `publish`.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let open = Client::get_multiplexed_async_connection_with_config(&self.client, &config);
        open.await
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, batch: &[&Envelope]) -> RedisResult<Vec<Delivery>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection().await?;
        let add = |event: &&Envelope| self.add(event, self.place(event));
        let values = send(&mut connection, batch.iter().map(add).collect()).await?;
        let mut answers = Vec::with_capacity(batch.len());
        for (event, value) in batch.iter().zip(&values) {
            answers.push(match value {
                Value::ServerError(late) if is_not_above_last(late) => {
                    self.append_late(&mut connection, event).await?
                }
                value => answer(value),
            });
        }
        // Otherwise, and where this future is dropped, it is closed: a connection that is silent, or leads to what is a replica
        // by now, must not be asked again.
        let is_unavailable = |answer: &Delivery| matches!(answer, Delivery::Unavailable(_));
        if !answers.iter().any(is_unavailable) {
            self.idle().push(connection);
        }
        Ok(answers)
    }

    /// The stream's last id is not below the event's. Either it is there already, or others were faster.
    async fn append_late(&self, on: &mut Connection, event: &Envelope) -> RedisResult<Delivery> {
        const LOOKED_AT: usize = 100;
        let (key, from) = self.place(event);
        let entries: StreamRangeReply = on.xrange_count(&key, &from, "+", LOOKED_AT).await?;
        let id = event.id.to_string();
        let is_it = |entry: &StreamId| entry.get::<String>("id").as_ref() == Some(&id);
        if entries.ids.iter().any(is_it) {
            return Ok(Delivery::Published);
        }
        // Not the id of the last entry, which may have been deleted: ids stay used.
        let stream: StreamInfoStreamReply = on.xinfo_stream(&key).await?;
        let (millis, _) = stream.last_generated_id.split_once('-').unwrap_or_default();
        // The same first half: the next outbox id stays above it.
        let late = self.add(event, (key, format!("{millis}-*")));
        let added = send(on, vec![late]).await?;
        Ok(answer(added.first().unwrap_or(&Value::Nil)))
    }
}

/// Gives back one value for each command. `Pipeline::query_async` would say no more than that one of them failed.
async fn send(on: &mut Connection, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    on.send_packed_commands(&pipeline, 0, pipeline.len()).await
}

fn answer(value: &Value) -> Delivery {
    let error = match value {
        Value::BulkString(_) | Value::SimpleString(_) => return Delivery::Published,
        Value::ServerError(error) => error,
        _ => return Delivery::unavailable("redis gave no id back"),
    };
    // No more than the code: the text may quote what was sent.
    let reason = format!("redis answered {}", error.code());
    match error.code() {
        "ERR" if is_not_above_last(error) => Delivery::unavailable("others append to the stream"),
        "ERR" | "NOPERM" | "WRONGTYPE" => Delivery::rejected(reason),
        // LOADING, OOM, READONLY, MISCONF, NOREPLICAS, CLUSTERDOWN, …: not about this event.
        _ => Delivery::unavailable(reason),
    }
}

fn is_not_above_last(error: &ServerError) -> bool {
    let text = error.details().unwrap_or_default();
    text.contains("equal or smaller")
}

impl Sink for RedisStreams {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        let fits = |event: &Envelope| event.data.len() <= self.max_bytes;
        let sent: Vec<_> = batch.iter().filter(|event| fits(event)).collect();
        let (answers, otherwise) = match timeout(self.timeout, self.append(&sent)).await {
            Ok(Ok(answers)) => (answers, "redis gave no answer for it".to_owned()),
            Ok(Err(error)) => (Vec::new(), format!("redis: {}", error.category())),
            Err(_) => (Vec::new(), "redis did not answer in time".to_owned()),
        };
        if answers.is_empty() {
            // The other connections are likely to be as dead, and each would cost a batch to find out.
            self.idle().clear();
        }
        let mut answers = answers.into_iter();
        let unanswered = || Delivery::unavailable(otherwise.clone());
        let answer = |event| match fits(event) {
            true => answers.next().unwrap_or_else(unanswered),
            false => Delivery::refused_for_good("more bytes of data than redis takes"),
        };
        batch.iter().map(answer).collect()
    }
}
