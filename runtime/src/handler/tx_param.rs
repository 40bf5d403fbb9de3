//! The first parameter of a handler: the connection that the open transaction is lent through.

use crate::store::Dialect;

/// A connection that a handler can take as `tx: &mut …`: sqlx's `PgConnection`, `MySqlConnection` or `SqliteConnection`.
///
/// A handler generic over it serves several databases. The queries that differ are a trait of the application:
///
/// ```
/// use effectively::{Dialect, TxParam};
///
/// trait Orders: TxParam<Db: Dialect> + Send {
///     fn insert(&mut self, item: &str) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`&mut {Self}` cannot be the transaction parameter of a handler",
    label = "not a connection of a supported database",
    note = "take sqlx's `&mut PgConnection`, `&mut MySqlConnection` or `&mut SqliteConnection`, with the feature of that database switched on",
    note = "not a whole `sqlx::Transaction`: the toolkit commits it; `tx.begin()` opens a savepoint",
    note = "a handler for several databases takes `tx: &mut C` with `C: effectively::TxParam + Send`"
)]
pub trait TxParam: sealed::Sealed {
    /// The database it connects to.
    type Db: Dialect;

    #[doc(hidden)]
    fn lent(connection: &mut <Self::Db as sqlx::Database>::Connection) -> &mut Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! tx_param {
    ($($feature:literal $connection:ident $database:ident)*) => {$(
        #[cfg(feature = $feature)]
        impl sealed::Sealed for sqlx::$connection {}

        #[cfg(feature = $feature)]
        impl TxParam for sqlx::$connection {
            type Db = sqlx::$database;

            fn lent(connection: &mut Self) -> &mut Self {
                connection
            }
        }
    )*};
}
tx_param! {
    "postgres" PgConnection Postgres
    "mysql" MySqlConnection MySql
    "sqlite" SqliteConnection Sqlite
}
