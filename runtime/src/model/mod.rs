//! Values only: no pool, no IO, nothing async.

pub(crate) mod attempt;
pub(crate) mod backoff;
pub(crate) mod canonical;
pub(crate) mod delivery;
pub(crate) mod envelope;
pub(crate) mod event;
pub(crate) mod fingerprint;
pub(crate) mod handler;
pub(crate) mod json;
pub(crate) mod key;
pub(crate) mod limits;
mod number;
pub(crate) mod pattern;
pub(crate) mod recorded;
mod unordered;

pub(crate) use self::{
    attempt::Attempt,
    envelope::{Envelope, EventRef, Lane},
    event::{Headers, PARTITIONS, Staged},
    fingerprint::Fingerprint,
    handler::{Handler, Isolation, OnError},
    key::{Key, KeyHash, Scope},
    pattern::Pattern,
    recorded::Recorded,
};
