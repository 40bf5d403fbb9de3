//! A call that stays in its body for as long as a test wants.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use effectively::{Failure, Ledger, Outcome};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::shop::{ShopDb, ShopError, place, shop_key};

/// A call that is in its body until it is let go. When this is dropped, the body gives up.
pub struct Held {
    go: oneshot::Sender<()>,
    call: JoinHandle<Result<Outcome<String>, Failure<ShopError>>>,
}

impl Held {
    pub async fn by<DB: ShopDb>(
        ledger: &Ledger<DB>,
        runs: &Arc<AtomicUsize>,
        key: &'static str,
        fingerprint: &'static str,
    ) -> Self {
        let (go, gone) = oneshot::channel();
        let (in_body, started) = oneshot::channel();
        let (ledger, runs) = (ledger.clone(), Arc::clone(runs));
        let call = tokio::spawn(async move {
            let call = ledger.call(shop_key(key)).fingerprint(fingerprint)?;
            let work = async {
                let _ = in_body.send(());
                gone.await.map_err(|_| ShopError::GaveUp)
            };
            place(call, &runs, "held", work).await
        });
        started.await.expect("the body runs");
        Self { go, call }
    }

    /// Lets the body return.
    pub async fn finish(self) -> Result<Outcome<String>, Failure<ShopError>> {
        self.go.send(()).expect("the body waits");
        self.call.await.expect("no panic")
    }

    /// Lets the body give up.
    pub async fn give_up(self) {
        drop(self.go);
        let answer = self.call.await.expect("no panic");
        assert!(matches!(answer, Err(Failure::Handler(ShopError::GaveUp))));
    }
}
