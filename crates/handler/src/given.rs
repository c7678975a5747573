//! Given / when / then: tests of a handler without a cluster, and without waiting for anything.
//!
//! ```
//! # use std::sync::atomic::{AtomicU32, Ordering};
//! # use fleetlog_event::robot::{Connected, RobotEvent};
//! # use fleetlog_handler::{Call, Handler, HandlerError, given::{given, unit_meta}};
//! # struct Bell(AtomicU32);
//! # impl Handler for Bell {
//! #     type Event = RobotEvent;
//! #     fn id(&self) -> &str { "bell" }
//! #     async fn handle(&self, _: &Call<RobotEvent>) -> Result<(), HandlerError> {
//! #         match self.0.fetch_add(1, Ordering::SeqCst) {
//! #             0 | 1 => Err(HandlerError::Retry("it is dark".into())),
//! #             _ => Ok(()),
//! #         }
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! given(Bell(AtomicU32::new(0)))
//!     .event(Connected { meta: unit_meta("504", "1"), protocol: None })
//!     .await
//!     .then_done()
//!     .then_called_after_ms(&[0, 1_000, 3_000]);
//! # });
//! ```
//! An event goes the way it goes in a process: called, judged by [`fate`](crate::fate()), waiting in its tiers, called again.
//! Time is tokio's: paused (`#[tokio::test(start_paused = true)]`) it passes by itself, also within the handler.

use std::time::Duration;

use fleetlog_event::{EventId, EventMeta, EventSet, LogId, Position, Reason, Recorded, Reject, TimestampMs};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Call, Fate, Handler, HandlerError, RetryPolicy, fate};

/// The time of events made by [`unit_meta`]: 2024-01-01T00:00:00Z.
pub const START: TimestampMs = TimestampMs(1_704_067_200_000);

/// The log that events lie on here.
const LOG: LogId = LogId(Uuid::from_u128(0x91e5));

/// How long a call may take, if nothing else is said (DESIGN §7).
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an event is followed that waits again and again, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// The head of an event about a unit, at [`START`].
#[must_use]
pub fn unit_meta(site_uid: &str, unit_uid: &str) -> EventMeta {
    EventMeta {
        event_id: EventId::derived("given", 0),
        occurred_at: START,
        recorded_at: START,
        site_uid: site_uid.to_owned(),
        unit_uid: Some(unit_uid.to_owned()),
        sequence: None,
        sequence_scope: None,
        source: "given/1".to_owned(),
        correlation_id: None,
        causation_id: None,
    }
}

/// A handler to be tried.
pub fn given<H: Handler>(handler: H) -> Given<H> {
    Given {
        handler,
        policy: RetryPolicy::default(),
        timeout: CALL_TIMEOUT,
        patience: PATIENCE,
        is_redrive: false,
        newest_offset: 0,
        traceparent: None,
        offset: 0,
    }
}

/// A handler, and the circumstances of what it is called for.
pub struct Given<H> {
    handler: H,
    policy: RetryPolicy,
    timeout: Duration,
    patience: Duration,
    is_redrive: bool,
    newest_offset: i64,
    traceparent: Option<String>,
    offset: i64,
}

impl<H: Handler> Given<H> {
    /// Other tiers than those of the default.
    #[must_use]
    pub fn policy(self, policy: RetryPolicy) -> Self {
        Self { policy, ..self }
    }

    /// How long a call may take.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// For how long an event is followed that is not time yet ([`HandlerError::NotYet`]): a day, if nothing else is said.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The next event comes from the dead letters.
    #[must_use]
    pub fn redriven(self) -> Self {
        Self { is_redrive: true, ..self }
    }

    /// So many later events of its key were seen when the next event is called for.
    #[must_use]
    pub fn overtaken_by(self, events: i64) -> Self {
        Self { newest_offset: self.offset + events, ..self }
    }

