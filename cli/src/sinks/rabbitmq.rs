//! `type = "rabbitmq"`

use effectively::sink::rabbitmq::RabbitMq;
use lapin::ConnectionProperties;
use serde::Deserialize;

use crate::{
    config::{Period, SinkConfig},
    failure::Failure,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `amqp://user:password@host:5672/vhost`
    url: String,
    /// Default: the one that leads to the queue that the topic names.
    exchange: Option<String>,
    timeout: Option<Period>,
}

pub(super) fn sink(sink: &SinkConfig<'_>) -> Result<RabbitMq, Failure> {
    let options: Options = sink.options()?;
    if options.url.parse::<lapin::uri::AMQPUri>().is_err() {
        return Err(
            sink.wrong("`url` is an address such as \"amqp://user:password@host:5672/vhost\"")
        );
    }
    let properties =
        ConnectionProperties::default().with_connection_name("effectively".to_owned().into());
    let mut rabbitmq = RabbitMq::new(options.url, properties);
    if let Some(exchange) = options.exchange {
        rabbitmq = rabbitmq.exchange(exchange);
    }
    if let Some(timeout) = options.timeout {
        rabbitmq = rabbitmq.timeout(timeout.0);
    }
    Ok(rabbitmq)
}
