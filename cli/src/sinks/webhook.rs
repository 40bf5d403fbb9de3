//! `type = "webhook"`

use std::collections::BTreeMap;

use effectively::sink::webhook::{Secret, Webhook};
use reqwest::{
    Client,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;

use crate::{
    config::{OneOrMore, Period, SinkConfig},
    failure::Failure,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    url: String,
    /// `whsec_…`; several while a receiver changes from one to the other.
    secret: OneOrMore,
    /// Sent with each event, for example `Authorization`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    allow_internal: bool,
    concurrency: Option<usize>,
    timeout: Option<Period>,
}

pub(super) fn sink(sink: &SinkConfig<'_>) -> Result<Webhook, Failure> {
    let options: Options = sink.options()?;
    crate::tls::needed_for(&options.url).map_err(|message| sink.wrong(message))?;
    let mut secrets = options
        .secret
        .into_vec()
        .into_iter()
        .map(|text| Secret::new(&text));
    let first = secrets
        .next()
        .ok_or_else(|| sink.wrong("`secret` has at least one"))?;
    let mut builder = Webhook::builder(&options.url, first.map_err(|error| sink.wrong(error))?);
    for secret in secrets {
        builder = builder.also_signed_with(secret.map_err(|error| sink.wrong(error))?);
    }
    if !options.headers.is_empty() {
        let mut headers = HeaderMap::new();
        for (name, value) in options.headers {
            let wrong = || sink.wrong(format!("`headers`: `{name}` is no header that HTTP allows"));
            let named = HeaderName::try_from(&name).map_err(|_| wrong())?;
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(named, value);
        }
        let client =
            Client::builder().user_agent(concat!("effectively/", env!("CARGO_PKG_VERSION")));
        builder = builder.client(client.default_headers(headers));
    }
    if options.allow_http {
        builder = builder.allow_http();
    }
    if options.allow_internal {
        builder = builder.allow_internal();
    }
    if let Some(posts) = options.concurrency {
        builder = builder.concurrency(posts);
    }
    if let Some(timeout) = options.timeout {
        builder = builder.timeout(timeout.0);
    }
    builder.build().map_err(|error| sink.wrong(error))
}
