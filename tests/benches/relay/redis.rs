//! Redis Streams.

use effectively::sink::redis::RedisStreams;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};

use super::limit::Row;
use super::sinks::{Broker, Produce, address};

pub struct Streams {
    client: Client,
    connection: MultiplexedConnection,
}

impl Broker for Streams {
    type Sink = RedisStreams;
    type Producer = Pipeline;

    async fn open() -> Result<Self, String> {
        let client = Client::open(address("EFFECTIVELY_TEST_REDIS")?).expect("an address");
        let connection = client.get_multiplexed_async_connection().await;
        Ok(Self {
            connection: connection.expect("a server"),
            client,
        })
    }

    /// The first entry makes it.
    async fn create(&self, _: &str) {}

    async fn remove(&self, topic: &str) {
        let _: u64 = self
            .connection
            .clone()
            .unlink(topic)
            .await
            .expect("an answer");
    }

    fn sink(&self, _: &str) -> RedisStreams {
        RedisStreams::new(self.client.clone())
    }

    fn producer(&self, topic: &str) -> Pipeline {
        Pipeline {
            connection: self.connection.clone(),
            stream: topic.to_owned(),
        }
    }
}

/// One pipeline for a batch.
pub struct Pipeline {
    connection: MultiplexedConnection,
    stream: String,
}

impl Produce for Pipeline {
    async fn produce(&mut self, rows: Vec<Row>) {
        let mut pipeline = redis::pipe();
        for (_, _, id, _, _, data) in rows {
            let id = id.to_string();
            let fields: [(&str, &[u8]); 2] = [("id", id.as_bytes()), ("data", &data)];
            pipeline.xadd(&self.stream, "*", &fields).ignore();
        }
        let added = pipeline.query_async::<()>(&mut self.connection).await;
        added.expect("an id for each");
    }
}
