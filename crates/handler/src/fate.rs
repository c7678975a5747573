//! What becomes of an event after a call.

use std::time::Duration;

use fleetlog_event::{Reason, Reject};

use crate::{HandlerError, Next, Place, RetryPolicy};

/// What becomes of an event after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is handled.
    Done,
    /// It waits for its next call in a retry tier.
    Retry {
        /// Where.
        place: Place,
        /// How many of its calls have failed.
        failed_calls: u32,
        /// What failed.
        why: String,
    },
    /// It is not time yet: it waits in a retry tier, and none of its calls is used up.
    Wait {
        /// Where.
        place: Place,
        /// What it waits for.
        why: String,
    },
    /// The endpoint is down: it waits, outside the tiers, until the circuit lets calls through.
    Hold {
        /// How many of its calls have failed: not the one that met the endpoint's going down.
        failed_calls: u32,
        /// What failed.
        why: String,
    },
    /// A dead letter.
    DeadLetter {
        /// Why.
        reject: Reject,
        /// How many calls were made.
        calls: u32,
    },
    /// The handler stops, and the event stays where it is.
    Stop(String),
}

/// Decides. `failed_before` are the calls that failed before this one; `counts` is what the circuit says of a failure
/// ([`Verdict`](crate::Verdict)), and `is_closed` whether it lets everything through now.
#[must_use]
pub fn fate(
    result: Result<(), HandlerError>,
    policy: &RetryPolicy,
    failed_before: u32,
    counts: bool,
    is_closed: bool,
) -> Fate {
    let (why, after): (String, Option<Duration>) = match result {
        Ok(()) => return Fate::Done,
        Err(HandlerError::Stop(why)) => return Fate::Stop(why),
        Err(HandlerError::Reject(reject)) => {
            return Fate::DeadLetter { reject, calls: failed_before.saturating_add(1) };
        }
        // Whatever the circuit says: what is held would be called for as soon as that lets calls through, and so too early.
        Err(HandlerError::NotYet { after, why }) => return wait(policy, after, why),
        Err(HandlerError::Retry(why)) => (why, None),
        Err(HandlerError::RetryAfter { after, detail }) => (detail, Some(after)),
    };
    // It met the endpoint's going down: as if it had not been called.
    if !counts {
        return Fate::Hold { failed_calls: failed_before, why };
    }
    let failed_calls = failed_before.saturating_add(1);
    match policy.after(failed_calls, after) {
        Next::GiveUp => {
            let detail = format!("gave up after {failed_calls} calls: {why}");
            Fate::DeadLetter { reject: Reject::new(Reason::GaveUp, detail), calls: failed_calls }
        }
        Next::Wait(_) if !is_closed => Fate::Hold { failed_calls, why },
        Next::Wait(place) => Fate::Retry { place, failed_calls, why },
    }
}

fn wait(policy: &RetryPolicy, after: Duration, why: String) -> Fate {
    if policy.delays().is_empty() {
        return Fate::Stop(format!("it is to wait ({why}), and has no retry tier to wait in"));
    }
    Fate::Wait { place: policy.place(after), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Result<(), HandlerError> {
        Err(HandlerError::Retry("down".into()))
    }

    fn decide(result: Result<(), HandlerError>, failed_before: u32, counts: bool, is_closed: bool) -> Fate {
        fate(result, &RetryPolicy::default(), failed_before, counts, is_closed)
    }

    #[test]
    fn a_failed_call_waits_in_the_tier_of_its_number_and_the_fourth_is_the_last() {
        for (failed_before, tier) in [(0, 0), (1, 1), (2, 2)] {
            let place = Place { tier, rest: Duration::ZERO };
            let expected = Fate::Retry { place, failed_calls: failed_before + 1, why: "down".into() };
            assert_eq!(decide(retry(), failed_before, true, true), expected);
        }
        let reject = Reject::new(Reason::GaveUp, "gave up after 4 calls: down");
        assert_eq!(decide(retry(), 3, true, true), Fate::DeadLetter { reject, calls: 4 });
    }

    #[test]
    fn while_the_circuit_is_open_nothing_goes_to_the_tiers() {
        // The call that opened it is used up; those that met it are not.
        let held = |failed_calls| Fate::Hold { failed_calls, why: "down".into() };
        assert_eq!(decide(retry(), 1, true, false), held(2));
        assert_eq!(decide(retry(), 1, false, false), held(1));
        assert_eq!(decide(retry(), 0, false, false), held(0));
        // Told late, after it closed again.
        assert_eq!(decide(retry(), 2, false, true), held(2));
        assert_eq!(decide(retry(), 3, false, false), held(3), "its last call is still to come");
    }

    #[test]
    fn what_is_not_due_waits_whatever_the_circuit_says_and_however_often() {
        let not_yet = |after_ms| {
            let after = Duration::from_millis(after_ms);
            Err(HandlerError::NotYet { after, why: "it is early".into() })
        };
        let waits = |tier, rest_ms| {
            let place = Place { tier, rest: Duration::from_millis(rest_ms) };
            Fate::Wait { place, why: "it is early".into() }
        };
        for (failed_before, counts, is_closed) in
            [(0, true, true), (3, true, true), (99, true, true), (1, true, false), (1, false, false)]
        {
            let decided = |after_ms| decide(not_yet(after_ms), failed_before, counts, is_closed);
            assert_eq!(decided(0), waits(0, 0));
            assert_eq!(decided(1_500), waits(1, 0));
            assert_eq!(decided(86_400_000), waits(2, 86_396_000), "as long as it asks for");
        }
        let none = RetryPolicy::new(Vec::new()).expect("sound");
        let fate = fate(not_yet(1), &none, 0, true, true);
        let why = "it is to wait (it is early), and has no retry tier to wait in";
        assert_eq!(fate, Fate::Stop(why.into()));
    }

    #[test]
    fn what_is_rejected_is_a_dead_letter_whatever_the_circuit_says_and_a_stop_moves_nothing() {
        let reject = Reject::new(Reason::RefusedByEndpoint, "HTTP 400");
        for is_closed in [true, false] {
            let rejected = decide(Err(reject.clone().into()), 1, is_closed, is_closed);
            assert_eq!(rejected, Fate::DeadLetter { reject: reject.clone(), calls: 2 });
        }
        assert_eq!(decide(Err(HandlerError::Stop("410".into())), 0, true, true), Fate::Stop("410".into()));
        assert_eq!(decide(Ok(()), 3, false, false), Fate::Done);
    }
}