    /// The next event is part of a trace: its header `traceparent`.
    #[must_use]
    pub fn traced(self, traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.to_owned()), ..self }
    }

    /// An event comes, and goes its way to the end.
    pub async fn event(self, event: impl Into<H::Event>) -> Then<H> {
        let (event, begun): (H::Event, _) = (event.into(), Instant::now());
        let mut call = Call {
            event: Recorded {
                position: Position { log: LOG, partition: 0, offset: self.offset },
                recorded_at: event.meta().recorded_at,
                key: event.entity(),
                event,
            },
            attempt: 1,
            first_failed_at: None,
            is_redrive: self.is_redrive,
            newest_offset: self.newest_offset.max(self.offset),
            traceparent: self.traceparent.clone(),
        };
        let mut called_after = Vec::new();
        loop {
            if !self.handler.wants(&call.event.event) {
                return Then { given: self, fate: Fate::Done, called_after };
            }
            called_after.push(begun.elapsed());
            let result = self.called(&call).await;
            match fate(result, &self.policy, call.attempt - 1, true, true) {
                Fate::Retry { place, failed_calls, .. } => {
                    let failed_at = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
                    call.first_failed_at.get_or_insert(TimestampMs(START.0.saturating_add(failed_at)));
                    call.attempt = failed_calls + 1;
                    tokio::time::sleep(self.policy.delays()[place.tier] + place.rest).await;
                }
                Fate::Wait { place, .. } if begun.elapsed() < self.patience => {
                    tokio::time::sleep(self.policy.delays()[place.tier] + place.rest).await;
                }
                fate => return Then { given: self, fate, called_after },
            }
        }
    }

    async fn called(&self, call: &Call<H::Event>) -> Result<(), HandlerError> {
        let called = tokio::time::timeout(self.timeout, self.handler.handle(call)).await;
        called.unwrap_or_else(|_| {
            Err(HandlerError::Retry(format!("no answer within {} ms", self.timeout.as_millis())))
        })
    }
}

/// What became of an event.
pub struct Then<H> {
    given: Given<H>,
    fate: Fate,
    called_after: Vec<Duration>,
}

