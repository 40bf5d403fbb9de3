//! A response with events.

use std::time::Duration;

use crate::{
    error::{Error, ErrorKind},
    model::{Staged, event::Event, limits},
};

/// What an `#[outbox]` handler returns in `Ok`: a response, and the events to publish after the commit.
///
/// ```
/// # #[derive(serde::Serialize, effectively::Event)]
/// # #[event(topic = "orders", name = "order.placed.v1", key = "{order_id}")]
/// # struct OrderPlaced { order_id: i64 }
/// # #[derive(serde::Serialize, effectively::Event)]
/// # #[event(topic = "mail", name = "mail.reminder.v1")]
/// # struct Reminder { order_id: i64 }
/// # struct Receipt { id: i64 }
/// use std::time::Duration;
/// use effectively::Emit;
///
/// let answer = Emit::new(Receipt { id: 7 })
///     .event(OrderPlaced { order_id: 7 })
///     .event_after(Duration::from_secs(3600), Reminder { order_id: 7 })
///     .header("tenant", "acme");
/// ```
#[derive(Debug)]
#[must_use = "events are only published when the handler returns them"]
pub struct Emit<R> {
    response: R,
    events: Events,
}

impl<R> Emit<R> {
    /// A response without events so far.
    pub fn new(response: R) -> Self {
        Self {
            response,
            events: Events::default(),
        }
    }

    /// Adds an event. Events are stored in the order they are added.
    pub fn event<E: Event>(self, event: E) -> Self {
        self.event_after(Duration::ZERO, event)
    }

    /// Adds an event that is published no earlier than `delay` after the commit, by the database's clock. With a delay over
    /// 100 years the call fails with [`ErrorKind::Settings`].
    pub fn event_after<E: Event>(mut self, delay: Duration, event: E) -> Self {
        self.events.stage(&event, delay);
        self
    }

    /// Adds several events of one type.
    pub fn events<E: Event>(self, events: impl IntoIterator<Item = E>) -> Self {
        events.into_iter().fold(self, Self::event)
    }

    /// Sets a header of the event that was added last. Without one before it, the call fails with [`ErrorKind::Encode`].
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.events.label(name.into(), value.into());
        self
    }
}

/// The events that a handler returned, ready to be stored, or the first error of making them so.
#[derive(Debug, Default)]
pub struct Events {
    staged: Vec<Staged>,
    problem: Option<Error>,
}

impl Events {
    fn of<E: Event>(events: impl IntoIterator<Item = E>) -> Self {
        let mut all = Self::default();
        for event in events {
            all.stage(&event, Duration::ZERO);
        }
        all
    }

    fn stage<E: Event>(&mut self, event: &E, delay: Duration) {
        match limits::delay(delay).and_then(|()| Staged::new(event)) {
            Ok(staged) => self.staged.push(Staged { delay, ..staged }),
            Err(error) => self.fail(error),
        }
    }

    fn label(&mut self, name: String, value: String) {
        match self.staged.last_mut() {
            Some(event) => drop(event.headers.insert(name, value)),
            None => self.fail(ErrorKind::Encode("a header without an event before it").into()),
        }
    }

    fn fail(&mut self, error: Error) {
        self.problem.get_or_insert(error);
    }

    pub(crate) fn into_staged(self) -> Result<Vec<Staged>, Error> {
        self.problem.map_or(Ok(self.staged), Err)
    }
}

/// What an `#[outbox]` handler may return in `Ok`: [`Emit`], or the events alone when it has no response.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not something an `#[outbox]` handler can return in `Ok`",
    label = "expected `Emit<R>`, or events in a `Vec`, an array or an `Option`",
    note = "return `Ok(Emit::new(response).event(my_event))`, or the events alone: `Ok(vec![my_event])`"
)]
pub trait IntoEmission {
    /// The part that answers the caller.
    type Response;

    /// The response and the events.
    fn into_emission(self) -> (Self::Response, Events);
}

impl<R> IntoEmission for Emit<R> {
    type Response = R;

    fn into_emission(self) -> (R, Events) {
        (self.response, self.events)
    }
}

impl<E: Event> IntoEmission for Vec<E> {
    type Response = ();

    fn into_emission(self) -> ((), Events) {
        ((), Events::of(self))
    }
}

impl<E: Event, const N: usize> IntoEmission for [E; N] {
    type Response = ();

    fn into_emission(self) -> ((), Events) {
        ((), Events::of(self))
    }
}

impl<E: Event> IntoEmission for Option<E> {
    type Response = ();

    fn into_emission(self) -> ((), Events) {
        ((), Events::of(self))
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use std::borrow::Cow;

    use super::*;

    #[derive(Serialize)]
    struct Paid(u8);

    impl Event for Paid {
        const TOPIC: &'static str = "payments";
        const NAME: &'static str = "paid.v1";

        fn partition_key(&self) -> Option<Cow<'_, str>> {
            None
        }
    }

    #[test]
    fn events_keep_their_order_headers_and_delays() {
        let answer = Emit::new("ok")
            .event(Paid(1))
            .header("a", "1")
            .events([Paid(2), Paid(3)]);
        let (response, events) = answer
            .event_after(Duration::from_secs(9), Paid(4))
            .into_emission();
        let staged = events.into_staged().unwrap();
        assert_eq!(response, "ok");
        assert_eq!(
            staged
                .iter()
                .map(|event| event.data.as_slice())
                .collect::<Vec<_>>(),
            [b"1", b"2", b"3", b"4"]
        );
        assert_eq!(
            staged
                .iter()
                .map(|event| event.headers.len())
                .collect::<Vec<_>>(),
            [1, 0, 0, 0]
        );
        assert_eq!(staged[3].delay, Duration::from_secs(9));
    }

    #[test]
    fn a_header_without_an_event_is_an_error_and_not_lost() {
        let (_, events) = Emit::new(())
            .header("a", "1")
            .event(Paid(1))
            .into_emission();
        assert!(matches!(
            events.into_staged().unwrap_err().kind(),
            ErrorKind::Encode(_)
        ));
    }

    #[derive(Serialize)]
    struct Measured(f32);

    impl Event for Measured {
        const TOPIC: &'static str = "measures";
        const NAME: &'static str = "measured.v1";

        fn partition_key(&self) -> Option<Cow<'_, str>> {
            None
        }
    }

    #[test]
    fn an_event_that_json_cannot_say_is_an_error() {
        let staged = |number| vec![Measured(number)].into_emission().1.into_staged();
        assert_eq!(staged(1.5).unwrap()[0].data, b"1.5");
        let error = staged(f32::NAN).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Encode("an event"));
    }

    #[test]
    fn events_alone_have_no_response() {
        assert_eq!(
            vec![Paid(1), Paid(2)]
                .into_emission()
                .1
                .into_staged()
                .unwrap()
                .len(),
            2
        );
        assert_eq!([Paid(1)].into_emission().1.into_staged().unwrap().len(), 1);
        assert_eq!(
            None::<Paid>.into_emission().1.into_staged().unwrap().len(),
            0
        );
    }
}
