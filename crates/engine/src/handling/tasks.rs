//! What is done on the runtime: reading events, calls, sends. Each tells the poll thread how it ended.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use fleetlog_event::{EntityKey, EventSet, Reason, Recorded, Reject, TimestampMs};
use fleetlog_handler::{
    At, Call, Destination, Handler, HandlerError, Journey, LaneId, LaneKind, Prepared, time_header,
};
use fleetlog_projection::{Fault, LaneId as LaneName, LaneScope, Record, SetAside, key_text_of, read_event};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Shared,
    carried::{Carried, Origin},
    told::{Teller, Told},
};
use crate::{
    DeadLetter, Failure, Origin as LetterOrigin,
    lane::now,
    ports::{Onward, Schemas},
};

/// An event that is to be called for.
pub(super) struct Calling<E> {
    pub(super) at: At,
    pub(super) event: Recorded<E>,
    pub(super) carried: Arc<Carried>,
    pub(super) failed_calls: u32,
    pub(super) newest_offset: i64,
}

impl<H: Handler, C: Schemas> Shared<H, C> {
    /// Finds out what records are; waits for whoever knows their schemas.
    pub(super) async fn prepare(self: Arc<Self>, tell: Teller<H::Event>, records: Vec<(At, Arc<Carried>)>) {
        let of: Vec<&Record> = records.iter().map(|(_, carried)| &carried.record).collect();
        let looked_up = self.insist("looking up schemas", &tell, || self.schemas.prepare(&of));
        let Some(decode) = looked_up.await else { return };
        let prepared = records.iter().map(|(at, carried)| (*at, self.read(&decode, carried)));
        tell.tell(Told::Prepared(prepared.collect()));
    }

    fn read(&self, decode: &C::Decode, carried: &Carried) -> Prepared<Recorded<H::Event>> {
        if let Origin::Unknown { topic, why, .. } = &carried.origin {
            let detail = format!("on retry topic `{topic}`: {why}");
            return Prepared::Rejected(Reject::new(Reason::UnknownFraming, detail));
        }
        match self.event(decode, carried) {
            Ok(event) if self.handler.wants(&event.event) => Prepared::Wanted(event),
            Ok(_) => Prepared::Unwanted,
            Err((reject, _)) => Prepared::Rejected(reject),
        }
    }

    fn event(
        &self,
        decode: &C::Decode,
        carried: &Carried,
    ) -> Result<Recorded<H::Event>, (Reject, Option<String>)> {
        let key = key_text_of(&carried.record).map_err(|reject| (reject, None))?;
        let (original, key) = (carried.original(), EntityKey::from(key));
        if let Some(partitions) = self.partitions_of(carried) {
            return read_event(&carried.scope(partitions), decode, &original, key);
        }
        // Its topic is not read any more, and where its key belongs was seen when it was.
        let anywhere = LaneScope { partition: 0, ..carried.scope(1) };
        let mut event = read_event(&anywhere, decode, &original, key)?;
        event.position = carried.journey().position;
        Ok(event)
    }

    /// How many partitions the source topic has; none where it is not read any more.
    fn partitions_of(&self, carried: &Carried) -> Option<i32> {
        match &carried.origin {
            Origin::Here { scope, .. } | Origin::Unknown { scope, .. } => Some(scope.partitions),
            Origin::Elsewhere(journey) => {
                self.partitions.lock().unwrap_or_else(PoisonError::into_inner).get(&journey.topic).copied()
            }
        }
    }

