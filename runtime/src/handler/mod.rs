//! The face: what an annotated function takes, what it returns, and what stands between it and the engine.
//!
//! `call.rs` is the path of one call as generated code and [`Ledger::run`](crate::Ledger::run) take it.

pub(crate) mod call;
mod conflict;
pub(crate) mod detach;
mod emit;
mod failure;
mod idempotency_key;
pub(crate) mod origin;
mod outcome;
pub(crate) mod policy;
mod refusal;
mod replay;
pub(crate) mod retry;
mod returned;
mod run;
mod tx_param;

#[cfg(feature = "http")]
pub(crate) use self::replay::{answer_to_json, from_json};
pub use self::{
    conflict::Conflict,
    emit::{Emit, Events, IntoEmission},
    failure::Failure,
    idempotency_key::IdempotencyKey,
    outcome::{Outcome, Refused},
    refusal::Refusal,
    replay::{Replay, ViaSerde},
    returned::HandlerReturn,
    run::Call,
    tx_param::TxParam,
};

/// The pages of the macros, whose own crate cannot compile what they show.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../macros/src/docs/idempotent.md")]
    mod idempotent {}
    #[doc = include_str!("../../../macros/src/docs/outbox.md")]
    mod outbox {}
    #[doc = include_str!("../../../macros/src/docs/handlers.md")]
    mod handlers {}
    #[doc = include_str!("../../../macros/src/docs/event.md")]
    mod event {}
    #[doc = include_str!("../../../macros/src/docs/key_part.md")]
    mod key_part {}
}
