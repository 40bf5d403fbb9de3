//! The guard around every connection that the engine uses.

use sqlx::pool::PoolConnection;
use tokio::{runtime::Handle, time::Instant};

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
    /// Whether its session was put right for our statements, and must be put back.
    changed: bool,
    /// When the pool lent it.
    lent_at: Instant,
    /// sqlx spawns on drop, and a future may be dropped on a thread that has no runtime.
    runtime: Handle,
}

impl<DB: Dialect> Lent<DB> {
    pub(crate) fn new(conn: PoolConnection<DB>) -> Self {
        Self {
            conn: Some(conn),
            clean: false,
            changed: false,
            lent_at: Instant::now(),
            runtime: Handle::current(),
        }
    }

    pub(crate) fn conn(&mut self) -> &mut DB::Connection {
        match &mut self.conn {
            Some(conn) => conn,
            None => unreachable!("only drop takes the connection"),
        }
    }

    /// Puts the session right for statements outside a call.
    pub(super) async fn put_right(&mut self) -> sqlx::Result<()> {
        self.changed = DB::put_right(self.conn()).await?;
        Ok(())
    }

    /// Gives the session the settings back that it had. One that cannot take them closes with its connection.
    pub(super) async fn put_back(mut self) -> Option<Self> {
        if self.changed {
            DB::put_back(self.conn()).await.ok()?;
            self.changed = false;
        }
        Some(self)
    }

    /// The transaction has ended and the server said so: the pool may have it back.
    pub(crate) fn give_back(mut self) {
        self.mark_clean();
    }

    /// The transaction has ended and the server said so: dropped, it goes back to the pool.
    pub(super) fn mark_clean(&mut self) {
        self.clean = true;
    }

    /// To the next call, without the pool in between.
    pub(super) fn lend_again(&mut self) {
        self.clean = false;
    }

    pub(super) fn lent_at(&self) -> Instant {
        self.lent_at
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
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
