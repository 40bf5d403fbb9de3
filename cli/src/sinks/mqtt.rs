//! `type = "mqtt"`

use effectively::sink::mqtt::Mqtt;
use rumqttc::v5::MqttOptions;
use serde::Deserialize;

use crate::{
    config::{Period, SinkConfig},
    failure::Failure,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    host: String,
    #[serde(default = "port")]
    port: u16,
    /// Each relay needs its own.
    client_id: Option<String>,
    user: Option<String>,
    password: Option<String>,
    keep_alive: Option<Period>,
    #[serde(default)]
    qos2: bool,
    prefix: Option<String>,
    #[serde(default)]
    require_subscribers: bool,
    max_bytes: Option<usize>,
    timeout: Option<Period>,
}

fn port() -> u16 {
    1883
}

pub(super) fn sink(sink: &SinkConfig<'_>) -> Result<Mqtt, Failure> {
    let options: Options = sink.options()?;
    // A broker ends the connection of a client when another one comes with its id.
    let unique = || format!("effectively-{}", sqlx::types::Uuid::new_v4().simple());
    let id = options.client_id.unwrap_or_else(unique);
    let mut client = MqttOptions::new(id, options.host, options.port);
    match (options.user, options.password) {
        (Some(user), password) => {
            client.set_credentials(user, password.unwrap_or_default());
        }
        (None, Some(_)) => return Err(sink.wrong("a `password` needs a `user`")),
        (None, None) => {}
    }
    if let Some(keep_alive) = options.keep_alive {
        // What is shorter, the client does not take.
        if keep_alive.0.as_secs() < 1 {
            return Err(sink.wrong("`keep_alive` is at least 1 second"));
        }
        client.set_keep_alive(keep_alive.0);
    }
    let mut mqtt = Mqtt::new(client);
    if options.qos2 {
        mqtt = mqtt.qos2();
    }
    if let Some(prefix) = options.prefix {
        mqtt = mqtt.prefix(prefix);
    }
    if options.require_subscribers {
        mqtt = mqtt.require_subscribers();
    }
    if let Some(bytes) = options.max_bytes {
        mqtt = mqtt.max_bytes(bytes);
    }
    if let Some(timeout) = options.timeout {
        mqtt = mqtt.timeout(timeout.0);
    }
    Ok(mqtt)
}
