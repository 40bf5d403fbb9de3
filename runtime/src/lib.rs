#![doc = include_str!("guide.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod broker;
mod error;
mod model;
pub mod sink;

mod store;

mod engine;
#[cfg(not(feature = "fault-points"))]
mod fault;
#[cfg(feature = "fault-points")]
pub mod fault;
pub mod guard;

#[cfg(feature = "client")]
pub mod client;
mod handler;
mod relay;
#[cfg(feature = "http")]
pub mod web;

#[cfg(feature = "testing")]
pub mod testing;

#[doc(hidden)]
pub mod __private;

#[doc(inline)]
pub use effectively_macros::{Event, KeyPart, handlers, idempotent, outbox};

pub use self::{
    engine::{Drained, Ledger, LedgerBuilder, Outbox},
    error::{Error, ErrorKind, KeyProblem},
    handler::{
        Call, Conflict, Emit, Events, Failure, HandlerReturn, IdempotencyKey, IntoEmission,
        Outcome, Refusal, Refused, Replay, TxParam, ViaSerde,
    },
    model::{
        envelope::Envelope,
        event::{Event, Headers},
        fingerprint::Fingerprint,
        handler::Isolation,
        key::{Key, KeyPart, Scope},
        recorded::Recorded,
    },
    relay::{Control, Order, Relay, RelayBuilder, Route},
    store::{
        Backlog, DeadLetter, Dialect, InterruptedKey, KeyState, LeaseState, Leftovers,
        LongTransaction, ScopeUse, ServerState,
    },
};
