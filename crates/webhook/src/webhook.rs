//! The handler.

use fleetlog_event::{EventSet, FleetEvent, Reason, Reject, TimestampMs};
use fleetlog_handler::{Call, Handler, HandlerError};

use crate::{
    Answer, Message, Mode, NoAnswer, Subscription, SubscriptionError, endpoint::Endpoint, judge,
    message::Envelope, signature::Secret,
};

/// Tells one endpoint of the events that it subscribed to: one POST each. Its id is `webhook-<name>`.
#[derive(Debug)]
pub struct Webhook {
    id: String,
    endpoint: Endpoint,
    /// Full names; none stands for all.
    event_types: Vec<&'static str>,
    sites: Vec<String>,
    secrets: Vec<Secret>,
    mode: Mode,
}

impl Webhook {
    /// The handler of a subscription. Does not connect yet.
    ///
    /// # Errors
    /// Everything that is wrong with the subscription, at once.
    pub fn new(subscription: &Subscription) -> Result<Self, SubscriptionError> {
        let mut checked = subscription.checked()?;
        Ok(Self {
            id: format!("webhook-{}", subscription.name),
            event_types: std::mem::take(&mut checked.event_types),
            sites: subscription.sites.clone(),
            secrets: std::mem::take(&mut checked.secrets),
            mode: subscription.mode,
            endpoint: Endpoint::new(subscription, checked)?,
        })
    }

    /// What goes out for a call; `now` is when it is made. Its body is the same at each attempt.
    ///
    /// # Errors
    /// When a value of the event has no JSON form.
    pub fn message(&self, call: &Call<FleetEvent>, now: TimestampMs) -> Result<Message, Reject> {
        let envelope = Envelope {
            id: call.idempotence_key(),
            attempt: call.attempt,
            is_redrive: call.is_redrive,
            traceparent: call.traceparent.as_deref(),
            now,
        };
        Message::new(&call.event.event, self.mode, &self.secrets, envelope)
            .map_err(|error| Reject::new(Reason::OutOfRange, format!("the event has no JSON form: {error}")))
    }

    /// Makes one call and hands out what came back; [`judge`] says what it means. Takes `timeout_ms` at most.
    ///
    /// # Errors
    /// When no answer came back.
    pub async fn send(&self, message: &Message) -> Result<Answer, NoAnswer> {
        self.endpoint.call(message).await
    }

    /// Whom it calls, as it may be shown: scheme, host and port.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoint.origin()
    }
}

impl Handler for Webhook {
    type Event = FleetEvent;

    fn id(&self) -> &str {
        &self.id
    }

    /// Whether the subscription asks for the event, by its type and site.
    fn wants(&self, event: &FleetEvent) -> bool {
        let (name, site_uid) = (event.event_type().name, &event.meta().site_uid);
        (self.event_types.is_empty() || self.event_types.contains(&name))
            && (self.sites.is_empty() || self.sites.contains(site_uid))
    }

    async fn handle(&self, call: &Call<FleetEvent>) -> Result<(), HandlerError> {
        let message = self.message(call, now())?;
        let outcome = self.send(&message).await;
        judge(&self.endpoint(), &outcome, now())
    }
}

fn now() -> TimestampMs {
    TimestampMs(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests;
