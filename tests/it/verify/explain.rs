//! Which event gave a field its value: the fold of a log in memory against stores filled by the sinks.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::{
    EntityKey, EventId, EventMeta, TimestampMs,
    robot::{Connected, DisconnectReason, Disconnected, ModeChanged, OperatingMode, RobotEvent},
    task::{Assigned, Completed, Created, Failed, TaskEvent},
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{Fold, FoldProjector, given, given::MemoryLog};
use fleetlog_projections::{TaskLedger, TaskStateProjector, UnitConsensus, UnitStatus};
use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator, SqlSink};
use fleetlog_testkit::{Stack, fresh_database};
use fleetlog_verify::{
    Begin, Change, Explanation, HistoryStore, HotStore, Question, Readable, Stored, Verdict, explain,
};

use super::{
    TestLog, append, fill,
    hot::{Stage, stage},
};

/// What is asked of the units of this file.
async fn ask<P: FoldProjector, S: Readable<P>>(
    (projector, store, log): (&P, &S, &TestLog),
    (key, field): (&str, &str),
    begin: Begin,
    changes_max: usize,
) -> Explanation {
    let key = EntityKey::from(key);
    let question = Question { key: &key, field, begin, changes_max, now: given::START };
    explain(projector, log, store, question, |_, _| ()).await.unwrap()
}

/// The last change: offset, event, value before, value.
fn last(explained: &Explanation) -> Option<(i64, &str, Option<&str>, Option<&str>)> {
    explained.changes.last().map(told)
}

fn told(change: &Change) -> (i64, &str, Option<&str>, Option<&str>) {
    let event = change.event_type.rsplit('.').next().unwrap();
    (change.offset, event, change.before.as_deref(), change.value.as_deref())
}

/// Unit 1: connected (0), manual (1), automatic (2), the same again (4), the first event once more (5), automatic again (6),
/// disconnected (7). Unit 2 in between (3).
fn units() -> TestLog {
    let mut log = MemoryLog::default();
    let connected = |meta| RobotEvent::from(Connected { meta, protocol: None });
    let mode = |mode| move |meta| RobotEvent::from(ModeChanged { meta, mode });
    append(&mut log, connected, "1");
    append(&mut log, mode(OperatingMode::Manual), "1");
    append(&mut log, mode(OperatingMode::Automatic), "1");
    append(&mut log, connected, "2");
    append(&mut log, mode(OperatingMode::Automatic), "1");
    let again = EventMeta { event_id: EventId::derived("verify", 1), ..given::unit_meta("504", "1") };
    log.append(RobotEvent::from(ModeChanged { meta: again, mode: OperatingMode::Manual }));
    append(&mut log, mode(OperatingMode::Automatic), "1");
    append(&mut log, |meta| RobotEvent::from(Disconnected { meta, reason: DisconnectReason::Broken }), "1");
    TestLog::new(log)
}

async fn filled() -> (Stage, TestLog) {
    let (stage, log) = (stage().await, units());
    fill(&Fold::new(UnitStatus), &log, &stage.sink, log.end()).await;
    (stage, log)
}

