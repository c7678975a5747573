use fleetlog_event::{
    EventMeta,
    task::{Assigned, Cancelled, Completed, Failed, Paused, Resumed, Started},
};
use fleetlog_projection::{
    Fold,
    given::{Given, MemoryLog, START, assert_cuts_do_not_matter, given, later, unit_meta},
};
use proptest::prelude::*;

use super::*;
use crate::testing::{created, cuts, rejected, step, task_created_at_site, task_event};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn meta() -> EventMeta {
    unit_meta("504", "7")
}

fn at(by_ms: i64) -> EventMeta {
    later(meta(), by_ms)
}

fn id() -> String {
    "T1".to_owned()
}

/// The row of task `T1`.
fn row(given: Given<Fold<TaskLedger>>) -> LedgerRow {
    let mut row = None;
    let _ = given.then(|outcome| {
        let writes = &outcome.entities["T1"].writes;
        assert_eq!(writes.len(), 1, "one row a task");
        row = writes.first().cloned();
    });
    row.expect("the task has a row")
}

fn started() -> Given<Fold<TaskLedger>> {
    given(TaskLedger)
        .event(task_created_at_site("T1"))
        .event(Assigned { meta: at(1000), task_id: id() })
        .event(Started { meta: at(5000), task_id: id() })
}

#[test]
fn a_task_from_creation_to_completion_is_one_row_with_its_times() {
    let done = started()
        .event(step(at(6000), "T1", "step-0", StepStatus::Finished))
        .event(step(at(7000), "T1", "step-1", StepStatus::Failed))
        .event(Completed { meta: at(65_000), task_id: id(), failed_steps: 1 });
    let row = row(done);
    assert_eq!((row.task_id.as_str(), row.state.task.status), ("T1", Status::Completed));
    assert_eq!(row.state.task.unit_uid.as_deref(), Some("7"));
    assert_eq!((row.state.task.created_at, row.state.created_recorded_at), (START, START));
    assert_eq!((row.wait_ms(), row.work_ms(), row.total_ms()), (Some(5000), Some(60_000), Some(65_000)));
    assert_eq!(row.failure(), (None, None));
    let mut out = CopyEncoder::new();
    out.row(&row);
    let bytes = out.finish();
    let is_there = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    for text in ["completed", "transport", "ORD-1", "\"step_id\":\"step-1\"", "{\"from\":\"dock\"}"] {
        assert!(is_there(text.as_bytes()), "`{text}` is not in the row");
    }
}

#[test]
fn an_end_tells_why_and_a_pause_only_while_it_lasts() {
    let pause = |meta| Paused { meta, task_id: id(), reason: Some("door".to_owned()) };
    let paused = row(started().event(pause(at(6000))));
    assert_eq!((paused.pause_reason(), paused.failure()), (Some("door"), (None, None)));
    let resumed = row(started().event(pause(at(6000))).event(Resumed { meta: at(7000), task_id: id() }));
    assert_eq!(resumed.pause_reason(), None);
    let (reason, detail) = ("lost".to_owned(), Some("it restarted".to_owned()));
    let failed = row(started().event(Failed { meta: at(9000), task_id: id(), reason, detail }));
    assert_eq!((failed.pause_reason(), failed.failure()), (None, (Some("lost"), Some("it restarted"))));
    let refused =
        row(given(TaskLedger).event(task_created_at_site("T1")).event(rejected(meta(), "T1", None)));
    assert_eq!(refused.failure(), (Some("noRouteError"), None));
}

/// A task that ends without a start, as one whose unit never told of it.
#[test]
fn an_end_without_a_start_has_a_total_and_no_work() {
    let ended = given(TaskLedger)
        .event(task_created_at_site("T1"))
        .event(Assigned { meta: at(1000), task_id: id() })
        .event(Completed { meta: at(9000), task_id: id(), failed_steps: 0 });
    let row = row(ended);
    assert_eq!((row.wait_ms(), row.work_ms(), row.total_ms()), (None, None, Some(9000)));
}

/// The unit's clock went back to 1970, then ahead to 2100: durations are told only where they can be true.
#[test]
fn clocks_that_contradict_each_other_give_no_duration() {
    let wild = |occurred_at| EventMeta { occurred_at: TimestampMs(occurred_at), ..at(5000) };
    let at_1970 = given(TaskLedger)
        .event(task_created_at_site("T1"))
        .event(Assigned { meta: at(1000), task_id: id() })
        .event(Started { meta: wild(0), task_id: id() })
        .event(Completed { meta: at(9000), task_id: id(), failed_steps: 0 });
    let row = row(at_1970);
    assert_eq!((row.wait_ms(), row.total_ms()), (None, Some(9000)));
    for (from, to) in [(i64::MIN, i64::MAX), (5, 4)] {
        assert_eq!(elapsed_ms(Some(TimestampMs(from)), Some(TimestampMs(to))), None);
    }
}

