use fleetlog_event::{
    EventMeta,
    task::{Assigned, Cancelled, Completed, Failed, Paused, Reassigned, Resumed, Started},
};
use fleetlog_projection::{
    Fold,
    given::{Given, MemoryLog, START, assert_cuts_do_not_matter, given, later, unit_meta},
};
use proptest::prelude::*;

use super::*;
use crate::testing::{created, cuts, rejected, stalled, step, task_created_at_site, task_event};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// So many seconds after the beginning.
fn at(seconds: i64) -> EventMeta {
    later(unit_meta("504", "7"), seconds * 1000)
}

fn id() -> String {
    "T1".to_owned()
}

/// One event of each kind, `Rejected` also as that of an update.
fn one_of_each(meta: &EventMeta) -> Vec<(&'static str, TaskEvent)> {
    let (meta, task_id) = (|| meta.clone(), id);
    let (reason, detail) = (|| "timeout".to_owned(), None::<String>);
    vec![
        ("Created", created(meta(), "T1").into()),
        ("Assigned", Assigned { meta: meta(), task_id: task_id() }.into()),
        ("Started", Started { meta: meta(), task_id: task_id() }.into()),
        ("Paused", Paused { meta: meta(), task_id: task_id(), reason: None }.into()),
        ("Resumed", Resumed { meta: meta(), task_id: task_id() }.into()),
        (
            "Reassigned",
            Reassigned { meta: meta(), task_id: task_id(), from_unit_uid: None, reason: None }.into(),
        ),
        ("StepChanged", step(meta(), "T1", "step-0", StepStatus::Running).into()),
        ("Completed", Completed { meta: meta(), task_id: task_id(), failed_steps: 0 }.into()),
        (
            "Failed",
            Failed { meta: meta(), task_id: task_id(), reason: reason(), detail: detail.clone() }.into(),
        ),
        ("Cancelled", Cancelled { meta: meta(), task_id: task_id(), reason: reason(), detail }.into()),
        ("Rejected", rejected(meta(), "T1", None).into()),
        ("Rejected of an update", rejected(meta(), "T1", Some("1")).into()),
        ("Stalled", stalled(meta(), "T1").into()),
    ]
}

/// A task brought to each status.
fn brought_to(status: Status) -> Given<Fold<TaskStateProjector>> {
    let events = one_of_each(&at(0));
    let named = |name: &str| events.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    let way: &[&str] = match status {
        Status::Unknown => &[],
        Status::Created => &["Created"],
        Status::Assigned => &["Created", "Assigned"],
        Status::Started => &["Created", "Assigned", "Started"],
        Status::Paused => &["Created", "Assigned", "Started", "Paused"],
        Status::Completed => &["Created", "Assigned", "Started", "Completed"],
        Status::Failed => &["Created", "Failed"],
        Status::Cancelled => &["Created", "Cancelled"],
        Status::Rejected => &["Created", "Rejected"],
    };
    given(TaskStateProjector).events(way.iter().map(|name| named(name)))
}

/// Every status against every event: taken or rejected as the table of the module's documentation says.
#[test]
fn the_life_cycle_is_the_documented_table() {
    let source = include_str!("../task_state.rs");
    let rows: Vec<Vec<&str>> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|row| row.trim_end_matches(" |").split(" | ").map(str::trim).collect())
        .filter(|row: &Vec<&str>| row[0] != "event")
        .collect();
    assert_eq!(rows.len(), 13, "a row for each event, two for Rejected");
    let mut possible = 0;
    for status in Status::ALL {
        for (name, event) in one_of_each(&at(1)) {
            // A unit that refuses a task names the update it was offered as, too.
            let rows_of =
                |row: &&Vec<&str>| row[0] == name || (row[0] == "Rejected" && name.starts_with("Rejected"));
            let possible_in = |row: &&Vec<&str>| {
                let status = if status == Status::Unknown { "(unknown)".to_owned() } else { symbol(&status) };
                row[1].split(", ").any(|from| from == status)
            };
            let documented = rows.iter().filter(rows_of).find(possible_in).map(|row| row[2]);
            let expected = documented.map(|to| if to == "(stays)" { symbol(&status) } else { to.to_owned() });
            let found = transition(status, &event).map(|to| symbol(&to));
            assert_eq!(found, expected, "{name} in {status:?}");
            let then = brought_to(status).when(event);
            match (expected, status) {
                (Some(to), _) => {
                    possible += 1;
                    let _ = then.then_taken().then_field("T1", "state", Some(&to));
                }
                (None, Status::Unknown) => {
                    let _ = then.then_rejected(Reason::UnknownTask);
                }
                (None, _) => {
                    let _ = then.then_rejected(Reason::ImpossibleTransition).then_told(&symbol(&status));
                }
            }
        }
    }
    assert_eq!(possible, 39, "possible pairs of status and event");
}

