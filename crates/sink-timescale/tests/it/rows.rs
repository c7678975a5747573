//! Columns of every type as COPY brings them, and how fast.

use std::time::Instant;

use fleetlog_event::{EventId, TimestampMs};
use fleetlog_projection::{
    Chain, Column, Commit, CopyEncoder, HistoryRow, Link, Progress, RowChange, Sink, Table, UnitOfWork,
};
use sqlx::Row;
use uuid::Uuid;

use crate::support::{FreshDatabase, TestRow, lane, log, row, run, unit};

static EVERY: Table = Table {
    name: "every",
    columns: &[
        Column { name: "t", sql_type: "text" },
        Column { name: "mt", sql_type: "text" },
        Column { name: "i4", sql_type: "integer" },
        Column { name: "i8", sql_type: "bigint" },
        Column { name: "mi8", sql_type: "bigint" },
        Column { name: "f8", sql_type: "double precision" },
        Column { name: "b", sql_type: "boolean" },
        Column { name: "at", sql_type: "timestamp with time zone" },
        Column { name: "u", sql_type: "uuid" },
        Column { name: "mu", sql_type: "uuid" },
        Column { name: "j", sql_type: "jsonb" },
    ],
};

/// One of each type.
struct Every {
    full: bool,
    at: TimestampMs,
}

impl HistoryRow for Every {
    fn table(&self) -> &'static Table {
        &EVERY
    }
    fn encode(&self, out: &mut CopyEncoder) {
        let uuid = EventId(Uuid::from_u128(7));
        out.text("ä 🤖 \" ' \\ \n\t");
        out.maybe_text(self.full.then_some(""));
        out.int4(i32::MIN);
        out.int8(i64::MAX);
        out.maybe_int8(self.full.then_some(i64::MIN));
        out.maybe_float8(self.full.then_some(0.1 + 0.2));
        out.maybe_bool(self.full.then_some(true));
        out.timestamptz(self.at);
        out.uuid(uuid);
        out.maybe_uuid(self.full.then_some(uuid));
        out.jsonb(r#"{"b": [1.50, null], "a": "ü"}"#);
    }
    fn sort_key(&self) -> (&str, i64) {
        ("", self.at.0)
    }
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_were() {
    let database = FreshDatabase::migrated().await;
    let mut beside = database.connect().await;
    let columns: Vec<String> = EVERY.columns.iter().map(|c| format!("{} {}", c.name, c.sql_type)).collect();
    run(&mut beside, &format!("CREATE TABLE every ({})", columns.join(", "))).await;
    let times = [
        (TimestampMs(i64::MIN), "-infinity"),
        (TimestampMs(-1), "1969-12-31 23:59:59.999"),
        (TimestampMs(0), "1970-01-01 00:00:00"),
        (TimestampMs(4_102_444_800_123), "2100-01-01 00:00:00.123"),
        (TimestampMs(i64::MAX), "infinity"),
    ];
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let (follows, leaves): (Option<Link>, Link) = chain.next();
    let unit = UnitOfWork {
        lane,
        follows,
        leaves,
        progress: Progress { log: log(), main: 5, inbox: 0, last: None },
        entities: Vec::new(),
        rows: (0..)
            .zip(times)
            .map(|(offset, (at, _))| RowChange { offset, write: Every { full: offset % 2 == 0, at } })
            .collect(),
        set_aside: Vec::new(),
        entries: Vec::new(),
        made_at: TimestampMs(0),
    };
    assert_eq!(database.open().sink().commit(&unit).await.unwrap(), Commit::Applied);

    run(&mut beside, "SET timezone = 'UTC'").await;
    let rows = sqlx::query("SELECT *, at::text AS shown, j::text AS json FROM every ORDER BY at");
    let rows = rows.fetch_all(&mut beside).await.unwrap();
    for (n, (row, (_, shown))) in rows.iter().zip(times).enumerate() {
        let full = n % 2 == 0;
        assert_eq!(row.get::<&str, _>("shown").trim_end_matches("+00"), shown);
        assert_eq!(row.get::<&str, _>("t"), "ä 🤖 \" ' \\ \n\t");
        assert_eq!(row.get::<Option<&str>, _>("mt"), full.then_some(""));
        assert_eq!((row.get::<i32, _>("i4"), row.get::<i64, _>("i8")), (i32::MIN, i64::MAX));
        assert_eq!(row.get::<Option<i64>, _>("mi8"), full.then_some(i64::MIN));
        assert_eq!(row.get::<Option<f64>, _>("f8"), full.then_some(0.1 + 0.2));
        assert_eq!(row.get::<Option<bool>, _>("b"), full.then_some(true));
        assert_eq!(row.get::<Uuid, _>("u"), Uuid::from_u128(7));
        assert_eq!(row.get::<Option<Uuid>, _>("mu"), full.then_some(Uuid::from_u128(7)));
        assert_eq!(row.get::<&str, _>("json"), r#"{"a": "ü", "b": [1.50, null]}"#);
    }
    assert_eq!(rows.len(), times.len());
}

/// Ledger and rows clamp wild times alike.
#[tokio::test]
async fn the_ledgers_times_are_clamped_as_those_of_rows() {
    let database = FreshDatabase::migrated().await;
    let mut beside = database.connect().await;
    run(&mut beside, "SET timezone = 'UTC'").await;
    for (ms, shown) in [
        (i64::MIN, "-infinity"),
        (-210_866_803_200_001, "-infinity"),
        (-210_866_803_200_000, "4714-11-24 00:00:00+00 BC"),
        (0, "1970-01-01 00:00:00+00"),
        (4_102_444_800_123, "2100-01-01 00:00:00.123+00"),
        (9_224_318_016_000_000, "infinity"),
        (i64::MAX, "infinity"),
    ] {
        let text: String = sqlx::query_scalar("SELECT fleetlog_time($1)::text")
            .bind(ms)
            .fetch_one(&mut beside)
            .await
            .unwrap();
        assert_eq!(text, shown, "{ms}");
    }
}

/// Prints how fast rows go in; `bench/` compares with `\copy`. Asserts only that they are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_rows_go_in() {
    let database = FreshDatabase::migrated().await;
    let sink = database.open().sink::<TestRow>();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let mut spent = std::time::Duration::ZERO;
    for batch in 0..10 {
        let offsets = batch * 20_000..(batch + 1) * 20_000;
        let mut rows: Vec<_> = offsets.map(|offset| row(&lane, offset, 1)).collect();
        for row in &mut rows {
            row.unit = format!("unit-{}", row.offset.wrapping_mul(7919).rem_euclid(10_000));
        }
        let unit = unit(&lane, &mut chain, rows);
        let began = Instant::now();
        assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
        spent += began.elapsed();
        chain.written(unit.leaves);
    }
    println!("200000 rows in {spent:?}: {:.0} rows/s", 200_000.0 / spent.as_secs_f64());
    let count = crate::support::number(&mut database.connect().await, "SELECT count(*) FROM telemetry").await;
    assert_eq!(count, 200_000);
}
