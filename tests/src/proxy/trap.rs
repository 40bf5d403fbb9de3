//! `Trap`: a fault that waits for a certain message.

/// What happens to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    LoseReply,
    LoseRequest,
    Stall,
}

/// Springs once, on the first connection whose client sends the bytes it waits for.
#[derive(Debug)]
pub(super) struct Trap {
    fault: Fault,
    bait: Vec<u8>,
}

impl Trap {
    pub(super) fn new(fault: Fault, bait: &[u8]) -> Self {
        assert!(
            !bait.is_empty(),
            "a trap that waits for nothing would spring on everything"
        );
        Self {
            fault,
            bait: bait.to_vec(),
        }
    }

    /// The fault, if the bytes end in `chunk`. `tail` holds what this client sent just before: a read may cut a message anywhere.
    pub(super) fn springs_on(&self, tail: &Tail, chunk: &[u8]) -> Option<Fault> {
        let before = &tail.0[tail.0.len().saturating_sub(self.bait.len() - 1)..];
        let seen = [before, chunk].concat();
        seen.windows(self.bait.len())
            .any(|window| window == self.bait)
            .then_some(self.fault)
    }
}

/// The last bytes that a client sent.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// Longer than any bait.
    const LENGTH: usize = 256;

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
        let surplus = self.0.len().saturating_sub(Self::LENGTH);
        self.0.drain(..surplus);
    }
}
