//! HTTP: the contract that every framework's adapter keeps, and what it is made of.
//!
//! | | |
//! |---|---|
//! | [`Contract`] | what an application may choose: lenient keys, statuses, the marker of replays, the page of the problems |
//! | [`Fingerprinted`] | an extractor around another that also takes the request's content, for `fingerprint(request)` |
//!
//! An adapter is one file with the same parts in the same order: the ledger and the key as extractors, `Fingerprinted`, the
//! responses of `Outcome`, `Failure` and `Error`, and `Replay` for the framework's own types.

#![cfg_attr(
    not(any(
        feature = "actix-web",
        feature = "axum",
        feature = "poem",
        feature = "salvo"
    )),
    allow(dead_code, reason = "the adapters of these frameworks use it")
)]

mod content;
mod contract;
pub(crate) mod header;
mod media;
pub mod openapi;
pub(crate) mod problem;
mod response;

#[cfg(feature = "actix-web")]
mod actix_web;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "poem")]
mod poem;
#[cfg(feature = "salvo")]
mod salvo;
#[cfg(feature = "tonic")]
pub mod tonic;

pub use self::{
    content::{Exclude, Fingerprinted, Nothing, RequestContent},
    contract::Contract,
    media::{ViaHead, ViaJson, ViaResponse, ViaStatus, WithStatus},
};
