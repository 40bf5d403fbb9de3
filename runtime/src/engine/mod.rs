//! The write side: one call is one transaction. Read `run.rs` first, it is the algorithm.

mod claim;
mod doctor;
mod flights;
mod kept;
mod ledger;
mod lent;
pub(crate) mod observed;
mod outbox;
mod remembered;
mod resolve;
mod run;
mod scopes;
mod settings;
mod steps;
mod verdict;
mod wakeup;
mod writers;

pub(crate) use self::{
    claim::{Answer, Claim},
    lent::Lent,
    run::Entered,
};
pub use self::{
    ledger::Ledger,
    outbox::{Drained, Outbox},
    settings::LedgerBuilder,
};
