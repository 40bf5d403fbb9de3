//! Options of a webhook, and the checks that need no network.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{Client, ClientBuilder, Url, dns::Resolve, redirect::Policy};

use super::{
    Secret, Webhook,
    policy::{PublicOnly, is_public, literal},
};
use crate::model::limits::LONGEST_TIMEOUT;

/// Builds a [`Webhook`].
///
/// ```no_run
/// use effectively::sink::webhook::{Secret, Webhook};
/// use std::time::Duration;
///
/// # fn build(new: Secret, old: Secret) -> Result<(), Box<dyn std::error::Error>> {
/// let sink = Webhook::builder("https://shop.example/hooks", new)
///     .also_signed_with(old)
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a webhook is made by `build`"]
pub struct WebhookBuilder {
    url: String,
    secrets: Vec<Secret>,
    client: ClientBuilder,
    resolver: Option<Arc<dyn Resolve>>,
    http: bool,
    internal: bool,
    concurrency: usize,
    timeout: Duration,
}

/// Why there is no webhook. It holds neither URL nor secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWebhook {
    /// The URL cannot be read.
    #[error("the URL cannot be read")]
    Url,
    /// The URL is not https.
    #[error("the URL is not https (`allow_http` takes plain http too)")]
    NotHttps,
    /// The URL holds a user name or a password.
    #[error("the URL holds a user name or a password: send credentials in a header of the client")]
    Credentials,
    /// The URL's host is an address, and not one on the public internet.
    #[error("the URL's host is an internal address (`allow_internal` takes those too)")]
    Internal,
    /// The secret is no base64, or too short.
    #[error("the secret is not `whsec_` and the base64 of at least 24 bytes")]
    Secret,
    /// The HTTP client cannot be built, for example because TLS finds no certificates.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
}

impl WebhookBuilder {
    pub(super) fn new(url: &str, secret: Secret) -> Self {
        Self {
            url: url.to_owned(),
            secrets: vec![secret],
            client: Client::builder()
                .user_agent(concat!("effectively/", env!("CARGO_PKG_VERSION"))),
            resolver: None,
            http: false,
            internal: false,
            concurrency: 16,
            timeout: Duration::from_secs(10),
        }
    }

    /// Signs with a further secret, so that a receiver can change from one to the other while events go on.
    pub fn also_signed_with(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// The HTTP client: its TLS, its limits, the credentials that this receiver wants in `default_headers`.
    ///
    /// Its proxies, redirects and resolver are replaced. What it says about addresses itself (`resolve`, `unix_socket`) is
    /// beyond the policy.
    ///
    /// ```no_run
    /// use effectively::sink::webhook::{Secret, Webhook};
    /// use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
    ///
    /// # fn build(secret: Secret, token: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut token = HeaderValue::try_from(format!("Bearer {token}"))?;
    /// token.set_sensitive(true);
    /// let client = reqwest::Client::builder().default_headers(HeaderMap::from_iter([(AUTHORIZATION, token)]));
    /// let sink = Webhook::builder("https://shop.example/hooks", secret).client(client).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn client(self, client: ClientBuilder) -> Self {
        Self { client, ..self }
    }

    /// Asks this resolver instead of the system's. Its answers are checked all the same.
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Takes plain `http` too. Whoever is in between reads the events.
    pub fn allow_http(self) -> Self {
        Self { http: true, ..self }
    }

    /// Takes every address, the inside of your network and this machine included. Not for URLs that come from others.
    pub fn allow_internal(self) -> Self {
        Self {
            internal: true,
            ..self
        }
    }

    /// How many events of one batch are on their way at the same time; never two of one partition key. 0 counts as 1.
    /// Default: 16.
    pub fn concurrency(self, posts: usize) -> Self {
        Self {
            concurrency: posts,
            ..self
        }
    }

    /// How long one attempt may take, from the name's resolution to the head of the answer; at most a day. Default: 10 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: timeout.min(LONGEST_TIMEOUT),
            ..self
        }
    }

    /// Checks the URL. Nothing is sent yet, and no name is resolved.
    ///
    /// # Errors
    /// [`InvalidWebhook`]
    pub fn build(self) -> Result<Webhook, InvalidWebhook> {
        let url = self.checked_url()?;
        let mut client = self.client.no_proxy().redirect(Policy::none());
        if !self.internal {
            client = client.dns_resolver(PublicOnly(self.resolver));
        } else if let Some(resolver) = self.resolver {
            client = client.dns_resolver(resolver);
        }
        Ok(Webhook {
            url,
            secrets: self.secrets,
            client: client.build().map_err(InvalidWebhook::Client)?,
            concurrency: self.concurrency,
            timeout: self.timeout,
        })
    }

    fn checked_url(&self) -> Result<Url, InvalidWebhook> {
        let url = Url::parse(&self.url).map_err(|_| InvalidWebhook::Url)?;
        match url.scheme() {
            "https" => {}
            "http" if self.http => {}
            _ => return Err(InvalidWebhook::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidWebhook::Credentials);
        }
        // The parser has written all forms of an address, octal and in one number too, as the usual one.
        match url.host_str().map(literal) {
            None => Err(InvalidWebhook::Url),
            Some(Some(address)) if !self.internal && !is_public(address) => {
                Err(InvalidWebhook::Internal)
            }
            Some(_) => Ok(url),
        }
    }
}

impl fmt::Debug for WebhookBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookBuilder")
            .field("allow_http", &self.http)
            .field("allow_internal", &self.internal)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
