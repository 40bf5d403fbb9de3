//! What depends on whether this program can speak TLS.

/// A message when an address needs TLS and this program has none.
#[cfg(any(feature = "sqs", feature = "webhook"))]
pub(crate) fn needed_for(url: &str) -> Result<(), &'static str> {
    if cfg!(feature = "tls") || !url.starts_with("https:") {
        return Ok(());
    }
    Err(
        "this program was built without `tls`, which https needs; build it with the feature of that name",
    )
}

/// The one provider of cryptography. Clients that ask for none find it.
#[cfg(feature = "tls")]
pub(crate) fn start() {
    // Refused if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The HTTP client of AWS.
#[cfg(feature = "sqs")]
pub(crate) fn aws_client() -> aws_sdk_sqs::config::SharedHttpClient {
    let builder = aws_smithy_http_client::Builder::new();
    #[cfg(feature = "tls")]
    {
        use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
        builder
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https()
    }
    #[cfg(not(feature = "tls"))]
    builder.build_http()
}
