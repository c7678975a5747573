//! The task ledger.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::task::{
    Assigned, Completed, Created, Failed, Started, Step, StepChanged, StepStatus, TaskEvent,
};
use fleetlog_event::{EventId, EventMeta, TimestampMs};
use fleetlog_projection::{Fold, given, given::MemoryLog};
use fleetlog_projections::{TaskLedger, task_ledger::LedgerRow};
use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator, SqlSink};
use fleetlog_testkit::{Stack, fresh_database};
use fleetlog_verify::{HistoryStore, Report, verify_ledger};
use sqlx::{Connection, Executor, PgConnection};

use super::{TestLog, append, assert_one, counts, fill, fill_by, settings};

/// A hundred tasks, every third completed, every third failed; the last one's end comes twice, and its creation under
/// another key.
fn tasks() -> TestLog {
    let mut log = MemoryLog::default();
    let id = |n: i32| format!("task-{n:03} \"ä\u{1F916}\"");
    for n in 0..100 {
        let steps =
            vec![Step { step_id: "s\0tep".to_owned(), step_type: None, node_id: Some("n".to_owned()) }];
        let created = move |meta| Created {
            meta,
            task_id: id(n),
            task_type: "transport".to_owned(),
            priority: n % 5 - 2,
            external_id: (n % 2 == 0).then(|| "a\0b".to_owned()),
            steps: steps.clone(),
            parameters: BTreeMap::from([("to \\u0000".to_owned(), "dock\0".to_owned())]),
        };
        append(&mut log, |meta| TaskEvent::from(created(meta)), "1");
    }
    for n in 0..100 {
        append(&mut log, |meta| TaskEvent::from(Assigned { meta, task_id: id(n) }), "1");
        append(&mut log, |meta| TaskEvent::from(Started { meta, task_id: id(n) }), "1");
    }
    for n in (0..100).rev() {
        let changed = |meta| StepChanged {
            meta,
            task_id: id(n),
            step_id: "s\0tep".to_owned(),
            step_type: None,
            status: StepStatus::Finished,
            result: Some("1e-7".to_owned()),
        };
        append(&mut log, |meta| TaskEvent::from(changed(meta)), "1");
        let completed = |meta| TaskEvent::from(Completed { meta, task_id: id(n), failed_steps: 0 });
        let (reason, detail) = ("lost".to_owned(), Some("why\0".to_owned()));
        let failed = |meta| {
            let (reason, detail) = (reason.clone(), detail.clone());
            TaskEvent::from(Failed { meta, task_id: id(n), reason, detail })
        };
        match n % 3 {
            0 => drop(append(&mut log, completed, "1")),
            1 => drop(append(&mut log, failed, "1")),
            _ => {}
        }
    }
    let again = |meta| TaskEvent::from(Completed { meta, task_id: id(0), failed_steps: 0 });
    append(&mut log, again, "1");
    log.append_under(again(given::unit_meta("504", "1")), "another");
    TestLog::new(log)
}

struct Stage {
    database: fleetlog_testkit::Database,
    sink: SqlSink<LedgerRow>,
    store: HistoryStore,
}

async fn stage() -> Stage {
    let database = fresh_database(&Stack::from_env()).await.unwrap();
    let url = database.url().to_owned();
    let server =
        Database::new(&ConnectionSettings { url, connections_max: 2, timeout: Duration::from_secs(10) })
            .unwrap();
    Migrator::new(&server).apply().await.unwrap();
    let store = HistoryStore::connect(database.url(), 10_000).await.unwrap();
    Stage { sink: server.fold_sink(), store, database }
}

impl Stage {
    async fn run(&self, sql: &str) {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        let done = connection.execute(sql).await.unwrap();
        assert!(done.rows_affected() > 0, "`{sql}` damaged nothing");
    }

    async fn verify(&self, log: &TestLog) -> Report {
        verify_ledger(&TaskLedger, log, &self.store, &settings()).await.unwrap()
    }
}

async fn filled() -> (Stage, TestLog) {
    let (stage, log) = (stage().await, tasks());
    fill(&Fold::new(TaskLedger), &log, &stage.sink, log.end()).await;
    (stage, log)
}

