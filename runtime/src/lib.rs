//! Async handler functions that are effectively once.

#[doc(hidden)]
pub mod __private;
mod engine;
mod error;
mod fault;
pub mod guard;
mod handler;
mod model;
mod store;
#[cfg(feature = "http")]
mod web;

pub use self::{
    engine::{Drained, Ledger, LedgerBuilder, Outbox},
    error::{Error, ErrorKind, KeyProblem},
    handler::{
        Call, Conflict, Emit, Events, Failure, HandlerReturn, IdempotencyKey, IntoEmission,
        Outcome, Refusal, Refused, Replay, TxParam, ViaSerde,
    },
    model::{
        event::{Event, Headers},
        fingerprint::Fingerprint,
        handler::Isolation,
        key::{Key, KeyPart, Scope},
        recorded::Recorded,
    },
    store::{Dialect, Envelope, InterruptedKey},
};

/// Fault points, for tests only.
#[cfg(feature = "fault-points")]
pub use self::fault as fault_points;
#[doc(inline)]
pub use effectively_macros::*;
