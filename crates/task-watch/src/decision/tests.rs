use std::collections::BTreeMap;

use fleetlog_event::{EventSet, LogId};
use fleetlog_handler::given::{START, unit_meta};
use uuid::Uuid;

use super::*;

const TIMEOUT_MS: i64 = 60_000;

fn rules(policy: Policy) -> Rules {
    let timeouts_ms = [("DELIVERY".to_owned(), 60_000)].into();
    Rules { timeouts_ms, policy, ..Rules::default() }
}

fn created(task_type: &str) -> Created {
    Created {
        meta: unit_meta("504", "7"),
        task_id: "T1".to_owned(),
        task_type: task_type.to_owned(),
        priority: 0,
        external_id: None,
        steps: Vec::new(),
        parameters: BTreeMap::new(),
    }
}

fn shown(standing: Standing, moved_ms: i64) -> Shown {
    Shown {
        standing,
        partition: 2,
        next: 18,
        moved_at: TimestampMs(START.0 + moved_ms),
        is_told: false,
        unit_uid: Some("8".to_owned()),
    }
}

fn started(moved_ms: i64) -> Shown {
    shown(Standing::Open("started".to_owned()), moved_ms)
}

/// What is decided of a task that was created at offset 17, so many ms after the beginning.
fn decided(rules: &Rules, task: Option<Shown>, is_covered: bool, now_ms: i64) -> Decision {
    let created = created("DELIVERY");
    let position = Position { log: LogId(Uuid::from_u128(7)), partition: 2, offset: 17 };
    let watched = Watched { created: &created, position };
    decide(rules, watched, &Look { task, is_covered }, TimestampMs(START.0 + now_ms))
}

/// `done`, `closer`, `after … ms`, or the type of what is said.
fn told(decision: &Decision) -> String {
    match decision {
        Decision::Done => "done".to_owned(),
        Decision::LookCloser => "closer".to_owned(),
        Decision::Wait { after, .. } => format!("after {} ms", after.as_millis()),
        Decision::Say { event, again } => {
            let again = again.map_or(String::new(), |again| format!(", after {} ms", again.as_millis()));
            format!("{}{again}", event.event_type().short_name())
        }
    }
}

#[test]
fn what_is_shown_decides() {
    let (fail, alert) = (rules(Policy::Fail), rules(Policy::Alert));
    let while_paused = Rules { while_paused: true, ..fail.clone() };
    let paused = || shown(Standing::Paused, 0);
    let is_told = || Shown { is_told: true, ..started(0) };
    let other = |next, partition| Shown { next, partition, ..started(0) };
    for (rules, task, now_ms, glanced, looked) in [
        // To the millisecond, and looked at again every 30 s at least.
        (&fail, Some(started(5_000)), 5_000, "after 30000 ms", "after 30000 ms"),
        (&fail, Some(started(5_000)), 64_999, "after 1 ms", "after 1 ms"),
        (&fail, Some(started(5_000)), 65_000, "closer", "Failed"),
        (&alert, Some(started(5_000)), 65_000, "closer", "Stalled, after 30000 ms"),
        // By a clock that stands before the event.
        (&fail, Some(started(5_000)), -90_000, "after 30000 ms", "after 30000 ms"),
        (&alert, Some(is_told()), 900_000, "after 30000 ms", "after 30000 ms"),
        (&fail, Some(is_told()), 900_000, "closer", "Failed"),
        (&fail, Some(paused()), 900_000, "after 30000 ms", "after 30000 ms"),
        (&while_paused, Some(paused()), 900_000, "closer", "Failed"),
        (&fail, Some(shown(Standing::Over, 0)), 900_000, "done", "done"),
        (
            &fail,
            Some(shown(Standing::Unknown("on_hold".into()), 0)),
            900_000,
            "after 30000 ms",
            "after 30000 ms",
        ),
        // Not there: not yet, or not any more.
        (&fail, None, 900_000, "closer", "done"),
        (&fail, Some(other(17, 2)), 900_000, "closer", "done"),
        (&fail, Some(other(18, 1)), 900_000, "closer", "done"),
        (&Rules::default(), Some(started(0)), 900_000, "done", "done"),
    ] {
        let both = [false, true].map(|is_covered| told(&decided(rules, task.clone(), is_covered, now_ms)));
        assert_eq!(both, [glanced, looked], "{task:?} at {now_ms}, {rules:?}");
    }
}

fn event(decision: Decision) -> TaskEvent {
    match decision {
        Decision::Say { event, .. } => *event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_said_names_the_task_its_unit_and_what_it_follows_from() {
    let TaskEvent::Failed(failed) = event(decided(&rules(Policy::Fail), Some(started(5_000)), true, 99_000))
    else {
        panic!("no Failed")
    };
    let due = TimestampMs(START.0 + 5_000 + TIMEOUT_MS);
    assert_eq!((failed.task_id.as_str(), failed.reason.as_str()), ("T1", "timeout"));
    let detail =
        "it was started, and nothing moved it for 60000 ms, which is what type `DELIVERY` may go without";
    assert_eq!(failed.detail.as_deref(), Some(detail));
    assert_eq!(failed.meta.occurred_at, due);
    assert_eq!((failed.meta.site_uid.as_str(), failed.meta.unit_uid.as_deref()), ("504", Some("8")));
    assert_eq!(failed.meta.causation_id, Some(created("").meta.event_id));
    assert_eq!(TaskEvent::from(failed).validate(), Ok(()));

    let TaskEvent::Stalled(stalled) =
        event(decided(&rules(Policy::Alert), Some(started(5_000)), true, 99_000))
    else {
        panic!("no Stalled")
    };
    assert_eq!((stalled.status.as_str(), stalled.timeout_ms), ("started", TIMEOUT_MS));
    assert_eq!((stalled.since, stalled.meta.occurred_at), (TimestampMs(START.0 + 5_000), due));
    assert_eq!(TaskEvent::from(stalled).validate(), Ok(()));
}

#[test]
fn said_again_it_is_the_same_event_and_of_another_standstill_it_is_another() {
    let id = |policy, task| event(decided(&rules(policy), Some(task), true, 900_000)).meta().event_id;
    assert_eq!(id(Policy::Fail, started(0)), id(Policy::Fail, Shown { unit_uid: None, ..started(0) }));
    assert_ne!(id(Policy::Fail, started(0)), id(Policy::Alert, started(0)));
    assert_ne!(id(Policy::Alert, started(0)), id(Policy::Alert, started(1)));
    assert_ne!(id(Policy::Alert, started(0)), id(Policy::Alert, Shown { next: 19, ..started(0) }));
}
