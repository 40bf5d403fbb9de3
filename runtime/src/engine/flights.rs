//! Single flight: of the calls with one key in this process, one goes to the database and the others wait in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Error, ErrorKind},
    model::{Fingerprint, KeyHash, Recorded},
};

/// The keys that are in flight in this process.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<KeyHash, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    /// Held by the call that is at the database. Fair: who waits longest goes next.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the call that has the turn.
    fingerprint: Option<Fingerprint>,
    /// Durable, for those who wait.
    outcome: Option<Arc<Recorded>>,
}

pub(super) enum Turn {
    Ours(Seat),
    Replay(Arc<Recorded>),
}

impl Flights {
    /// Waits for the turn until the deadline.
    ///
    /// # Errors
    /// Mismatch as soon as the first is visible here, InFlight at the deadline.
    pub(super) async fn turn(
        self: &Arc<Self>,
        key: KeyHash,
        fingerprint: Option<Fingerprint>,
        deadline: Instant,
    ) -> Result<Turn, Error> {
        let place = Place::take(self, key);
        place.flight.compare(fingerprint)?;
        let turn = Arc::clone(&place.flight.turn).lock_owned();
        let Ok(turn) = timeout_at(deadline, turn).await else {
            return Err(ErrorKind::InFlight.into());
        };
        // Who had the turn meanwhile may have had another fingerprint.
        place.flight.compare(fingerprint)?;
        if let Some(recorded) = place.flight.state().outcome.clone() {
            return Ok(Turn::Replay(recorded));
        }
        place.flight.state().fingerprint = fingerprint;
        Ok(Turn::Ours(Seat { _turn: turn, place }))
    }
}

impl Flight {
    fn compare(&self, fingerprint: Option<Fingerprint>) -> Result<(), Error> {
        match self.state().fingerprint.zip(fingerprint) {
            Some((first, now)) if first != now => Err(ErrorKind::Mismatch.into()),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn at the database. Dropped without an outcome, it passes to the next in line.
#[derive(Debug)]
pub(super) struct Seat {
    _turn: OwnedMutexGuard<()>,
    place: Place,
}

impl Seat {
    /// Lets those who wait replay this outcome. It must be durable.
    pub(super) fn pass_on(self, recorded: Arc<Recorded>) {
        self.place.flight.state().outcome = Some(recorded);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.place.flight.state();
        if state.outcome.is_none() {
            state.fingerprint = None;
        }
    }
}

/// Keeps the flight alive while anybody is interested in it, and removes it with the last one.
#[derive(Debug)]
struct Place {
    flights: Arc<Flights>,
    key: KeyHash,
    flight: Arc<Flight>,
}

impl Place {
    fn take(flights: &Arc<Flights>, key: KeyHash) -> Self {
        let flight = Arc::clone(flights.locked().entry(key).or_default());
        Self {
            flights: Arc::clone(flights),
            key,
            flight,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut flights = self.flights.locked();
        // The map's and ours. Nobody can take another while the map is locked.
        if Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.key);
        }
    }
}

impl Flights {
    fn locked(&self) -> MutexGuard<'_, HashMap<KeyHash, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const KEY: KeyHash = KeyHash([7; 32]);

    async fn turn(flights: &Arc<Flights>, fingerprint: u8, wait: u64) -> Result<Turn, Error> {
        flights
            .turn(
                KEY,
                Some(Fingerprint([fingerprint; 32])),
                Instant::now() + Duration::from_millis(wait),
            )
            .await
    }

    fn seat(turn: Result<Turn, Error>) -> Seat {
        match turn {
            Ok(Turn::Ours(seat)) => seat,
            _ => panic!("not our turn"),
        }
    }

    #[tokio::test]
    async fn the_outcome_goes_to_those_who_wait() {
        let flights = Arc::default();
        let first = seat(turn(&flights, 1, 0).await);
        let waiting: Vec<_> = (0..9)
            .map(|_| {
                tokio::spawn({
                    let flights = Arc::clone(&flights);
                    async move { turn(&flights, 1, 10_000).await }
                })
            })
            .collect();
        while Arc::strong_count(&first.place.flight) < 11 {
            tokio::task::yield_now().await;
        }
        first.pass_on(Arc::new(Recorded::success(b"x".to_vec())));
        for waiter in waiting {
            assert!(
                matches!(waiter.await.unwrap(), Ok(Turn::Replay(recorded)) if recorded.body() == b"x")
            );
        }
        assert!(flights.locked().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn a_turn_without_an_outcome_passes_on() {
        let flights = Arc::default();
        drop(seat(turn(&flights, 1, 0).await));
        drop(seat(turn(&flights, 2, 0).await));
        assert!(flights.locked().is_empty());
    }

    #[tokio::test]
    async fn another_fingerprint_is_refused_at_once_and_the_same_one_at_the_deadline() {
        let flights = Arc::default();
        let _first = seat(turn(&flights, 1, 0).await);
        assert_eq!(
            turn(&flights, 2, 60_000)
                .await
                .err()
                .map(|e| e.kind().clone()),
            Some(ErrorKind::Mismatch)
        );
        assert_eq!(
            turn(&flights, 1, 1).await.err().map(|e| e.kind().clone()),
            Some(ErrorKind::InFlight)
        );
    }
}
