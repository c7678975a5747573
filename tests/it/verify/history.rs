//! History.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::{
    EventMeta,
    robot::{ActionRequested, Connected, Load, LoadChanged, RobotEvent},
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{HistoryRow, Map, MapProjector, given, given::MemoryLog};
use fleetlog_projections::{
    EventHistory, TelemetryHistory,
    event_history::{EventRow, HistoryEvent},
};
use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator, SqlSink};
use fleetlog_testkit::{Stack, fresh_database};
use fleetlog_verify::{HistoryStore, Report, verify_map};
use sqlx::{Connection, Executor, PgConnection};

use super::{TestLog, append, assert_one, counts, fill, settings};

/// Events with all that JSON can hold, 120 of them; one duplicate at 100, one under a wrong key at 101.
fn events() -> TestLog {
    let mut log = MemoryLog::default();
    for n in 0..100 {
        let load = move |meta| {
            let weight = |kg| Load { weight_kg: Some(kg), ..Load::default() };
            let odd = [1e-7, 12_345.678_9, 0.1 + 0.2, 100.0, 0.0, 1.5e-300, 5e-324].map(weight);
            HistoryEvent::Robot(LoadChanged { meta, loads: odd.into_iter().skip(n % 7).collect() }.into())
        };
        let action = move |meta| {
            let parameters = [("b", "ä \"quoted\" \\ \n\t\u{b}\u{7f}🤖"), ("aa", "</script>"), ("a", "")];
            let parameters: BTreeMap<String, String> =
                parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let (action_id, action_type) = (format!("a{n}"), "pick".to_owned());
            HistoryEvent::Robot(ActionRequested { meta, action_id, action_type, parameters }.into())
        };
        append(&mut log, |meta| if n % 2 == 0 { load(meta) } else { action(meta) }, "1");
    }
    let connected =
        |meta: EventMeta| HistoryEvent::Robot(RobotEvent::from(Connected { meta, protocol: None }));
    let same = EventMeta {
        event_id: fleetlog_event::EventId::derived("verify", 99),
        ..given::unit_meta("504", "1")
    };
    log.append(connected(same));
    log.append_under(connected(given::unit_meta("504", "1")), "s504.u2");
    for _ in 0..18 {
        append(&mut log, connected, "1");
    }
    TestLog::new(log)
}

struct Stage {
    database: fleetlog_testkit::Database,
    server: Database,
    store: HistoryStore,
}

async fn stage() -> Stage {
    let database = fresh_database(&Stack::from_env()).await.unwrap();
    let server = Database::new(&ConnectionSettings {
        url: database.url().to_owned(),
        connections_max: 2,
        timeout: Duration::from_secs(10),
    });
    let server = server.unwrap();
    Migrator::new(&server).apply().await.unwrap();
    let store = HistoryStore::connect(database.url(), 10_000).await.unwrap();
    Stage { server, store, database }
}

impl Stage {
    async fn run(&self, sql: &str) {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        let done = connection.execute(sql).await.unwrap();
        assert!(done.rows_affected() > 0, "`{sql}` damaged nothing");
    }

    async fn verify<P: MapProjector<Write: HistoryRow>>(&self, projector: P, log: &TestLog) -> Report {
        verify_map(&projector, log, &self.store, &settings()).await.unwrap()
    }
}

/// Only one of the two topics of `event-history` is there: the other would be the same log again.
struct UnitHistory;

impl MapProjector for UnitHistory {
    const ID: &'static str = EventHistory::ID;
    type Event = RobotEvent;
    type Write = EventRow;

    fn map(
        &self,
        event: &fleetlog_event::Recorded<RobotEvent>,
        out: &mut Vec<EventRow>,
    ) -> Result<(), fleetlog_event::Reject> {
        let event = fleetlog_event::Recorded {
            position: event.position,
            recorded_at: event.recorded_at,
            key: event.key.clone(),
            event: HistoryEvent::Robot(event.event.clone()),
        };
        EventHistory.map(&event, out)
    }
}

/// The same log with its events as `RobotEvent`s, which is what this projector decodes.
fn robot_events() -> TestLog {
    let wide = events();
    let mut log = MemoryLog::default();
    for record in wide.records.records() {
        let event =
            fleetlog_event::Decode::decode::<HistoryEvent>(&*wide.records, record.value.as_deref()).unwrap();
        let HistoryEvent::Robot(event) = event else { unreachable!("robot events only") };
        log.append_under(event, record.key_text().unwrap());
    }
    TestLog::new(log)
}

async fn filled() -> (Stage, TestLog) {
    let (stage, log) = (stage().await, robot_events());
    let sink: SqlSink<EventRow> = stage.server.sink();
    fill(&Map(UnitHistory), &log, &sink, log.end()).await;
    (stage, log)
}

