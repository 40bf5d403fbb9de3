//! What of the configuration is set, preferred and refused.

use std::time::Duration;

use rdkafka::ClientConfig;

use super::Misconfigured;

/// Sets what the sink's promise needs, and refuses another value. `names`: the setting and its aliases.
pub(crate) fn require(
    config: &mut ClientConfig,
    names: &[&str],
    allowed: &[&str],
) -> Result<(), Misconfigured> {
    for name in names {
        if config
            .get(name)
            .is_some_and(|value| !allowed.contains(&value))
        {
            return Err(Misconfigured(
                format!("`{name}` must be `{}`", allowed[0]).into(),
            ));
        }
    }
    prefer(config, names, allowed[0]);
    Ok(())
}

/// Sets what the application has left open.
pub(crate) fn prefer(config: &mut ClientConfig, names: &[&str], value: &str) {
    if names.iter().all(|name| config.get(name).is_none()) {
        config.set(names[0], value);
    }
}

/// What both sinks need.
pub(crate) fn settle(config: &mut ClientConfig) -> Result<(), Misconfigured> {
    require(config, &["enable.idempotence"], &["true"])?;
    require(config, &["acks", "request.required.acks"], &["all", "-1"])?;
    if config.get("partitioner") == Some("random") {
        return Err(Misconfigured(
            "`partitioner` must not be `random`: it breaks the order of a key".into(),
        ));
    }
    // As the Java client does it, so that consumers in any language can rely on equal keys in equal partitions.
    prefer(config, &["partitioner"], "murmur2_random");
    // So that a batch travels in few requests, at the cost of this one millisecond.
    prefer(config, &["linger.ms", "queue.buffering.max.ms"], "1");
    // A broker that restarts is back before the bounds of a batch have passed, and must be found again in time.
    prefer(config, &["reconnect.backoff.max.ms"], "1000");
    // Topics are looked up before the first event: one that vanishes later must not hold up its events for 30 s.
    prefer(config, &["topic.metadata.propagation.max.ms"], "2000");
    Ok(())
}

/// Takes a bound out of the configuration, in milliseconds.
pub(crate) fn bound(
    config: &ClientConfig,
    names: &[&str],
    default: u64,
) -> Result<Duration, Misconfigured> {
    let value = names.iter().find_map(|name| config.get(name));
    let millis = value
        .map_or(Ok(default), str::parse)
        .ok()
        .filter(|millis| *millis > 0);
    let millis = millis
        .ok_or_else(|| Misconfigured(format!("`{}` must be a number over 0", names[0]).into()))?;
    Ok(Duration::from_millis(millis))
}