#[tokio::test]
async fn the_last_event_that_changed_the_field_is_named_and_the_value_before() {
    let (stage, log) = filled().await;
    let found = ask((&UnitStatus, &stage.store, &log), ("s504.u1", "mode"), Begin::Log, 1).await;
    // Told again it is no change, and a duplicate is none either.
    assert_eq!(last(&found), Some((2, "ModeChanged", Some("manual"), Some("automatic"))));
    assert_eq!((found.verdict, found.events, found.duplicates), (Verdict::Agrees, 6, 1));
    let change = &found.changes[0];
    assert_eq!(change.event_id, EventId::derived("verify", 2));
    assert_eq!(
        (change.recorded_at, change.occurred_at),
        (TimestampMs(given::START.0 + 2000), change.recorded_at)
    );
    assert_eq!((change.source.as_str(), change.unit_uid.as_deref()), ("given/1", Some("1")));

    let absent = ask((&UnitStatus, &stage.store, &log), ("s504.u1", "doors"), Begin::Log, 1).await;
    assert_eq!((last(&absent), &absent.value, &absent.verdict), (None, &None, &Verdict::Agrees));
    let nobody = ask((&UnitStatus, &stage.store, &log), ("s504.u9", "mode"), Begin::Log, 1).await;
    assert_eq!(nobody.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn all_changes_are_told_and_the_newest_kept() {
    let (stage, log) = filled().await;
    let asked = (&UnitStatus, &stage.store, &log);
    let all = ask(asked, ("s504.u1", "connection"), Begin::First(0), 10).await;
    let told: Vec<_> = all.changes.iter().map(told).collect();
    let expected =
        [(0, "Connected", None, Some("online")), (7, "Disconnected", Some("online"), Some("offline"))];
    assert_eq!(told, expected);
    assert!(all.changes.iter().all(|change| change.before_is_told));
    let newest = ask(asked, ("s504.u1", "recorded_at"), Begin::Log, 2).await;
    assert_eq!((newest.changes.len(), newest.changes_total), (2, 6));
    assert_eq!(newest.changes[1].offset, 7);
}

/// A hint that is wrong costs a second reading, never a wrong answer.
#[tokio::test]
async fn where_history_is_wrong_about_the_beginning_the_log_is_read_from_its_own() {
    let (stage, log) = filled().await;
    let asked = (&UnitStatus, &stage.store, &log);
    for (begin, from) in [
        (Begin::First(0), 0),
        (Begin::First(2), 0),
        (Begin::First(900), 0),
        (Begin::Within(4), 0),
        (Begin::Log, 0),
    ] {
        let found = ask(asked, ("s504.u1", "connects"), begin, 1).await;
        assert_eq!(last(&found), Some((0, "Connected", None, Some("1"))), "{begin:?}");
        assert_eq!((found.from, found.verdict), (from, Verdict::Agrees), "{begin:?}");
    }
}

#[tokio::test]
async fn a_store_that_holds_something_else_is_found_out() {
    let (mut stage, log) = filled().await;
    for (damage, field, said) in [
        (
            &["HSET", "k/unit:s504.u1", "mode", "x"][..],
            "mode",
            "the store holds `x`, the log says `automatic`",
        ),
        (&["HDEL", "k/unit:s504.u1", "connects"], "connects", "the store holds absent, the log says `1`"),
        (&["DEL", "k/unit:s504.u1"], "mode", "the store does not know it"),
    ] {
        stage.run(damage).await;
        let found = ask((&UnitStatus, &stage.store, &log), ("s504.u1", field), Begin::First(0), 1).await;
        match found.verdict {
            Verdict::Differs(detail) => assert!(detail.contains(said), "{detail}"),
            other => panic!("{damage:?}: {other:?}"),
        }
    }
}

/// While the projection lags, the answer is that of what it has taken.
#[tokio::test]
async fn what_the_projection_has_not_taken_yet_does_not_count() {
    let (stage, log) = (stage().await, units());
    fill(&Fold::new(UnitStatus), &log, &stage.sink, 2).await;
    let found = ask((&UnitStatus, &stage.store, &log), ("s504.u1", "mode"), Begin::Log, 1).await;
    assert_eq!(last(&found), Some((1, "ModeChanged", None, Some("manual"))));
    assert_eq!((found.verdict, found.behind), (Verdict::Agrees, 6));
}

fn task(id: &str) -> impl Fn(EventMeta) -> TaskEvent {
    let task_id = id.to_owned();
    move |meta| {
        TaskEvent::from(Created {
            meta,
            task_id: task_id.clone(),
            task_type: "transport".to_owned(),
            priority: 1,
            external_id: None,
            steps: Vec::new(),
            parameters: BTreeMap::new(),
        })
    }
}

/// Created, assigned, completed, and failed after its end: that is set aside.
fn tasks() -> TestLog {
    let mut log = MemoryLog::default();
    let id = || "T1".to_owned();
    append(&mut log, task("T0"), "1");
    append(&mut log, task("T1"), "1");
    append(&mut log, |meta| TaskEvent::from(Assigned { meta, task_id: id() }), "7");
    append(&mut log, |meta| TaskEvent::from(Completed { meta, task_id: id(), failed_steps: 0 }), "7");
    let failed =
        |meta| TaskEvent::from(Failed { meta, task_id: id(), reason: "late".to_owned(), detail: None });
    append(&mut log, failed, "7");
    TestLog::new(log)
}

#[tokio::test]
async fn an_event_that_was_set_aside_has_set_nothing() {
    let mut log = MemoryLog::default();
    append(&mut log, task("T0"), "1");
    append(&mut log, task("T1"), "1");
    append(&mut log, |meta| TaskEvent::from(Assigned { meta, task_id: "T1".to_owned() }), "7");
    append(&mut log, task("T1"), "8");
    let (stage, log) = (stage().await, TestLog::new(log));
    fill(&Fold::new(TaskStateProjector), &log, &stage.sink, log.end()).await;
    for field in ["state", "unit_uid"] {
        let found = ask((&TaskStateProjector, &stage.store, &log), ("T1", field), Begin::First(1), 1).await;
        assert_eq!(last(&found).map(|last| last.0), Some(2), "{field}");
        assert_eq!((found.verdict, found.from), (Verdict::Agrees, 1), "{field}");
    }
}

/// The store may forget a task 7 days after its end; what is set aside after that is told all the same.
#[tokio::test]
async fn what_the_store_forgot_by_its_own_rule_is_told_from_the_log() {
    let (stage, log) = (stage().await, tasks());
    fill(&Fold::new(TaskStateProjector), &log, &stage.sink, log.end()).await;
    let key = EntityKey::from("T1");
    let now = TimestampMs(given::START.0 + 30 * 86_400_000);
    let question = Question { key: &key, field: "state", begin: Begin::Log, changes_max: 1, now };
    let found = explain(&TaskStateProjector, &log, &stage.store, question, |_, _| ()).await.unwrap();
    assert_eq!(last(&found), Some((3, "Completed", Some("assigned"), Some("completed"))));
    assert_eq!((found.verdict, found.set_aside), (Verdict::Expired, 1));
}

#[tokio::test]
async fn the_ledgers_columns_are_explained_as_people_read_them() {
    let stack = Stack::from_env();
    let database = fresh_database(&stack).await.unwrap();
    let settings = ConnectionSettings {
        url: database.url().to_owned(),
        connections_max: 2,
        timeout: Duration::from_secs(20),
    };
    let opened = Database::new(&settings).unwrap();
    Migrator::new(&opened).apply().await.unwrap();
    let sink: SqlSink<_> = opened.fold_sink();
    let log = tasks();
    fill(&Fold::new(TaskLedger), &log, &sink, log.end()).await;
    let store = HistoryStore::connect(database.url(), 20_000).await.unwrap();
    let asked = (&TaskLedger, &store, &log);
    for (field, expected) in [
        ("finished_at", (3, "Completed", None, Some("2024-01-01T00:00:03.000Z"))),
        ("unit_uid", (2, "Assigned", Some("1"), Some("7"))),
        ("assignments", (2, "Assigned", Some("0"), Some("1"))),
        ("total_ms", (3, "Completed", None, Some("2000"))),
        ("parameters", (1, "Created", None, Some("{}"))),
    ] {
        let found = ask(asked, ("T1", field), Begin::First(1), 1).await;
        assert_eq!((last(&found), &found.verdict), (Some(expected), &Verdict::Agrees), "{field}");
    }
    assert_eq!(<HistoryStore as Readable<TaskLedger>>::names(&TaskLedger).len(), 31);
}

/// Unit 1: battery 80 (0), 80 (1), silent about it (2), 70 (3), silent (4).
fn measurements() -> TestLog {
    let mut log = MemoryLog::default();
    for battery_percent in [Some(80.0), Some(80.0), None, Some(70.0), None] {
        let one = |meta| TelemetryEvent::from(Telemetry { battery_percent, ..Telemetry::silent(meta) });
        append(&mut log, one, "1");
    }
    TestLog::new(log)
}

/// Telemetry is kept for some days only: what was before is not known, and not called absent.
#[tokio::test]
async fn a_log_cut_by_retention_is_said_to_be() {
    let (stage, log) = (stage().await, measurements());
    fill(&Fold::new(UnitConsensus), &log, &stage.sink, log.end()).await;
    let battery = ("s504.u1", "battery_percent");
    let ask = async |log: &TestLog, begin| ask((&UnitConsensus, &stage.store, log), battery, begin, 1).await;

    let within = ask(&log, Begin::Within(1)).await;
    assert_eq!((last(&within), within.from), (Some((3, "Telemetry", Some("80"), Some("70"))), 1));
    // From here on nothing changed: so it is read from the beginning.
    let wrong = ask(&log, Begin::Within(3)).await;
    assert_eq!((last(&wrong), wrong.from), (Some((3, "Telemetry", Some("80"), Some("70"))), 0));

    let cut = ask(&log.cut(3), Begin::Log).await;
    assert_eq!((last(&cut), &cut.verdict), (Some((3, "Telemetry", None, Some("70"))), &Verdict::Agrees));
    assert!(!cut.changes[0].before_is_told);
    let untold = ask(&log.cut(4), Begin::Log).await;
    assert_eq!((last(&untold), &untold.verdict), (None, &Verdict::Untold));
    let stored =
        |explained: &Explanation| explained.stored.as_ref().and_then(|Stored { value, .. }| value.clone());
    assert_eq!(stored(&untold).as_deref(), Some("70"));
}

/// Every field that hot state shows can be asked for.
#[test]
fn the_fields_are_those_that_people_see() {
    let names = <HotStore as Readable<UnitStatus>>::names(&UnitStatus);
    for name in ["connection", "mode", "faults", "last_action_at", "unit_type", "recorded_at"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with('_')), "{names:?}");
}