#[tokio::test]
async fn history_that_is_its_log_is_clean() {
    let (stage, log) = filled().await;
    let report = stage.verify(UnitHistory, &log).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.compared, report.set_aside, report.duplicates), (118, 1, 1));
}

/// The damage, (missing, extra, different), parts of what is told.
type Damage = (&'static str, (u64, u64, u64), &'static [&'static str]);

/// Each damage, what it counts as (missing, extra, different), and what is told.
const DAMAGES: [Damage; 9] = [
    (
        "DELETE FROM unit_event WHERE log_offset = 50",
        (1, 0, 0),
        &["missing unit_event 0/50", "event_type = LoadChanged"],
    ),
    ("DELETE FROM unit_event", (118, 0, 0), &["missing unit_event 0/0"]),
    (
        "UPDATE unit_event SET source = 'x' WHERE log_offset = 3",
        (0, 0, 1),
        &["source is x, the log says given/1"],
    ),
    (
        "UPDATE unit_event SET payload = payload || '{\"a\": 1}' WHERE log_offset = 3",
        (0, 0, 1),
        &["payload is {\"a\": 1"],
    ),
    (
        "UPDATE unit_event SET occurred_at = occurred_at + interval '1 us' WHERE log_offset = 3",
        (0, 0, 1),
        &["occurred_at is 2024-01-01T00:00:03.000001Z, the log says 2024-01-01T00:00:03.000Z"],
    ),
    (
        "UPDATE unit_event SET sequence = NULL WHERE log_offset = 3",
        (0, 0, 1),
        &["sequence is NULL, the log says 3"],
    ),
    (
        "INSERT INTO unit_event SELECT * FROM unit_event WHERE log_offset = 50",
        (0, 1, 0),
        &["extra unit_event 0/50"],
    ),
    ("UPDATE unit_event SET log_offset = 500 WHERE log_offset = 50", (1, 1, 0), &["missing unit_event 0/50"]),
    ("DELETE FROM fleetlog_set_aside", (1, 0, 0), &["offset 101", "not set aside"]),
];

#[tokio::test]
async fn every_damage_to_history_is_found() {
    for (damage, expected, texts) in DAMAGES {
        let (stage, log) = filled().await;
        stage.run(damage).await;
        let report = stage.verify(UnitHistory, &log).await;
        assert_one(&report, expected, texts);
        assert!(report.differences.len() <= settings().differences_max, "only the first are told in full");
    }
}

#[tokio::test]
async fn rows_of_a_partition_that_there_is_not_are_extra() {
    let (stage, log) = filled().await;
    stage.run("INSERT INTO unit_event SELECT (jsonb_populate_record(u, '{\"log_partition\": 7}')).* FROM unit_event u WHERE log_offset = 1").await;
    let report = stage.verify(UnitHistory, &log).await;
    assert_one(&report, (0, 1, 0), &["extra unit_event 7/1"]);
}

#[tokio::test]
async fn a_lane_that_is_behind_is_told() {
    let (stage, log) = (stage().await, robot_events());
    let sink: SqlSink<EventRow> = stage.server.sink();
    fill(&Map(UnitHistory), &log, &sink, 60).await;
    let report = stage.verify(UnitHistory, &log).await;
    assert_eq!((report.behind, report.compared, counts(&report)), (60, 60, (0, 0, 0)), "{report:#?}");
    assert!(!report.is_clean());
}

#[tokio::test]
async fn measurements_are_compared_to_the_last_bit() {
    let mut log = MemoryLog::default();
    for n in 0..100 {
        let measured = |meta| {
            TelemetryEvent::from(Telemetry {
                x_m: Some(f64::from(n) / 3.0),
                y_m: Some(-0.0),
                map_id: Some("Halle ä".to_owned()),
                latitude_deg: Some(48.1),
                battery_percent: Some(99.9),
                charging: Some(n % 2 == 0),
                ..Telemetry::silent(meta)
            })
        };
        append(&mut log, measured, "1");
    }
    let (stage, log) = (stage().await, TestLog::new(log));
    let sink = stage.server.sink();
    fill(&Map(TelemetryHistory), &log, &sink, log.end()).await;
    let report = stage.verify(TelemetryHistory, &log).await;
    assert!(report.is_clean() && report.compared == 100, "{report:#?}");
    // Retention cut the log: rows before it are nobody's business.
    let report = stage.verify(TelemetryHistory, &log.cut(60)).await;
    assert!(report.is_clean() && report.compared == 40, "{report:#?}");
    stage.run("UPDATE telemetry SET x_m = x_m + 1e-14 WHERE log_offset = 70").await;
    let report = stage.verify(TelemetryHistory, &log).await;
    assert_one(&report, (0, 0, 1), &["x_m is 23.33333333333334", "the log says 23.333333333333332"]);
}
