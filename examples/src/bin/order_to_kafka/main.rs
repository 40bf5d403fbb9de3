//! From an order to a Kafka topic: outbox, relay, and what a consumer gets of each event.
//!
//! How to run: `KAFKA_BROKERS=localhost:9092 cargo run -p effectively-examples --features kafka --bin order_to_kafka`. The
//! database is SQLite in a temporary file. The topic `effectively-example-orders` is made if it is not there, and stays.
//!
//! What to try: the sink `Transactional::new(config.clone(), Uuid::new_v4())`. A repeat, say after a crash of the relay, then
//! reaches no consumer. An outbox that stays has one name for ever in place of the UUID.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

mod consumer;

use std::{env, error::Error, process::ExitCode, time::Duration};

use effectively::{Emit, Event, Ledger, Relay, idempotent, outbox, sink::kafka::Kafka};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tokio::sync::oneshot;
use uuid::Uuid;

/// `number` is the customer's own: their first order is 1.
#[idempotent(key = "{customer}/{number}")]
#[outbox]
async fn place_order(
    tx: &mut SqliteConnection,
    customer: &str,
    number: u32,
) -> sqlx::Result<Emit<()>> {
    let insert = sqlx::query("insert into orders (customer, number) values (?, ?)");
    insert.bind(customer).bind(number).execute(&mut *tx).await?;
    let customer = customer.to_owned();
    Ok(Emit::new(()).event(OrderPlaced { customer, number }))
}

#[derive(Serialize, Deserialize, Event)]
#[event(
    topic = "effectively-example-orders",
    name = "order.placed.v1",
    key = "{customer}"
)]
struct OrderPlaced {
    customer: String,
    number: u32,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers()); // TLS, SASL and tuning go here, by librdkafka's names
    make_topic(&config).await?;

    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    sqlx::raw_sql("create table orders (customer text, number integer)")
        .execute(&pool)
        .await?;
    let ledger = Ledger::builder(pool)
        // An application takes it from its current span. Here each call is a trace of its own.
        .trace_context(|| {
            Some(format!(
                "00-{}-00f067aa0ba902b7-01",
                Uuid::new_v4().simple()
            ))
        })
        .build()?;
    ledger.migrate().await?;
    let source = format!("/shop/{}", Uuid::new_v4()); // other runs write to the same topic
    let relay = Relay::builder(ledger.clone())
        .route(OrderPlaced::TOPIC, Kafka::new(config.clone())?)
        .source(source.as_str())
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { _ = stopped.await }));

    let mut placed = 0;
    for number in 1..=5 {
        for customer in ["ann", "bob"] {
            let order = place_order(ledger.clone(), customer, number).await?;
            order.into_result()?;
            placed += 1;
        }
    }
    let seen = consumer::read(config, &source, placed).await?;
    drop(stop);
    relay.await??;
    println!("\norder_to_kafka: {placed} orders, {seen}");
    Ok(ExitCode::from(u8::from(!seen.in_order())))
}

/// Three partitions: a customer's orders are in one of them.
async fn make_topic(config: &ClientConfig) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let topic = NewTopic::new(OrderPlaced::TOPIC, 3, TopicReplication::Fixed(1));
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let answer = admin.create_topics([&topic], &options).await;
    let answer = answer.map_err(|error| format!("the broker does not make the topic: {error}"))?;
    for made in answer {
        match made {
            Ok(_) | Err((_, TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(format!("the topic cannot be made: {code}").into()),
        }
    }
    Ok(())
}

fn brokers() -> String {
    let given = env::var("KAFKA_BROKERS").or_else(|_| env::var("EFFECTIVELY_TEST_KAFKA"));
    given.ok().filter(|brokers| !brokers.is_empty()).unwrap_or_else(|| {
        effectively_examples::stop(
            "this example needs a Kafka broker. Give its address in KAFKA_BROKERS:\n\n  \
             KAFKA_BROKERS=localhost:9092 cargo run -p effectively-examples --features kafka --bin order_to_kafka\n\n\
             or let `./tests/run --servers bash` start one, and run it in that shell.",
        )
    })
}
