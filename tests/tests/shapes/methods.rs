//! Methods, and methods of traits.

use effectively::{Emit, Failure, Ledger, Outcome, idempotent, outbox};
use sqlx::{Sqlite, SqliteConnection};

use crate::shop::{AppError, Place, Placed, Receipt, Shop, insert, send, twice};

#[derive(Clone)]
struct Service {
    ledger: Ledger<Sqlite>,
    add: i64,
}

impl Service {
    fn ledger(&self) -> Ledger<Sqlite> {
        self.ledger.clone()
    }

    #[idempotent(key = "{self.add}/{cmd.id}", from = self.ledger)]
    async fn from_a_field(&self, tx: &mut SqliteConnection, cmd: &Place) -> Result<i64, AppError> {
        insert(tx, cmd.id).await?;
        Ok(self.add + cmd.id)
    }

    #[idempotent(key = "{cmd.id}", from = self.ledger())]
    async fn from_a_method(
        &mut self,
        tx: &mut SqliteConnection,
        cmd: &Place,
    ) -> Result<i64, AppError> {
        self.add += 1;
        insert(tx, cmd.id).await?;
        Ok(cmd.id)
    }

    #[idempotent(key = "{cmd.id}")]
    async fn as_a_parameter(self, tx: &mut SqliteConnection, cmd: &Place) -> Result<i64, AppError> {
        insert(tx, cmd.id).await?;
        Ok(self.add + cmd.id)
    }

    #[idempotent(key = "{id}", from = *ledger)]
    async fn from_a_parameter(
        tx: &mut SqliteConnection,
        ledger: &&Ledger<Sqlite>,
        id: i64,
    ) -> Result<i64, AppError> {
        insert(tx, id).await?;
        Ok(id)
    }
}

trait Orders {
    fn place(&self, cmd: Place) -> impl Future<Output = Result<Receipt, AppError>> + Send;
}

impl Orders for Service {
    #[idempotent(key = "{cmd.id}", from = self.ledger, transparent)]
    async fn place(&self, tx: &mut SqliteConnection, cmd: Place) -> Result<Receipt, AppError> {
        insert(tx, cmd.id).await?;
        Ok(Receipt { id: cmd.id })
    }
}

#[async_trait::async_trait]
trait BoxedOrders {
    const LIMIT: usize;

    async fn place(&self, cmd: Place) -> Result<Outcome<Receipt>, Failure<AppError>>;
    async fn other(&self) -> usize;
    async fn touch(&self, cmd: &Place) -> Result<(), AppError>;
}

#[effectively::handlers(from = self.ledger)]
#[async_trait::async_trait]
impl BoxedOrders for Service {
    const LIMIT: usize = 3;

    #[idempotent(key = "{cmd.id}", scope = "boxed.place")]
    #[outbox]
    async fn place(
        &self,
        tx: &mut SqliteConnection,
        cmd: Place,
    ) -> Result<Emit<Receipt>, AppError> {
        insert(tx, cmd.id).await?;
        Ok(Emit::new(Receipt { id: cmd.id }).event(Placed { id: cmd.id }))
    }

    async fn other(&self) -> usize {
        Self::LIMIT
    }

    #[outbox(transparent)]
    async fn touch(&self, tx: &mut SqliteConnection, cmd: &Place) -> Result<Vec<Placed>, AppError> {
        insert(tx, cmd.id).await?;
        Ok(vec![Placed { id: cmd.id }])
    }
}

#[tokio::test]
async fn the_ledger_comes_from_anywhere() {
    let shop = Shop::open().await;
    let service = Service {
        ledger: shop.ledger.clone(),
        add: 10,
    };
    let (cmd, ledger) = (Place::of(1), &shop.ledger);
    assert_eq!(twice(|| send(service.from_a_field(&cmd))).await, (11, 11));
    let mut borrowed = service.clone();
    send(borrowed.from_a_method(&cmd)).await.expect("an answer");
    assert!(
        send(borrowed.from_a_method(&cmd))
            .await
            .expect("an answer")
            .is_replay()
    );
    assert_eq!(borrowed.add, 11, "the body ran once");
    twice(|| send(service.clone().as_a_parameter(shop.ledger.clone(), &cmd))).await;
    twice(|| send(Service::from_a_parameter(&ledger, 1))).await;
    assert_eq!(shop.orders().await, 4);
}

#[tokio::test]
async fn a_trait_keeps_its_natural_signature() {
    let shop = Shop::open().await;
    let service = Service {
        ledger: shop.ledger.clone(),
        add: 0,
    };
    for _ in 0..2 {
        assert_eq!(
            send(Orders::place(&service, Place::of(1)))
                .await
                .expect("a receipt"),
            Receipt { id: 1 }
        );
    }
    let boxed: &dyn Fn(i64) -> _ = &|id| BoxedOrders::place(&service, Place::of(id));
    assert_eq!(twice(|| boxed(1)).await.1, Receipt { id: 1 });
    send(service.touch(&Place::of(2))).await.expect("an event");
    assert_eq!(service.other().await, 3);
    assert_eq!((shop.orders().await, shop.events().await), (3, 2));
}
