//! The form without macros: [`Ledger::run`].

use std::time::Duration;

use serde::Serialize;

use super::{
    Failure, IntoEmission, Outcome, Replay,
    call::{enter, inside, leave},
    policy::{Content, Emitting, Plain, Release, Wrapped},
};
use crate::{
    engine::Ledger,
    error::Error,
    model::{Fingerprint, Handler, Isolation, Key, OnError},
    store::Dialect,
};

impl<DB: Dialect> Ledger<DB> {
    /// Runs a body once per key: the form of `#[idempotent]` without a macro.
    ///
    /// A body with events is run by [`Call::run_with_events`]; a fingerprint and other options are set by [`call`](Self::call).
    /// There are no `retries` and no `detach`: a closure that borrows can neither be run twice nor be sent away.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # mod example {
    /// use effectively::{Failure, Key, Ledger};
    /// use sqlx::{Sqlite, SqliteConnection};
    ///
    /// async fn pay(ledger: &Ledger<Sqlite>, account: i64, payment: &str) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    ///     let key = Key::new("pay", &[&account, &payment])?;
    ///     let outcome = ledger
    ///         .run(key, async |tx: &mut SqliteConnection| {
    ///             sqlx::query_scalar("update accounts set paid = paid + 1 where id = ? returning paid").bind(account).fetch_one(tx).await
    ///         })
    ///         .await?;
    ///     Ok(outcome.into_result()?)
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Failure::Handler`] with the error of the body, after which everything is rolled back and the key is free;
    /// [`Failure::Toolkit`] when the call could not be made or finished.
    pub async fn run<F, T, E, M>(&self, key: Key, body: F) -> Result<Outcome<T>, Failure<E>>
    where
        F: AsyncFnOnce(&mut DB::Connection) -> Result<T, E>,
        T: Replay<M>,
    {
        self.call(key).run(body).await
    }

    /// A call with options, not yet made.
    pub fn call(&self, key: Key) -> Call<'_, DB> {
        Call {
            ledger: self,
            key,
            fingerprint: None,
            retention: None,
            wait: None,
            isolation: Isolation::default(),
        }
    }
}

/// A call with options, made by [`run`](Self::run) or [`run_with_events`](Self::run_with_events).
#[derive(Debug)]
#[must_use = "the call is made by `run`"]
pub struct Call<'a, DB: Dialect> {
    ledger: &'a Ledger<DB>,
    key: Key,
    fingerprint: Option<Fingerprint>,
    retention: Option<Duration>,
    wait: Option<Duration>,
    isolation: Isolation,
}

impl<DB: Dialect> Call<'_, DB> {
    /// The content that must be the same when the key comes again, else [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch).
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) when it cannot be written as JSON.
    pub fn fingerprint(self, content: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Ok(Self {
            fingerprint: Some(Fingerprint::of(content)?),
            ..self
        })
    }

    /// How long the outcome is kept, by the database's clock: 1 millisecond to 100 years, else the call fails with
    /// [`ErrorKind::Settings`](crate::ErrorKind::Settings).
    pub fn retention(self, retention: Duration) -> Self {
        Self {
            retention: Some(retention),
            ..self
        }
    }

    /// How long a duplicate waits for the first call to finish: at most a minute, else the call fails with
    /// [`ErrorKind::Settings`](crate::ErrorKind::Settings).
    pub fn wait(self, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            ..self
        }
    }

    /// The isolation level of the transaction.
    pub fn isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }

    /// Makes the call.
    ///
    /// # Errors
    /// As [`Ledger::run`].
    pub async fn run<F, T, E, M>(self, body: F) -> Result<Outcome<T>, Failure<E>>
    where
        F: AsyncFnOnce(&mut DB::Connection) -> Result<T, E>,
        T: Replay<M>,
    {
        self.make::<Plain, _, _, _, _>(body).await
    }

    /// Makes the call and stores the events that the body returns: [`Emit`](crate::Emit), or a `Vec`, an array or an
    /// `Option` of events.
    ///
    /// # Errors
    /// As [`Ledger::run`].
    pub async fn run_with_events<F, T, E, M>(
        self,
        body: F,
    ) -> Result<Outcome<T::Response>, Failure<E>>
    where
        F: AsyncFnOnce(&mut DB::Connection) -> Result<T, E>,
        T: IntoEmission<Response: Replay<M>>,
    {
        self.make::<Emitting, _, _, _, _>(body).await
    }

    async fn make<C, F, T, E, M>(self, body: F) -> Result<Outcome<C::Response>, Failure<E>>
    where
        C: Content<T, Response: Replay<M>>,
        F: AsyncFnOnce(&mut DB::Connection) -> Result<T, E>,
    {
        let handler = Handler {
            scope: "",
            // Empty: a call without a macro stands nowhere, and may share its scope with others like it.
            place: "",
            retention: self.retention,
            wait: self.wait,
            isolation: self.isolation,
            on_error: OnError::Release,
            retries: 0,
        };
        let end = match enter(self.ledger, &handler, Ok(self.key), Ok(self.fingerprint)).await {
            Ok(mut claim) => {
                let returned = inside(body(claim.tx())).await;
                Ok((claim, returned))
            }
            Err(early) => Err(early),
        };
        leave::<C, Release, Wrapped, M, Result<T, E>, DB>(end).await
    }
}
