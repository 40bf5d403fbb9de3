//! The attempt: one try to execute a call. It owns the claim it wrote, and numbers the events it stages.

use uuid::Uuid;

/// A random token with 106 free bits. Its last two bytes are zero: they are where an event's ordinal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(Uuid);

impl Attempt {
    /// How many events one attempt can number.
    pub(crate) const MAX_EVENTS: usize = 1 << 16;

    pub(crate) fn new() -> Self {
        let mut bytes = Uuid::new_v4().into_bytes();
        [bytes[14], bytes[15]] = [0, 0];
        Self(Uuid::from_bytes(bytes))
    }

    /// The id of this attempt's n-th event: it never changes, and no other attempt can have it.
    pub(crate) fn event_id(self, ordinal: u16) -> Uuid {
        let mut bytes = self.0.into_bytes();
        [bytes[14], bytes[15]] = ordinal.to_be_bytes();
        Uuid::from_bytes(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}
