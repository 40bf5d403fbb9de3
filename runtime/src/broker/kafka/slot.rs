//! A place for a producer that is made again when it cannot go on.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::{ClientConfig, error::KafkaError};

use super::client::Client;

/// A producer and how to make the next.
pub(crate) struct Slot {
    config: ClientConfig,
    client: Mutex<Option<Arc<Client>>>,
}

impl Slot {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            client: Mutex::default(),
        }
    }

    pub(crate) fn client(&self) -> Result<Arc<Client>, KafkaError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match &*client {
            Some(client) => Ok(client.clone()),
            None => Ok(client.insert(Arc::new(Client::new(&self.config)?)).clone()),
        }
    }

    /// The next one is made when it is needed. Other calls that wait for this one get their answers at once.
    pub(crate) fn retire(&self, old: &Arc<Client>) {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_if(|client| Arc::ptr_eq(client, old));
        old.forget_all();
    }
}

/// A call that is dropped while it waits: what it has queued must not go out later, one without the other.
pub(crate) struct Unfinished<'a> {
    pub(crate) slots: [&'a Slot; 2],
    pub(crate) clients: [Option<Arc<Client>>; 2],
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        for (slot, client) in self.slots.iter().zip(&self.clients) {
            if let Some(client) = client {
                slot.retire(client);
            }
        }
    }
}
