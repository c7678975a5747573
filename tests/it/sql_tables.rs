//! The tables that projections write to, against the tables that the migrations make; and their rows, there and back.

use std::time::Duration;

use fleetlog_event::{
    EntityKey, EventId, EventMeta, LogId, Position, Recorded, TimestampMs,
    robot::{Connected, RobotEvent},
    task::{Created, TaskEvent},
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{
    Chain, Column, Commit, FOLD_COLUMNS, HistoryRow, LaneId, MapProjector, Progress, RowChange, Sink, Table,
    UnitOfWork,
};
use fleetlog_projections::{
    dead_letter_actions::DEAD_LETTER_ACTION,
    dead_letters::DEAD_LETTER,
    event_history::{EventHistory, HistoryEvent, TASK_EVENT, UNIT_EVENT},
    task_ledger::TASK_LEDGER,
    telemetry_history::{TELEMETRY, TelemetryHistory},
};
use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator};
use fleetlog_testkit::{Stack, fresh_database};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

async fn migrated() -> (fleetlog_testkit::Database, Database) {
    let made = fresh_database(&Stack::from_env()).await.unwrap();
    let url = made.url().to_owned();
    let settings = ConnectionSettings { url, connections_max: 2, timeout: Duration::from_secs(20) };
    let database = Database::new(&settings).unwrap();
    Migrator::new(&database).apply().await.unwrap();
    (made, database)
}

async fn connect(made: &fleetlog_testkit::Database) -> PgConnection {
    let mut connection = PgConnection::connect(made.url()).await.unwrap();
    sqlx::query("SET timezone = 'UTC'").execute(&mut connection).await.unwrap();
    connection
}

#[tokio::test]
async fn projections_and_migrations_agree_on_columns() {
    let (made, _) = migrated().await;
    let mut connection = connect(&made).await;
    let columns = |of: &[Column]| of.iter().map(|c| format!("{} {}", c.name, c.sql_type)).collect::<Vec<_>>();
    for (table, fold) in [
        (&TELEMETRY, false),
        (&UNIT_EVENT, false),
        (&TASK_EVENT, false),
        (&TASK_LEDGER, true),
        (&DEAD_LETTER, false),
        (&DEAD_LETTER_ACTION, false),
    ] {
        let sql = "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                   WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped";
        let mut there: Vec<String> =
            sqlx::query_scalar(sql).bind(table.name).fetch_all(&mut connection).await.unwrap();
        let mut wanted = columns(table.columns);
        if fold {
            wanted.extend(columns(&FOLD_COLUMNS));
        }
        // COPY names them, so a column that a later migration added may stand anywhere.
        there.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(there, wanted, "`{}`: add a migration, or correct the projection's Table", table.name);
    }
}

fn meta(event_id: u128) -> EventMeta {
    EventMeta {
        event_id: EventId(Uuid::from_u128(event_id)),
        occurred_at: TimestampMs(4_102_444_800_000),
        recorded_at: TimestampMs(1_795_262_400_001),
        site_uid: "werk1".into(),
        unit_uid: Some("NordFTS/0001".into()),
        sequence: Some(41),
        sequence_scope: Some("state#0".into()),
        source: "it/1".into(),
        correlation_id: Some(EventId(Uuid::from_u128(8))),
        causation_id: None,
    }
}

/// The rows of one event, written through the sink.
async fn store<P: MapProjector<Write: HistoryRow>>(
    database: &Database,
    projector: &P,
    event: P::Event,
    key: &str,
) {
    let log = LogId(Uuid::from_u128(1));
    let recorded = Recorded {
        position: Position { log, partition: 3, offset: 5 },
        recorded_at: TimestampMs(1_795_262_400_001),
        key: EntityKey::from(key),
        event,
    };
    let mut rows = Vec::new();
    projector.map(&recorded, &mut rows).unwrap();
    assert_eq!(rows.len(), 1);
    let table: &Table = rows[0].table();
    let (follows, leaves) = Chain::resume(1, None).next();
    let unit = UnitOfWork {
        lane: LaneId {
            projection: P::ID.into(),
            version: P::VERSION,
            topic: table.name.into(),
            partition: 3,
        },
        follows,
        leaves,
        progress: Progress { log, main: 6, inbox: 0, last: None },
        entities: Vec::new(),
        rows: rows.into_iter().map(|write| RowChange { offset: 5, write }).collect(),
        set_aside: Vec::new(),
        entries: Vec::new(),
        made_at: TimestampMs(0),
    };
    assert_eq!(database.sink::<P::Write>().commit(&unit).await.unwrap(), Commit::Applied);
}

