//! What was written in both attributes of one function.

use crate::{
    slot::{Read, Slot},
    values::{
        Flag, Isolation, OnError, Paths, Reason, Retention, Retries, Runtime, ScopeName, Source,
        Text, Wait,
    },
};

/// One slot per option. An option of both attributes has one slot, so that it is given once in all.
pub(crate) struct Args {
    pub(crate) key: Slot<Text>,
    pub(crate) scope: Slot<ScopeName>,
    pub(crate) fingerprint: Slot<Paths>,
    pub(crate) retention: Slot<Retention>,
    pub(crate) wait: Slot<Wait>,
    pub(crate) on_error: Slot<OnError>,
    pub(crate) shared_by_all: Slot<Flag>,
    pub(crate) retries: Slot<Retries>,
    pub(crate) isolation: Slot<Isolation>,
    pub(crate) detach: Slot<Flag>,
    pub(crate) outside_calls: Slot<Reason>,
    pub(crate) from: Slot<Source>,
    pub(crate) runtime: Slot<Runtime>,
    pub(crate) transparent: Slot<Flag>,
}

impl Args {
    pub(crate) fn new() -> Self {
        Self {
            key: Slot::new("key", "key = \"order:{cmd.order_id}\""),
            scope: Slot::new("scope", "scope = \"orders.place\""),
            fingerprint: Slot::new("fingerprint", "fingerprint(cmd)"),
            retention: Slot::new("retention", "retention = \"24h\""),
            wait: Slot::new("wait", "wait = \"5s\""),
            on_error: Slot::new("on_error", "on_error = \"record\""),
            shared_by_all: Slot::new("shared_by_all", "shared_by_all"),
            retries: Slot::new("retries", "retries = 3"),
            isolation: Slot::new("isolation", "isolation = \"serializable\""),
            detach: Slot::new("detach", "detach"),
            outside_calls: Slot::new(
                "outside_calls",
                "outside_calls = \"reads a price list, repeats are harmless\"",
            ),
            from: Slot::new("from", "from = self.ledger"),
            runtime: Slot::new("crate", "crate = path::to::effectively"),
            transparent: Slot::new("transparent", "transparent"),
        }
    }

    /// The options of `#[idempotent]`.
    pub(super) fn idempotent(&mut self) -> [&mut dyn Read; 14] {
        [
            &mut self.key,
            &mut self.scope,
            &mut self.fingerprint,
            &mut self.retention,
            &mut self.wait,
            &mut self.on_error,
            &mut self.retries,
            &mut self.isolation,
            &mut self.detach,
            &mut self.shared_by_all,
            &mut self.outside_calls,
            &mut self.from,
            &mut self.runtime,
            &mut self.transparent,
        ]
    }

    /// The options of `#[outbox]`: those that are not about a key.
    pub(super) fn outbox(&mut self) -> [&mut dyn Read; 7] {
        [
            &mut self.retries,
            &mut self.isolation,
            &mut self.detach,
            &mut self.outside_calls,
            &mut self.from,
            &mut self.runtime,
            &mut self.transparent,
        ]
    }

    /// The options of `#[handlers]`: those that all methods of an impl block share.
    pub(crate) fn handlers(&mut self) -> [&mut dyn Read; 2] {
        [&mut self.from, &mut self.runtime]
    }

    /// Takes from an enclosing impl block what is not given here.
    pub(super) fn inherit(&mut self, outer: &Self) {
        self.from.inherit(&outer.from);
        self.runtime.inherit(&outer.runtime);
    }
}