#[test]
fn a_delivery_from_its_creation_to_its_end() {
    let steps = r#"[{"step_id":"step-0","step_type":"pick","status":"finished","changed_at":"2024-01-01T00:00:30.000Z"},{"step_id":"step-1","step_type":"pick","status":"waiting"}]"#;
    let _ = given(TaskStateProjector)
        .event(task_created_at_site("T1"))
        .then_field("T1", "unit_uid", None)
        .then_ranked("T1", "tasks:active:504", Some(3.0))
        .then_expires("T1", None)
        .event(Assigned { meta: at(10), task_id: id() })
        .then_field("T1", "unit_uid", Some("7"))
        .event(Started { meta: at(20), task_id: id() })
        .event(step(at(30), "T1", "step-0", StepStatus::Finished))
        .event(Paused { meta: at(40), task_id: id(), reason: Some("door".to_owned()) })
        .then_field("T1", "paused_at", Some("2024-01-01T00:00:40.000Z"))
        .then_field("T1", "reason", Some("door"))
        .event(Resumed { meta: at(50), task_id: id() })
        .then_field("T1", "paused_at", None)
        .event(Completed { meta: at(60), task_id: id(), failed_steps: 0 })
        .then_field("T1", "state", Some("completed"))
        .then_field("T1", "created_at", Some("2024-01-01T00:00:00.000Z"))
        .then_field("T1", "assigned_at", Some("2024-01-01T00:00:10.000Z"))
        .then_field("T1", "started_at", Some("2024-01-01T00:00:20.000Z"))
        .then_field("T1", "ended_at", Some("2024-01-01T00:01:00.000Z"))
        .then_field("T1", "pauses", Some("1"))
        .then_field("T1", "steps", Some(steps))
        .then_field("T1", "steps_finished", Some("1"))
        .then_ranked("T1", "tasks:active:504", None)
        .then_expires("T1", Some(TimestampMs(START.0 + 60_000 + 7 * DAY_MS + 3_600_000)));
}

#[test]
fn a_step_that_the_plan_does_not_have_is_added() {
    let _ = brought_to(Status::Started)
        .event(step(at(5), "T1", "later", StepStatus::Failed))
        .event(step(at(6), "T1", "later", StepStatus::Running))
        .then_field("T1", "step_count", Some("3"))
        .then_state("T1", |state| assert_eq!(state.steps[2].status, StepStatus::Running));
}

#[test]
fn a_refused_update_is_noted_and_the_task_goes_on() {
    let _ = brought_to(Status::Started)
        .event(rejected(at(5), "T1", Some("2")))
        .then_field("T1", "state", Some("started"))
        .then_field("T1", "rejections", Some(r#"{"noRouteError":1}"#))
        .then_field("T1", "rejected_update_id", Some("2"))
        .event(Completed { meta: at(60), task_id: id(), failed_steps: 0 })
        .event(rejected(at(61), "T1", Some("3")))
        .then_field("T1", "state", Some("completed"))
        .then_field("T1", "ended_at", Some("2024-01-01T00:01:00.000Z"))
        .then_field("T1", "rejection_count", Some("2"));
}

#[test]
fn that_a_task_stands_still_is_shown_until_something_moves_it_and_moves_nothing() {
    let told = Some("2024-01-01T00:01:00.000Z");
    let _ = brought_to(Status::Started)
        .event(step(at(5), "T1", "step-0", StepStatus::Running))
        .event(stalled(at(60), "T1"))
        .then_field("T1", "stalled_at", told)
        .then_field("T1", "state", Some("started"))
        .then_field("T1", "recorded_at", Some("2024-01-01T00:00:05.000Z"))
        .then_field("T1", "occurred_at", Some("2024-01-01T00:00:05.000Z"))
        .event(step(at(70), "T1", "step-0", StepStatus::Finished))
        .then_field("T1", "stalled_at", None)
        .then_field("T1", "recorded_at", Some("2024-01-01T00:01:10.000Z"))
        .event(Completed { meta: at(80), task_id: id(), failed_steps: 0 })
        .event(stalled(at(81), "T1"))
        .then_field("T1", "stalled_at", None)
        .then_field("T1", "ended_at", Some("2024-01-01T00:01:20.000Z"))
        .then_expires("T1", Some(TimestampMs(START.0 + 80_000 + 7 * DAY_MS + 3_600_000)));
}

#[test]
fn a_reassigned_task_has_another_unit_and_begins_again() {
    let other = later(unit_meta("504", "8"), 30_000);
    let _ = brought_to(Status::Paused)
        .event(Reassigned { meta: other, task_id: id(), from_unit_uid: Some("7".to_owned()), reason: None })
        .then_field("T1", "state", Some("assigned"))
        .then_field("T1", "unit_uid", Some("8"))
        .then_field("T1", "assignments", Some("2"))
        .then_field("T1", "paused_at", None)
        .then_field("T1", "started_at", Some("2024-01-01T00:00:00.000Z"));
}

#[test]
fn later_than_seven_days_after_its_end_a_task_is_unknown() {
    let ended = || brought_to(Status::Completed);
    let started = |by_ms| Started { meta: later(at(0), by_ms), task_id: id() };
    let _ = ended().when(started(7 * DAY_MS)).then_rejected(Reason::ImpossibleTransition);
    let _ = ended().when(started(7 * DAY_MS + 1)).then_rejected(Reason::UnknownTask).then_told("T1");
    let _ = ended()
        .when(created(later(at(0), 7 * DAY_MS), "T1"))
        .then_rejected(Reason::ImpossibleTransition)
        .when(created(later(at(0), 7 * DAY_MS + 1), "T1"))
        .then_taken()
        .then_field("T1", "state", Some("created"))
        .then_field("T1", "ended_at", None)
        .then_expires("T1", None);
}

#[test]
fn a_task_that_is_not_over_is_known_for_ever() {
    let _ = brought_to(Status::Started)
        .event(Completed { meta: later(at(0), 4000 * DAY_MS), task_id: id(), failed_steps: 1 })
        .then_field("T1", "failed_steps", Some("1"));
}

proptest! {
    #[test]
    fn the_cut_of_the_log_does_not_matter(events in prop::collection::vec(task_event(), 0..60), cuts in cuts()) {
        let mut log = MemoryLog::default();
        for event in events {
            log.append(event);
        }
        assert_cuts_do_not_matter(&Fold::new(TaskStateProjector), &log, &cuts);
    }
}
