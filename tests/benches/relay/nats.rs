//! NATS JetStream: a stream in files, its other settings as the server sets them.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{self, Context, stream};
use effectively::sink::nats::Nats;

use super::limit::Row;
use super::sinks::{Broker, Produce, address};

pub struct JetStream(Context);

impl Broker for JetStream {
    type Sink = Nats;
    type Producer = Publisher;

    async fn open() -> Result<Self, String> {
        let address = address("EFFECTIVELY_TEST_NATS")?;
        let client = async_nats::connect(address).await.expect("a server");
        Ok(Self(jetstream::new(client)))
    }

    async fn create(&self, topic: &str) {
        let config = stream::Config {
            name: topic.to_owned(),
            subjects: vec![topic.to_owned()],
            storage: stream::StorageType::File,
            ..stream::Config::default()
        };
        self.0.create_stream(config).await.expect("a stream");
    }

    async fn remove(&self, topic: &str) {
        self.0.delete_stream(topic).await.expect("a stream");
    }

    fn sink(&self, _: &str) -> Nats {
        Nats::new(self.0.clone())
    }

    fn producer(&self, topic: &str) -> Publisher {
        Publisher {
            jetstream: self.0.clone(),
            subject: topic.to_owned(),
        }
    }
}

/// Publishes a batch without waiting, then waits for each acknowledgement.
pub struct Publisher {
    jetstream: Context,
    subject: String,
}

impl Produce for Publisher {
    async fn produce(&mut self, rows: Vec<Row>) {
        let mut acks = Vec::with_capacity(rows.len());
        for (_, _, id, _, _, data) in rows {
            let mut headers = HeaderMap::new();
            // The server drops repeats by it.
            headers.insert(NATS_MESSAGE_ID, id.to_string());
            let sent =
                self.jetstream
                    .publish_with_headers(self.subject.clone(), headers, data.into());
            acks.push(sent.await.expect("a connection"));
        }
        for ack in acks {
            ack.await.expect("an acknowledgement");
        }
    }
}
