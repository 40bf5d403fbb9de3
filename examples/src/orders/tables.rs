//! The table of the application, on three databases.

use effectively::{Dialect, TxParam};
use sqlx::{MySqlConnection, MySqlPool, PgConnection, PgPool, Pool, SqliteConnection, SqlitePool};

use super::{PlaceOrder, Receipt};

/// What the application asks of a database. A handler that is generic over it runs on all three.
pub trait Orders: TxParam<Db: Dialect> + Send + 'static {
    /// Unless it is there.
    fn create_table(pool: &Pool<Self::Db>) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Inserts an order and answers with its id.
    fn insert(
        &mut self,
        user: &str,
        order: &PlaceOrder,
    ) -> impl Future<Output = sqlx::Result<i64>> + Send;

    /// The user's orders, oldest first.
    fn orders_of(
        pool: &Pool<Self::Db>,
        user: &str,
    ) -> impl Future<Output = sqlx::Result<Vec<Receipt>>> + Send;
}

impl Orders for PgConnection {
    async fn create_table(pool: &PgPool) -> sqlx::Result<()> {
        // Processes that start together would meet in the catalogue.
        let create = "BEGIN; SELECT pg_advisory_xact_lock(4242); \
             CREATE TABLE IF NOT EXISTS orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
             customer TEXT NOT NULL, item TEXT NOT NULL, quantity SMALLINT NOT NULL); COMMIT";
        sqlx::raw_sql(create).execute(pool).await.map(drop)
    }

    async fn insert(&mut self, user: &str, order: &PlaceOrder) -> sqlx::Result<i64> {
        let insert =
            "INSERT INTO orders (customer, item, quantity) VALUES ($1, $2, $3) RETURNING id";
        sqlx::query_scalar(insert)
            .bind(user)
            .bind(&order.item)
            .bind(order.quantity.cast_signed())
            .fetch_one(self)
            .await
    }

    async fn orders_of(pool: &PgPool, user: &str) -> sqlx::Result<Vec<Receipt>> {
        let select = "SELECT id, item, quantity FROM orders WHERE customer = $1 ORDER BY id";
        let rows: Vec<(i64, String, i16)> =
            sqlx::query_as(select).bind(user).fetch_all(pool).await?;
        Ok(rows.into_iter().map(receipt).collect())
    }
}

impl Orders for MySqlConnection {
    async fn create_table(pool: &MySqlPool) -> sqlx::Result<()> {
        // The database's own character set may be `latin1` or three bytes of UTF-8, and refuse an item that JSON can name.
        let create = "CREATE TABLE IF NOT EXISTS orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, \
             customer VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, \
             item MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL, quantity SMALLINT NOT NULL)";
        sqlx::raw_sql(create).execute(pool).await.map(drop)
    }

    async fn insert(&mut self, user: &str, order: &PlaceOrder) -> sqlx::Result<i64> {
        let insert = "INSERT INTO orders (customer, item, quantity) VALUES (?, ?, ?)";
        let done = sqlx::query(insert)
            .bind(user)
            .bind(&order.item)
            .bind(order.quantity.cast_signed())
            .execute(self)
            .await?;
        Ok(done.last_insert_id().cast_signed())
    }

    async fn orders_of(pool: &MySqlPool, user: &str) -> sqlx::Result<Vec<Receipt>> {
        let select = "SELECT id, item, quantity FROM orders WHERE customer = ? ORDER BY id";
        let rows: Vec<(i64, String, i16)> =
            sqlx::query_as(select).bind(user).fetch_all(pool).await?;
        Ok(rows.into_iter().map(receipt).collect())
    }
}

impl Orders for SqliteConnection {
    async fn create_table(pool: &SqlitePool) -> sqlx::Result<()> {
        let create = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, \
             customer TEXT NOT NULL, item TEXT NOT NULL, quantity INTEGER NOT NULL)";
        sqlx::raw_sql(create).execute(pool).await.map(drop)
    }

    async fn insert(&mut self, user: &str, order: &PlaceOrder) -> sqlx::Result<i64> {
        let insert = "INSERT INTO orders (customer, item, quantity) VALUES (?, ?, ?) RETURNING id";
        sqlx::query_scalar(insert)
            .bind(user)
            .bind(&order.item)
            .bind(order.quantity)
            .fetch_one(self)
            .await
    }

    async fn orders_of(pool: &SqlitePool, user: &str) -> sqlx::Result<Vec<Receipt>> {
        let select = "SELECT id, item, quantity FROM orders WHERE customer = ? ORDER BY id";
        let rows: Vec<(i64, String, i16)> =
            sqlx::query_as(select).bind(user).fetch_all(pool).await?;
        Ok(rows.into_iter().map(receipt).collect())
    }
}

fn receipt((order_id, item, quantity): (i64, String, i16)) -> Receipt {
    Receipt {
        order_id,
        item,
        quantity: quantity.cast_unsigned(),
    }
}
