//! The guard around every connection that the engine uses.

use sqlx::pool::PoolConnection;
use tokio::runtime::Handle;

use crate::store::Dialect;

/// A connection that closes when it is dropped, unless it was given back.
///
/// sqlx 0.9 puts a connection back into the pool inside an open transaction when `begin` is dropped in flight
/// (transact-rs/sqlx#4393): the next borrower's writes are then lost. A closed connection cannot do that, and the server
/// rolls its transaction back.
#[derive(Debug)]
pub(crate) struct Lent<DB: Dialect> {
    /// `None` only while it is dropped.
    conn: Option<PoolConnection<DB>>,
    clean: bool,
    /// sqlx spawns on drop, and a future may be dropped on a thread that has no runtime.
    runtime: Handle,
}

impl<DB: Dialect> Lent<DB> {
    pub(crate) fn new(conn: PoolConnection<DB>) -> Self {
        Self {
            conn: Some(conn),
            clean: false,
            runtime: Handle::current(),
        }
    }

    pub(crate) fn conn(&mut self) -> &mut DB::Connection {
        match &mut self.conn {
            Some(conn) => conn,
            None => unreachable!("only drop takes the connection"),
        }
    }

    /// The transaction has ended and the server said so: the pool may have it back.
    pub(crate) fn give_back(mut self) {
        self.clean = true;
    }
}

impl<DB: Dialect> Drop for Lent<DB> {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        if let Some(mut conn) = self.conn.take()
            && !self.clean
        {
            conn.close_on_drop();
        }
    }
}
