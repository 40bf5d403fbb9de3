//! What a call shows to the outside: a span around each step, and a count of how calls end.

use tracing::Span;

/// Counts one call: `executed`, `replayed`, `released` (rolled back, the key is free), or the code of an error.
///
/// The labels are names out of the code. A key or a tenant would be a secret in a metric, and a new series for each.
pub(crate) fn count(scope: &str, result: &'static str) {
    metrics::counter!("effectively_calls_total", "scope" => scope.to_owned(), "result" => result)
        .increment(1);
}

/// The span of a step: `claim` or `complete`.
pub(crate) fn span(step: &'static str, scope: &str) -> Span {
    tracing::debug_span!(target: "effectively::claim", "call", step, scope)
}
