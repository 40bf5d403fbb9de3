//! `type = "redis"`

use effectively::sink::redis::RedisStreams;
use serde::Deserialize;

use crate::{
    config::{Period, SinkConfig},
    failure::Failure,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// `redis://user:password@host:6379/0`
    url: String,
    prefix: Option<String>,
    #[serde(default)]
    explicit_ids: bool,
    max_len: Option<usize>,
    max_bytes: Option<usize>,
    timeout: Option<Period>,
}

pub(super) fn sink(sink: &SinkConfig<'_>) -> Result<RedisStreams, Failure> {
    let options: Options = sink.options()?;
    let client = redis::Client::open(options.url);
    // The address itself may hold a password.
    let client = client.map_err(|_| {
        sink.wrong("`url` is an address such as \"redis://user:password@host:6379/0\"")
    })?;
    let mut redis = RedisStreams::new(client);
    if let Some(prefix) = options.prefix {
        redis = redis.prefix(prefix);
    }
    if options.explicit_ids {
        redis = redis.explicit_ids();
    }
    if let Some(entries) = options.max_len {
        redis = redis.max_len(entries);
    }
    if let Some(bytes) = options.max_bytes {
        redis = redis.max_bytes(bytes);
    }
    if let Some(timeout) = options.timeout {
        redis = redis.timeout(timeout.0);
    }
    Ok(redis)
}
