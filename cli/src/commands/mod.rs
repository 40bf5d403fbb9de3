//! One file per command.

pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod keys;
pub(crate) mod migrate;
pub(crate) mod purge;
pub(crate) mod relay;
pub(crate) mod status;
