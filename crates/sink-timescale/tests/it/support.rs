//! Databases and rows for tests.

use std::{sync::OnceLock, time::Duration};

use fleetlog_event::{EventId, LogId, TimestampMs};
use fleetlog_projection::{
    Chain, Column, CopyEncoder, EntityRow, HistoryRow, LaneId, Progress, RowChange, Table, UnitOfWork,
};
use fleetlog_sink_timescale::{ConnectionSettings, Database, Migrator};
use fleetlog_testkit::Stack;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// The stack's PostgreSQL.
pub(crate) fn stack_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| Stack::from_env().postgres_url)
}

/// The URL with another database.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (server, _) = base.rsplit_once('/').unwrap();
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("{server}/{database}{query}")
}

/// The URL with another address.
pub(crate) fn with_address(url: &str, address: &str) -> String {
    let (before, rest) = url.split_once('@').unwrap();
    let (_, after) = rest.split_once('/').unwrap();
    format!("{before}@{address}/{after}")
}

/// `host:port` of the URL.
pub(crate) fn address_of(url: &str) -> String {
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned()
}

/// A database of one's own, dropped in the end.
pub(crate) struct FreshDatabase {
    pub(crate) url: String,
    _made: fleetlog_testkit::Database,
}

impl FreshDatabase {
    pub(crate) async fn new() -> Self {
        Self::on(stack_url()).await
    }

    /// On another server.
    pub(crate) async fn on(server: &str) -> Self {
        let made = fleetlog_testkit::Database::on(server).await.unwrap();
        Self { url: made.url().to_owned(), _made: made }
    }

    /// With the schema as this version wants it.
    pub(crate) async fn migrated() -> Self {
        Self::migrated_on(stack_url()).await
    }

    /// The same on another server.
    pub(crate) async fn migrated_on(server: &str) -> Self {
        let fresh = Self::on(server).await;
        Migrator::new(&fresh.open()).apply().await.unwrap();
        fresh
    }

    /// As a process opens it.
    pub(crate) fn open(&self) -> Database {
        open(&self.url, Duration::from_secs(20))
    }

    /// A connection beside fleetlog's.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }
}

/// Opens a database with a limit for statements.
pub(crate) fn open(url: &str, timeout: Duration) -> Database {
    Database::new(&ConnectionSettings { url: url.to_owned(), connections_max: 4, timeout }).unwrap()
}

/// Runs SQL that must succeed.
pub(crate) async fn run(connection: &mut PgConnection, sql: &str) {
    if let Err(error) = sqlx::Executor::execute(connection, sqlx::raw_sql(sql)).await {
        panic!("{sql}: {error}");
    }
}

/// Asks for one number.
pub(crate) async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

/// A row of `telemetry` with what the suite needs of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TestRow {
    pub(crate) recorded_at: TimestampMs,
    pub(crate) site: String,
    pub(crate) unit: String,
    pub(crate) offset: i64,
    pub(crate) value: i64,
    pub(crate) source: String,
}

static TEST_TABLE: Table = Table {
    name: "telemetry",
    columns: &[
        Column { name: "recorded_at", sql_type: "timestamp with time zone" },
        Column { name: "occurred_at", sql_type: "timestamp with time zone" },
        Column { name: "site_uid", sql_type: "text" },
        Column { name: "unit_uid", sql_type: "text" },
        Column { name: "log_partition", sql_type: "integer" },
        Column { name: "log_offset", sql_type: "bigint" },
        Column { name: "event_id", sql_type: "uuid" },
        Column { name: "sequence", sql_type: "bigint" },
        Column { name: "source", sql_type: "text" },
    ],
};

impl HistoryRow for TestRow {
    fn table(&self) -> &'static Table {
        &TEST_TABLE
    }
    fn encode(&self, out: &mut CopyEncoder) {
        out.timestamptz(self.recorded_at);
        out.timestamptz(TimestampMs(0));
        out.text(&self.site);
        out.text(&self.unit);
        out.int4(0);
        out.int8(self.offset);
        out.uuid(EventId(Uuid::from_u128(u128::from(self.offset.cast_unsigned()))));
        out.maybe_int8(Some(self.value));
        out.text(&self.source);
    }
    fn sort_key(&self) -> (&str, i64) {
        (&self.unit, self.recorded_at.0)
    }
}

/// A row of a fold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TestEntity {
    pub(crate) home: String,
    pub(crate) value: i64,
}

static TEST_ENTITY: Table = Table {
    name: "test_entity",
    columns: &[Column { name: "home", sql_type: "text" }, Column { name: "value", sql_type: "bigint" }],
};

/// Makes its table, which is not one of the schema's.
pub(crate) const TEST_ENTITY_TABLE: &str = "
    CREATE TABLE test_entity (
        home text NOT NULL PRIMARY KEY, value bigint NOT NULL, fold_log uuid NOT NULL, fold_partition integer NOT NULL,
        fold_next bigint NOT NULL, fold_revision integer NOT NULL, fold_state text NOT NULL
    )";

impl HistoryRow for TestEntity {
    fn table(&self) -> &'static Table {
        &TEST_ENTITY
    }
    fn encode(&self, out: &mut CopyEncoder) {
        out.text(&self.home);
        out.int8(self.value);
    }
    fn sort_key(&self) -> (&str, i64) {
        (&self.home, 0)
    }
}

impl EntityRow for TestEntity {
    const TABLE: &'static Table = &TEST_ENTITY;
}

/// 2026-11-21T12:00:00Z
pub(crate) const NOON: TimestampMs = TimestampMs(1_795_262_400_000);

/// A row of the lane's event at `offset`.
pub(crate) fn row(lane: &LaneId, offset: i64, value: i64) -> TestRow {
    TestRow {
        recorded_at: TimestampMs(NOON.0 + offset),
        site: lane.to_string(),
        unit: format!("u{}", offset % 7),
        offset,
        value,
        source: "it/1".into(),
    }
}

/// A row that no PostgreSQL takes.
pub(crate) fn refused_row(lane: &LaneId, offset: i64) -> TestRow {
    TestRow { source: "with \0 in it".into(), ..row(lane, offset, -1) }
}

/// A lane never used before.
pub(crate) fn lane() -> LaneId {
    let topic = format!("it-{}", Uuid::now_v7().simple());
    LaneId { projection: "it".into(), version: 1, topic, partition: 0 }
}

/// A log of the tests.
pub(crate) fn log() -> LogId {
    LogId(Uuid::from_u128(0x106))
}

/// A unit of work on the chain with these rows.
pub(crate) fn unit(lane: &LaneId, chain: &mut Chain, rows: Vec<TestRow>) -> UnitOfWork<TestRow> {
    let (follows, leaves) = chain.next();
    let rows: Vec<_> = rows.into_iter().map(|write| RowChange { offset: write.offset, write }).collect();
    let main = rows.iter().map(|row| row.offset + 1).max().unwrap_or_default();
    UnitOfWork {
        lane: lane.clone(),
        follows,
        leaves,
        progress: Progress { log: log(), main, inbox: 0, last: None },
        entities: Vec::new(),
        rows,
        set_aside: Vec::new(),
        entries: Vec::new(),
        made_at: NOON,
    }
}
