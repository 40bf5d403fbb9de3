//! How transactions end, and how to wait for that.

use std::{
    future::poll_fn,
    pin::Pin,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::DeliveryFuture,
};
use tokio::time::timeout;

use super::{reason, refusal};
use crate::model::delivery::{Delivery, Unavailable};

/// How a transaction ended that was not committed.
pub(super) enum Failure {
    /// Not committed: the broker did not take one of the records.
    Refused(Delivery),
    /// Another instance has the transactional id.
    Fenced,
    /// It may have been committed.
    Unclear(Unavailable),
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(code) if is_fenced(code) => Self::Fenced,
            _ => Self::Unclear(Unavailable::new(reason(&error))),
        }
    }
}

/// Whether another producer has the transactional id.
pub(super) fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch
    )
}

/// Calls again while the client says that it goes on, and never another function in between: after a commit in progress an
/// abort would be refused for ever.
pub(super) fn insist(
    end: Instant,
    mut call: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let goes_on = match &error {
            KafkaError::Transaction(error) => {
                !error.is_fatal() && !error.txn_requires_abort() && error.is_retriable()
            }
            KafkaError::Flush(_) => true,
            _ => false,
        };
        if !goes_on || Instant::now() >= end {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for all, or for a failure. One that says what is wrong comes together with others that only follow from it.
pub(super) async fn all(mut deliveries: Vec<DeliveryFuture>) -> Result<(), KafkaError> {
    const OTHERS: Duration = Duration::from_millis(500);
    let Err(error) = until(&mut deliveries, |_| true).await else {
        return Ok(());
    };
    if refusal(&error).is_some() {
        return Err(error);
    }
    match timeout(
        OTHERS,
        until(&mut deliveries, |error| refusal(error).is_some()),
    )
    .await
    {
        Ok(Err(refused)) => Err(refused),
        _ => Err(error),
    }
}

/// Waits until all are there, or a failure of this kind.
async fn until(
    deliveries: &mut Vec<DeliveryFuture>,
    kind: fn(&KafkaError) -> bool,
) -> Result<(), KafkaError> {
    poll_fn(|context| {
        let mut failed = None;
        deliveries.retain_mut(|delivery| {
            let error = match Pin::new(delivery).poll(context) {
                Poll::Pending => return true,
                Poll::Ready(Ok(Ok(_))) => return false,
                Poll::Ready(Ok(Err((error, _)))) => error,
                Poll::Ready(Err(_)) => KafkaError::Canceled,
            };
            if kind(&error) && (failed.is_none() || refusal(&error).is_some()) {
                failed = Some(error);
            }
            false
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if deliveries.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