/// An end a month late still ends its task; a second end does not move it.
#[test]
fn an_end_a_month_late_counts_and_a_second_one_does_not() {
    let ended = started().event(Completed { meta: at(30 * DAY_MS), task_id: id(), failed_steps: 0 });
    let again =
        Cancelled { meta: at(30 * DAY_MS + 1), task_id: id(), reason: "requested".into(), detail: None };
    let ended = ended.when(again).then_rejected(Reason::ImpossibleTransition);
    let much_later = Completed { meta: at(60 * DAY_MS), task_id: id(), failed_steps: 0 };
    let row = row(ended.when(much_later).then_rejected(Reason::UnknownTask));
    assert_eq!((row.state.task.status, row.total_ms()), (Status::Completed, Some(30 * DAY_MS)));
}

/// As in hot state: a task id used again a week after its end is a new task, and its row that of the new one.
#[test]
fn an_id_used_again_begins_the_row_anew() {
    let ended = || started().event(Completed { meta: at(9000), task_id: id(), failed_steps: 0 });
    let soon = created(at(7 * DAY_MS), "T1");
    let _ = ended().when(soon).then_rejected(Reason::ImpossibleTransition);
    let row = row(ended().event(created(at(8 * DAY_MS), "T1")));
    assert_eq!(
        (row.state.task.status, row.state.task.started_at, row.total_ms()),
        (Status::Created, None, None)
    );
    let earlier = EarlierTask {
        site_uid: "504".to_owned(),
        task_type: "transport".to_owned(),
        status: Status::Completed,
        created_recorded_at: START,
        finished_recorded_at: TimestampMs(START.0 + 9000),
        work_ms: Some(4000),
        total_ms: Some(9000),
    };
    assert_eq!((row.state.earlier, row.state.created_recorded_at.0), (vec![earlier], START.0 + 8 * DAY_MS));
}

#[test]
fn what_sql_could_not_hold_is_set_aside() {
    let _ = given(TaskLedger)
        .when(task_created_at_site("T\0"))
        .then_rejected(Reason::InvalidText)
        .then_told("NUL")
        .when(created(unit_meta("504", &"u".repeat(UNIT_BYTES_MAX + 1)), "T1"))
        .then_rejected(Reason::InvalidText)
        .then_told("513 bytes");
    let mut odd = created(meta(), "T1");
    odd.external_id = Some("a\0b".to_owned());
    odd.parameters = [("k\0".to_owned(), "\\u0000 and \0".to_owned())].into();
    let row = row(given(TaskLedger).event(odd));
    assert_eq!(shown(row.state.task.external_id.as_deref().unwrap()), "a\u{2400}b");
    let parameters = shown_json(json_text(&row.state.task.parameters));
    assert_eq!(parameters, "{\"k\u{2400}\":\"\\\\u0000 and \u{2400}\"}");
}

proptest! {
    #[test]
    fn the_cut_of_the_log_does_not_matter(
        events in prop::collection::vec(task_event(), 0..50),
        cuts in cuts(),
    ) {
        let mut log = MemoryLog::default();
        for event in events {
            log.append(event);
        }
        assert_cuts_do_not_matter(&Fold::new(TaskLedger), &log, &cuts);
    }

    /// The row says what the hash says, as long as there is one.
    #[test]
    fn ledger_and_hot_state_are_one_fold(events in prop::collection::vec(task_event(), 0..50)) {
        let (mut hot, mut ledger) = (given(TaskStateProjector), given(TaskLedger));
        for event in events {
            (hot, ledger) = (hot.when(event.clone()), ledger.when(event));
        }
        let mut states = (Vec::new(), Vec::new());
        let _ = hot.then(|outcome| {
            states.0 = outcome.entities.values().map(|e| (e.key.clone(), e.state.clone())).collect();
        });
        let _ = ledger.then(|outcome| {
            let task = |state: &[u8]| serde_json::from_slice::<LedgerState>(state).unwrap().task;
            states.1 = outcome.entities.values().map(|e| (e.key.clone(), json_text(&task(&e.state)).into_bytes())).collect();
        });
        prop_assert_eq!(&states.0, &states.1);
    }
}