#[tokio::test]
async fn a_measurement_comes_back_as_it_was() {
    let (made, database) = migrated().await;
    let json = serde_json::json!({
        "meta": serde_json::to_value(meta(7)).unwrap(), "channel": "state", "x_m": 1.25, "latitude_deg": -33.5,
        "battery_percent": 80.5, "charging": false, "paused": true, "last_node_id": "n\"1", "task_id": "t",
        "localized": true, "new_base_request": false, "zone_set_id": "", "information": {"wifi\u{0}": "-66\u{0}\\u0000"},
    });
    let telemetry: Telemetry = serde_json::from_value(json).unwrap();
    store(&database, &TelemetryHistory, TelemetryEvent::Telemetry(telemetry), "k").await;

    let mut connection = connect(&made).await;
    let sql = "SELECT to_jsonb(t) - 'occurred_at' - 'recorded_at' AS row,
                      occurred_at::text AS occurred, recorded_at::text AS recorded FROM telemetry t";
    let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<&str, _>("occurred"), "2100-01-01 00:00:00+00");
    assert_eq!(row.get::<&str, _>("recorded"), "2026-11-21 12:00:00.001+00");
    let expected = serde_json::json!({
        "site_uid": "werk1", "unit_uid": "NordFTS/0001", "log_partition": 3, "log_offset": 5,
        "event_id": "00000000-0000-0000-0000-000000000007", "channel": "state", "x_m": 1.25, "y_m": null,
        "heading_rad": null, "map_id": null, "latitude_deg": -33.5, "longitude_deg": null, "battery_percent": 80.5,
        "charging": false, "speed_m_s": null, "driving": null, "paused": true, "last_node_id": "n\"1",
        "task_id": "t", "sequence": 41, "sequence_scope": "state#0", "source": "it/1",
        "correlation_id": "00000000-0000-0000-0000-000000000008", "causation_id": null,
        "localized": true, "new_base_request": false, "zone_set_id": "",
        "information": {"wifi\u{2400}": "-66\u{2400}\\u0000"},
    });
    assert_eq!(row.get::<serde_json::Value, _>("row"), expected);
}

#[tokio::test]
async fn events_of_units_and_tasks_come_back_as_they_were() {
    let (made, database) = migrated().await;
    let connected: Connected =
        serde_json::from_value(serde_json::json!({ "meta": serde_json::to_value(meta(1)).unwrap() }))
            .unwrap();
    store(&database, &EventHistory, HistoryEvent::Robot(RobotEvent::Connected(connected)), "k").await;
    let created: Created = serde_json::from_value(serde_json::json!({
        "meta": serde_json::to_value(meta(2)).unwrap(),
        "task_id": "order-1", "task_type": "transport", "priority": 7, "external_id": "ä",
    }))
    .unwrap();
    store(&database, &EventHistory, HistoryEvent::Task(TaskEvent::Created(created)), "order-1").await;

    let mut connection = connect(&made).await;
    let unit: (String, String, i64, serde_json::Value) =
        sqlx::query_as("SELECT unit_uid, event_type, log_offset, payload FROM unit_event")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((unit.0.as_str(), unit.1.as_str(), unit.2), ("NordFTS/0001", "Connected", 5));
    assert!(unit.3.get("meta").is_none(), "the head has columns of its own: {}", unit.3);
    let task: (String, String, String, i64, String) =
        sqlx::query_as("SELECT task_id, event_type, task_type, priority, external_id FROM task_event")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    let expected = ("order-1".into(), "Created".into(), "transport".into(), 7, "ä".into());
    assert_eq!(task, expected);
}
