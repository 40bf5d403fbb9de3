//! `Role`: what a child is told through its environment.

use std::env;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Its presence makes a process a worker.
pub(super) const VARIABLE: &str = "EFFECTIVELY_WORKER";

#[derive(Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) database: Option<String>,
    pub(super) input: Value,
}

impl Role {
    pub(super) fn of_this_process() -> Option<Self> {
        let role = env::var(VARIABLE).ok()?;
        Some(serde_json::from_str(&role).expect("the role that the parent wrote"))
    }

    pub(super) fn to_variable(&self) -> String {
        serde_json::to_string(self).expect("a role as JSON")
    }
}