impl<H: Handler> Then<H> {
    /// The event is handled.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn then_done(self) -> Self {
        assert_eq!(self.fate, Fate::Done);
        self
    }

    /// The event is a dead letter for that reason.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn then_dead_letter(self, reason: Reason) -> Self {
        match &self.fate {
            Fate::DeadLetter { reject: Reject { reason: found, .. }, .. } if *found == reason => self,
            other => panic!("expected a dead letter for {reason}, found {other:?}"),
        }
    }

    /// The event still waited when it was followed no more.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn then_waits(self) -> Self {
        assert!(matches!(self.fate, Fate::Wait { .. }), "expected that it waits, found {:?}", self.fate);
        self
    }

    /// The handler stopped.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn then_stopped(self) -> Self {
        assert!(matches!(self.fate, Fate::Stop(_)), "expected a stop, found {:?}", self.fate);
        self
    }

    /// It was called so often, each time so long after the event came, in milliseconds.
    ///
    /// # Panics
    /// If it was not.
    pub fn then_called_after_ms(self, expected: &[u128]) -> Self {
        let found: Vec<u128> = self.called_after.iter().map(Duration::as_millis).collect();
        assert_eq!(found, expected, "when it was called, in ms");
        self
    }

    /// Looks at the handler.
    pub fn then_handler(self, look: impl FnOnce(&H)) -> Self {
        look(&self.given.handler);
        self
    }

    /// The next event, to the same handler.
    #[must_use]
    pub fn and(self) -> Given<H> {
        let offset = self.given.offset + 1;
        Given { is_redrive: false, newest_offset: offset, traceparent: None, offset, ..self.given }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fleetlog_event::robot::{Connected, RobotEvent};

    use super::*;

    /// Answers from a list, and notes what it was called with.
    struct Scripted {
        answers: Mutex<Vec<Result<(), HandlerError>>>,
        seen: Mutex<Vec<(u32, bool, bool, bool)>>,
        traces: Mutex<Vec<Option<String>>>,
        takes: Duration,
        wanted: bool,
    }

    fn scripted(answers: &[Result<(), HandlerError>]) -> Scripted {
        let answers = Mutex::new(answers.iter().rev().cloned().collect());
        let (seen, traces) = (Mutex::default(), Mutex::default());
        Scripted { answers, seen, traces, takes: Duration::ZERO, wanted: true }
    }

    impl Handler for Scripted {
        type Event = RobotEvent;

        fn id(&self) -> &str {
            "scripted"
        }

        fn wants(&self, _: &RobotEvent) -> bool {
            self.wanted
        }

        async fn handle(&self, call: &Call<RobotEvent>) -> Result<(), HandlerError> {
            let seen = (call.attempt, call.first_failed_at.is_some(), call.is_redrive, call.is_outdated());
            self.seen.lock().expect("not poisoned").push(seen);
            self.traces.lock().expect("not poisoned").push(call.traceparent.clone());
            tokio::time::sleep(self.takes).await;
            self.answers.lock().expect("not poisoned").pop().unwrap_or(Ok(()))
        }
    }

    fn connected() -> Connected {
        Connected { meta: unit_meta("504", "1"), protocol: None }
    }

    fn failed() -> Result<(), HandlerError> {
        Err(HandlerError::Retry("down".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_called_for_until_it_works_and_told_which_call_it_is() {
        let next = given(scripted(&[failed(), failed()]))
            .event(connected())
            .await
            .then_done()
            .then_called_after_ms(&[0, 1_000, 3_000])
            .and();
        next.redriven().overtaken_by(2).event(connected()).await.then_done().then_handler(|handler| {
            let seen = handler.seen.lock().expect("not poisoned");
            let first = [(1, false, false, false), (2, true, false, false), (3, true, false, false)];
            assert_eq!(seen[..3], first);
            assert_eq!(seen[3], (1, false, true, true));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn each_call_is_told_the_trace_of_its_event_and_of_no_other() {
        let traced = given(scripted(&[failed()])).traced("00-a-b-01").event(connected()).await.then_done();
        traced.and().event(connected()).await.then_done().then_handler(|handler| {
            let traces = handler.traces.lock().expect("not poisoned");
            assert_eq!(*traces, [Some("00-a-b-01".to_owned()), Some("00-a-b-01".to_owned()), None]);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn after_four_calls_it_gives_up() {
        let then = given(scripted(&[failed(), failed(), failed(), failed()])).event(connected()).await;
        then.then_dead_letter(Reason::GaveUp).then_called_after_ms(&[0, 1_000, 3_000, 7_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_does_not_end_is_a_failure() {
        let slow = Scripted { takes: Duration::from_secs(61), ..scripted(&[]) };
        let then = given(slow).event(connected()).await.then_dead_letter(Reason::GaveUp);
        then.then_called_after_ms(&[0, 61_000, 123_000, 187_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_does_not_want_is_done_without_a_call() {
        let idle = Scripted { wanted: false, ..scripted(&[failed()]) };
        given(idle).event(connected()).await.then_done().then_called_after_ms(&[]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_time_yet_comes_again_and_uses_up_nothing() {
        let not_yet =
            |ms| Err(HandlerError::NotYet { after: Duration::from_millis(ms), why: "early".into() });
        let waits = given(scripted(&[not_yet(500), failed(), not_yet(10_000), not_yet(1), failed()]));
        let then = waits.event(connected()).await.then_done();
        let then = then.then_handler(|handler| {
            let seen: Vec<(u32, bool)> = (handler.seen.lock().expect("not poisoned").iter())
                .map(|(attempt, failed_before, ..)| (*attempt, *failed_before))
                .collect();
            assert_eq!(seen, [(1, false), (1, false), (2, true), (2, true), (2, true), (3, true)]);
        });
        then.then_called_after_ms(&[0, 1_000, 2_000, 12_000, 13_000, 15_000]);
        let always = scripted(&[not_yet(60_000), not_yet(60_000), not_yet(60_000)]);
        let then = given(always).patience(Duration::from_secs(90)).event(connected()).await;
        then.then_waits().then_called_after_ms(&[0, 60_000, 120_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_says_decides() {
        let after = |ms| {
            let after = Duration::from_millis(ms);
            Err(HandlerError::RetryAfter { after, detail: "busy".into() })
        };
        let rejected = || Err(HandlerError::Reject(Reject::new(Reason::RefusedByEndpoint, "HTTP 400")));
        given(scripted(&[after(10_000), rejected(), Err(HandlerError::Stop("gone".into()))]))
            .event(connected())
            .await
            .then_dead_letter(Reason::RefusedByEndpoint)
            .then_called_after_ms(&[0, 10_000])
            .and()
            .event(connected())
            .await
            .then_stopped()
            .then_called_after_ms(&[0]);
    }
}
