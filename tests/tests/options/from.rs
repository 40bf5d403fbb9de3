//! `from = self.ledger`: a method takes its ledger from where the service keeps it.

use effectively::{Emit, ErrorKind, Ledger, idempotent, outbox};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Orders, Placed, Shop, ShopDb, ShopError, first, kind, replay, send};

struct Service<DB: ShopDb> {
    ledger: Ledger<DB>,
    tenant: &'static str,
}

impl<DB: ShopDb> Service<DB> {
    #[idempotent(key = "{self.tenant}/{item}", scope = "service.place", fingerprint(self.tenant, amount), from = self.ledger)]
    #[outbox]
    async fn place(
        &self,
        tx: &mut DB::Connection,
        item: &str,
        amount: i64,
    ) -> Result<Emit<String>, ShopError> {
        tx.insert(item).await?;
        Ok(Emit::new(format!("{amount} for {}", self.tenant)).event(Placed::of(item)))
    }

    #[outbox(from = self.ledger)]
    async fn announce(&mut self, tx: &mut DB::Connection) -> Result<[Placed; 1], ShopError> {
        self.tenant = "announced";
        tx.insert("announced").await?;
        Ok([Placed::of(self.tenant)])
    }
}

on_every_database!(a_method_runs_on_the_ledger_of_its_service);

async fn a_method_runs_on_the_ledger_of_its_service<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let service = |tenant| Service {
        ledger: shop.ledger(),
        tenant,
    };
    let (acme, other) = (service("acme"), service("other"));
    let answer = first(send(acme.place("a", 7)).await);
    let again = replay(send(acme.place("a", 7)).await);
    assert_eq!(again.recorded(), answer.recorded());
    assert_eq!(again.into_result().expect("a response"), "7 for acme");
    assert_eq!(kind(&acme.place("a", 8).await), Some(ErrorKind::Mismatch));
    first(other.place("a", 7).await);
    assert_eq!(shop.stored().await, (2, 2, 2));

    let mut service = service("acme");
    send(service.announce()).await.expect("an answer");
    assert_eq!(service.tenant, "announced");
    assert_eq!(shop.stored().await, (3, 3, 2));
}