    /// Calls the handler.
    pub(super) async fn call(self: Arc<Self>, tell: Teller<H::Event>, calling: Calling<H::Event>) {
        let Calling { at, event, carried, failed_calls, newest_offset } = calling;
        let call = Call {
            event,
            attempt: failed_calls.saturating_add(1),
            first_failed_at: carried.first_failed_at(),
            is_redrive: carried.is_redrive(),
            newest_offset,
            traceparent: carried.traceparent(),
        };
        let (begun, timeout) = (Instant::now(), self.settings.call_timeout);
        let handled = AssertUnwindSafe(self.handler.handle(&call)).catch_unwind();
        let result = match tokio::time::timeout(timeout, handled).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HandlerError::Stop(panicked(&call))),
            Err(_) => Err(HandlerError::Retry(format!("it did not end within {} s", timeout.as_secs()))),
        };
        self.figures.called(&result, begun.elapsed());
        fail::fail_point!("handler.called");
        tell.tell(Told::Ended(at, result, std::time::Instant::now()));
    }

    /// Appends a record where it goes next.
    pub(super) async fn send(
        self: Arc<Self>,
        tell: Teller<H::Event>,
        at: At,
        carried: Arc<Carried>,
        destination: Destination,
    ) {
        let is_done = match destination {
            Destination::DeadLetter { reject, calls } => self.set_aside(&tell, &carried, reject, calls).await,
            Destination::Held { failed_calls, why } => {
                self.figures.held.inc();
                let journey = travelled(&carried, failed_calls, why, Duration::ZERO);
                self.append(&tell, self.held(), &carried, &journey).await
            }
            Destination::Tier { place, failed_calls, why } => {
                let Some(topic) = self.tier(place.tier) else {
                    return tell.tell(Told::Failed(format!("there is no retry tier {}: a bug", place.tier)));
                };
                self.figures.retried(place.tier);
                let journey = travelled(&carried, failed_calls, why, place.rest);
                self.append(&tell, topic, &carried, &journey).await
            }
        };
        if is_done {
            fail::fail_point!("handler.sent");
            tell.tell(Told::Sent(at));
        }
    }

    async fn append(
        &self,
        tell: &Teller<H::Event>,
        topic: usize,
        carried: &Carried,
        journey: &Journey,
    ) -> bool {
        let record = Onward {
            topic: self.topics[topic].name.to_string(),
            partition: None,
            key: carried.record.key.clone(),
            value: carried.record.value.clone(),
            headers: carried.headers(journey),
        };
        self.append_to(tell, topic, record).await
    }

    /// Has the broker tell its time, by an append to that partition of a tier.
    pub(super) async fn ask_time(self: Arc<Self>, tell: Teller<H::Event>, lane: LaneId) {
        let (name, value) = time_header();
        let record = Onward {
            topic: self.topics[lane.topic].name.to_string(),
            partition: Some(lane.partition),
            key: None,
            value: None,
            headers: vec![(name.into(), Some(value))],
        };
        self.append_to(&tell, lane.topic, record).await;
    }

    async fn append_to(&self, tell: &Teller<H::Event>, topic: usize, record: Onward) -> bool {
        let doing = format!("sending to `{}`", record.topic);
        let append = || self.waiting.append(record.clone());
        let Some(appended) = self.insist(&doing, tell, append).await else { return false };
        if let (LaneKind::Tier(_), Some(stamp)) = (self.topics[topic].kind, appended.stamp) {
            let lane = LaneId { topic, partition: appended.partition };
            tell.tell(Told::Heard(lane, stamp, std::time::Instant::now()));
        }
        true
    }

    async fn set_aside(
        &self,
        tell: &Teller<H::Event>,
        carried: &Carried,
        reject: Reject,
        calls: u32,
    ) -> bool {
        self.figures.dead_letter(reject.reason);
        let letters = [self.letter(carried, reject, calls)];
        let publish = || self.dead_letters.publish(&letters);
        self.insist("sending dead letters", tell, publish).await.is_some()
    }

    fn letter(&self, carried: &Carried, reject: Reject, calls: u32) -> DeadLetter {
        let journey = carried.journey();
        // What none of ours wrote lies on a topic that has no dead letters: those of the first source take it.
        let topic = match &carried.origin {
            Origin::Unknown { .. } => self.topics[0].name.to_string(),
            Origin::Here { .. } | Origin::Elsewhere(_) => journey.topic.clone(),
        };
        let lane = LaneName {
            projection: self.id.clone(),
            version: 0,
            topic,
            partition: journey.position.partition,
        };
        let set_aside = SetAside { record: carried.original(), reject, event_type: None };
        let origin = LetterOrigin {
            lane: &lane,
            log: journey.position.log,
            group: &self.group,
            application_version: &self.config.application_version,
            now: now(),
        };
        let letter = DeadLetter::new(&set_aside, &origin, self.config.dead_letter_bytes_max);
        // Of one that was redriven the first failure is that of its first letter, which is told by its headers.
        if journey.is_redrive {
            return letter.counting_a_replay().after_calls(calls, None);
        }
        letter.after_calls(calls, journey.first_failed_at)
    }

    /// Tries until it works; none where something permanent was told.
    pub(super) async fn insist<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        doing: &str,
        tell: &Teller<H::Event>,
        call: impl Fn() -> F,
    ) -> Option<T> {
        let mut told = None;
        let (mut pauses, pause_max) = (self.config.pauses(), self.config.retry_delay_ms_max);
        loop {
            match call().await {
                Ok(done) => {
                    if told.is_some() {
                        self.status.set_trouble(None);
                    }
                    return Some(done);
                }
                Err(failure) if failure.fault == Fault::Transient => {
                    if told.as_ref() != Some(&failure.what) {
                        warn!(handler = self.id, "{doing}: {failure}; waiting");
                        self.status.set_trouble(Some(format!("{doing}: {failure}")));
                        told = Some(failure.what);
                    }
                }
                Err(failure) => {
                    tell.tell(Told::Failed(format!("{doing}: {failure}")));
                    return None;
                }
            }
            tokio::time::sleep(pauses.next().unwrap_or(Duration::from_millis(pause_max))).await;
        }
    }
}

/// What is written on a record that goes on.
fn travelled(carried: &Carried, failed_calls: u32, why: Option<String>, rest: Duration) -> Journey {
    let before = carried.journey();
    let first: Option<TimestampMs> = before.first_failed_at.or_else(|| (failed_calls > 0).then(now));
    Journey { failed_calls, first_failed_at: first, rest, why: why.or(before.why), ..before }
}

fn panicked<E: EventSet>(call: &Call<E>) -> String {
    let position = &call.event.position;
    format!(
        "it panicked over event {} (partition {}, offset {} of its topic): this is a bug of the handler",
        call.idempotence_key(),
        position.partition,
        position.offset
    )
}