#[tokio::test]
async fn a_ledger_that_is_the_fold_of_its_log_is_clean() {
    let (stage, log) = filled().await;
    let report = stage.verify(&log).await;
    assert!(report.is_clean(), "{report:#?}");
    // Set aside: the second end, and the event under another key.
    assert_eq!((report.compared, report.set_aside, report.duplicates), (100, 2, 0));
    let mut connection = PgConnection::connect(stage.database.url()).await.unwrap();
    let of_status = "SELECT concat_ws(' ', status, count(*), min(work_ms) IS NOT NULL, max(failure_reason))
                     FROM t_app_task_ledger2 GROUP BY status ORDER BY status";
    let found: Vec<String> = sqlx::query_scalar(of_status).fetch_all(&mut connection).await.unwrap();
    assert_eq!(found, ["completed 34 t", "failed 33 t lost", "started 33 f"]);
    let steps = "SELECT count(*) FROM t_app_task_ledger2 WHERE steps -> 0 ->> 'step_id' = 's\u{2400}tep'";
    let found: i64 = sqlx::query_scalar(steps).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, 100, "NUL is shown as a symbol");
}

/// The damage, (missing, extra, different), parts of what is told.
type Damage = (&'static str, (u64, u64, u64), &'static [&'static str]);

const DAMAGES: [Damage; 10] = [
    ("DELETE FROM t_app_task_ledger2 WHERE task_id LIKE 'task-050%'", (1, 0, 0), &["task-050", "no such row"]),
    ("DELETE FROM t_app_task_ledger2", (100, 0, 0), &["missing t_app_task_ledger2 task-000"]),
    (
        "UPDATE t_app_task_ledger2 SET status = 'x' WHERE task_id LIKE 'task-007%'",
        (0, 0, 1),
        &["status is x, the log says failed"],
    ),
    (
        "UPDATE t_app_task_ledger2 SET work_ms = work_ms + 1 WHERE task_id LIKE 'task-007%'",
        (0, 0, 1),
        &["work_ms is "],
    ),
    (
        "UPDATE t_app_task_ledger2 SET finished_at = NULL WHERE task_id LIKE 'task-007%'",
        (0, 0, 1),
        &["finished_at is NULL"],
    ),
    (
        "UPDATE t_app_task_ledger2 SET steps = '[]' WHERE task_id LIKE 'task-007%'",
        (0, 0, 1),
        &["steps is [], the log says [{"],
    ),
    (
        "UPDATE t_app_task_ledger2 SET fold_state = '{' WHERE task_id LIKE 'task-007%'",
        (0, 0, 1),
        &["`fold_state` is {, the log says {"],
    ),
    (
        "UPDATE t_app_task_ledger2 SET fold_next = 7 WHERE task_id LIKE 'task-007%'",
        (1, 0, 0),
        &["neither taken nor set aside"],
    ),
    (
        "INSERT INTO t_app_task_ledger2
         SELECT (jsonb_populate_record(t, '{\"task_id\": \"x\"}')).* FROM t_app_task_ledger2 t WHERE task_id LIKE 'task-007%'",
        (0, 1, 0),
        &["extra t_app_task_ledger2 x", "no such entity"],
    ),
    (
        "UPDATE t_app_task_ledger2 SET fold_partition = 3 WHERE task_id LIKE 'task-007%'",
        (0, 0, 1),
        &["it was folded from"],
    ),
];

#[tokio::test]
async fn every_damage_to_the_ledger_is_found() {
    for (damage, expected, texts) in DAMAGES {
        let (stage, log) = filled().await;
        stage.run(damage).await;
        assert_one(&stage.verify(&log).await, expected, texts);
    }
}

#[tokio::test]
async fn tasks_that_went_on_meanwhile_are_compared_at_their_own_version() {
    let (stage, log) = filled().await;
    for end in [1, 50, 150, 299, 400] {
        let report = stage.verify(&log.growing_from(end)).await;
        assert!(report.is_clean(), "from {end}: {report:#?}");
        assert_eq!(report.compared, 100);
    }
    stage.run("UPDATE t_app_task_ledger2 SET priority = 77 WHERE task_id LIKE 'task-007%'").await;
    stage.run("UPDATE t_app_task_ledger2 SET fold_next = 9999 WHERE task_id LIKE 'task-008%'").await;
    let report = stage.verify(&log.growing_from(150)).await;
    assert_eq!(counts(&report), (0, 0, 2), "{report:#?}");
    assert!(report.differences.iter().any(|d| d.detail.contains("the log ends at")), "{report:#?}");
}

#[tokio::test]
async fn a_ledger_that_is_behind_is_told() {
    let (stage, log) = (stage().await, tasks());
    fill(&Fold::new(TaskLedger), &log, &stage.sink, 60).await;
    let report = stage.verify(&log).await;
    assert_eq!((report.behind, report.compared, counts(&report)), (log.end() - 60, 60, (0, 0, 0)));
}

/// Three tasks of one id, eight days between them, the last one open; and one that was completed.
fn ids_used_again() -> TestLog {
    let mut log = MemoryLog::default();
    let mut at_ms = 0;
    let mut add = |make: &dyn Fn(EventMeta) -> TaskEvent, after_ms: i64| {
        at_ms += after_ms;
        let n = u32::try_from(log.records().len()).unwrap();
        let event_id = EventId::derived("again", n);
        log.append(make(EventMeta { event_id, ..given::later(given::unit_meta("504", "1"), at_ms) }));
    };
    let created = |id: &'static str, task_type: &'static str| {
        move |meta| {
            TaskEvent::from(Created {
                meta,
                task_id: id.to_owned(),
                task_type: task_type.to_owned(),
                priority: 0,
                external_id: None,
                steps: Vec::new(),
                parameters: BTreeMap::new(),
            })
        }
    };
    let assigned = |id: &'static str| move |meta| TaskEvent::from(Assigned { meta, task_id: id.to_owned() });
    let failed = |id: &'static str| {
        move |meta| {
            TaskEvent::from(Failed { meta, task_id: id.to_owned(), reason: "lost".into(), detail: None })
        }
    };
    for task_type in ["a\0", "b"] {
        add(&created("again", task_type), 8 * 24 * 3_600_000);
        add(&assigned("again"), 1000);
        add(&failed("again"), 1000);
    }
    add(&created("once", "c"), 1000);
    add(&assigned("once"), 1000);
    add(&|meta| TaskEvent::from(Completed { meta, task_id: "once".into(), failed_steps: 0 }), 7000);
    add(&created("again", "d"), 8 * 24 * 3_600_000);
    add(&assigned("again"), 1000);
    TestLog::new(log)
}

/// Task, run, milestone, type, duration in ms.
type Milestone = (String, i32, String, String, Option<i64>);

/// What triggers make of the ledger's rows does not depend on which forms of them were written; and goes with them.
#[tokio::test]
async fn creation_and_end_of_each_task_are_milestones_however_the_log_was_cut() {
    let log = ids_used_again();
    for batch in [1, 2, 3, 5, 100] {
        let stage = stage().await;
        fill_by(&Fold::new(TaskLedger), &log, &stage.sink, log.end(), batch).await;
        assert!(stage.verify(&log).await.is_clean());
        let mut connection = PgConnection::connect(stage.database.url()).await.unwrap();
        let sql = "SELECT task_id, run, milestone, task_type, total_ms FROM task_milestone
                   ORDER BY recorded_at, task_id, milestone";
        let found: Vec<Milestone> = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
        let found: Vec<_> =
            found.iter().map(|f| (f.0.as_str(), f.1, f.2.as_str(), f.3.as_str(), f.4)).collect();
        let expected = [
            ("again", 0, "created", "a\u{2400}", None),
            ("again", 0, "failed", "a\u{2400}", Some(2000)),
            ("again", 1, "created", "b", None),
            ("again", 1, "failed", "b", Some(2000)),
            ("once", 0, "created", "c", None),
            ("once", 0, "completed", "c", Some(8000)),
            ("again", 2, "created", "d", None),
        ];
        assert_eq!(found, expected, "in batches of {batch}");
        let sql = "SELECT task_type, figure, counted, shown FROM task_figure";
        let figures: Vec<(String, String, i64, i64)> =
            sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
        let mut figures: Vec<_> = figures.iter().map(|f| (f.0.as_str(), f.1.as_str(), f.2, f.3)).collect();
        figures.sort_unstable();
        let expected = [
            ("a\u{2400}", "created", 1, 1),
            ("a\u{2400}", "failed", 1, 1),
            ("b", "created", 1, 1),
            ("b", "failed", 1, 1),
            ("c", "completed", 1, 1),
            ("c", "created", 1, 1),
            ("d", "created", 1, 1),
        ];
        assert_eq!(figures, expected, "in batches of {batch}");
        stage.run("DELETE FROM t_app_task_ledger2 WHERE task_id = 'once'").await;
        let left = "SELECT count(*) FROM task_milestone";
        let left_of = async |connection: &mut PgConnection| -> i64 {
            sqlx::query_scalar(left).fetch_one(connection).await.unwrap()
        };
        assert_eq!(left_of(&mut connection).await, 5);
        connection.execute("TRUNCATE t_app_task_ledger2").await.unwrap();
        assert_eq!(left_of(&mut connection).await, 0);
    }
}

/// What a redrive may make of rows: other times, other ends, tasks that never were.
const RETELLINGS: [&str; 6] = [
    "UPDATE t_app_task_ledger2 SET created_recorded_at = created_recorded_at - interval '1 hour'",
    "UPDATE t_app_task_ledger2 SET finished_recorded_at = finished_recorded_at + interval '1 hour', status = 'failed',
            total_ms = 9000 WHERE task_id = 'once'",
    "UPDATE t_app_task_ledger2 SET finished_recorded_at = NULL, total_ms = NULL, status = 'running' WHERE task_id = 'once'",
    "UPDATE t_app_task_ledger2 SET earlier = earlier - 0 WHERE task_id = 'again'",
    "UPDATE t_app_task_ledger2 SET earlier = jsonb_set(earlier, '{0,task_type}', '\"z\"') WHERE task_id = 'again'",
    "UPDATE t_app_task_ledger2 SET earlier = earlier || earlier WHERE task_id = 'again'",
];

/// Milestones of rows that tell something else than before are those of the same rows made anew.
#[tokio::test]
async fn milestones_follow_what_is_told_differently() {
    let log = ids_used_again();
    let stage = stage().await;
    fill(&Fold::new(TaskLedger), &log, &stage.sink, log.end()).await;
    let mut connection = PgConnection::connect(stage.database.url()).await.unwrap();
    for retelling in RETELLINGS {
        let before = all_milestones(&mut connection).await;
        assert_ne!(connection.execute(retelling).await.unwrap().rows_affected(), 0, "{retelling}");
        let after = all_milestones(&mut connection).await;
        assert_ne!(after, before, "{retelling}");
        for sql in [
            "CREATE TEMPORARY TABLE kept AS SELECT * FROM t_app_task_ledger2",
            "DELETE FROM t_app_task_ledger2",
            "INSERT INTO t_app_task_ledger2 SELECT * FROM kept",
            "DROP TABLE kept",
        ] {
            connection.execute(sql).await.unwrap();
        }
        assert_eq!(after, all_milestones(&mut connection).await, "{retelling}");
    }
}

async fn all_milestones(connection: &mut PgConnection) -> Vec<String> {
    let sql = "SELECT m::text FROM task_milestone m ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
}

/// A second look at the clock: a start in 1970 and an end in 2100 are what they are, and give no wrong duration.
#[tokio::test]
async fn wild_device_times_are_kept_and_compared() {
    let mut log = MemoryLog::default();
    let wild = |meta: EventMeta, occurred_at| EventMeta { occurred_at: TimestampMs(occurred_at), ..meta };
    let created = |meta| {
        TaskEvent::from(Created {
            meta,
            task_id: "wild".into(),
            task_type: "transport".into(),
            priority: 0,
            external_id: None,
            steps: Vec::new(),
            parameters: BTreeMap::new(),
        })
    };
    append(&mut log, created, "1");
    append(&mut log, |meta| TaskEvent::from(Assigned { meta, task_id: "wild".into() }), "1");
    append(&mut log, |meta| TaskEvent::from(Started { meta: wild(meta, 0), task_id: "wild".into() }), "1");
    let end = |meta| Completed { meta: wild(meta, i64::MAX), task_id: "wild".into(), failed_steps: 0 };
    append(&mut log, |meta| TaskEvent::from(end(meta)), "1");
    let (log, stage) = (TestLog::new(log), stage().await);
    fill(&Fold::new(TaskLedger), &log, &stage.sink, log.end()).await;
    let report = stage.verify(&log).await;
    assert!(report.is_clean(), "{report:#?}");
    let sql =
        "SELECT extract(epoch FROM started_at)::bigint, finished_at::text, wait_ms FROM t_app_task_ledger2";
    let mut connection = PgConnection::connect(stage.database.url()).await.unwrap();
    let found: (i64, String, Option<i64>) = sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, (0, "infinity".to_owned(), None));
}
