//! The test's hand on the bodies of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Counts the runs, and holds the slow ones until it lets go.
#[derive(Clone, Default)]
pub struct Hand(Arc<InHand>);

struct InHand {
    runs: AtomicUsize,
    entered: Semaphore,
    opened: Semaphore,
    left: Semaphore,
}

impl Default for InHand {
    fn default() -> Self {
        Self {
            runs: AtomicUsize::new(0),
            entered: Semaphore::new(0),
            opened: Semaphore::new(0),
            left: Semaphore::new(0),
        }
    }
}

/// Tells that a body is gone, however it went.
struct Left(Hand);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.0.left.add_permits(1);
    }
}

impl Hand {
    pub fn runs(&self) -> usize {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// In a body: which run this is, from 0.
    pub fn run(&self) -> usize {
        self.0.runs.fetch_add(1, Ordering::SeqCst)
    }

    /// Until one more slow body is there.
    pub async fn entered(&self) {
        take(&self.0.entered).await;
    }

    /// Lets this slow body go, and all later ones.
    pub fn let_go(&self) {
        self.0.opened.add_permits(1 << 20);
    }

    /// Until one more slow body is gone.
    pub async fn left(&self) {
        take(&self.0.left).await;
    }

    /// In a slow body: until the test lets it go.
    pub async fn hold(&self) {
        let _left = Left(self.clone());
        self.0.entered.add_permits(1);
        drop(self.0.opened.acquire().await);
    }
}

async fn take(semaphore: &Semaphore) {
    let permit = tokio::time::timeout(Duration::from_secs(60), semaphore.acquire()).await;
    permit.expect("in time").expect("never closed").forget();
}
