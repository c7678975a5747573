//! What people ask of a unit or task: now, in the past, and why. The binary on real servers.

use std::{collections::BTreeMap, sync::LazyLock};

use jiff::{civil::Date, tz::TimeZone};
use serde_json::{Value, json};
use sqlx::Row;

use fleetlog_testkit::{Fleetlog, Output, redis_connection};
use fleetlog_tests::{LIMIT, World};

/// A fleet of which a test knows each event and where it lies.
struct Fleet {
    world: World,
    /// What `emit` said of each event, in order.
    emitted: Vec<Value>,
}

const HOUR_MS: i64 = 3_600_000;
/// The day of the events, as dates are written, and its noon. Yesterday: topic `telemetry` forgets what is a week old.
static DAY: LazyLock<Date> =
    LazyLock::new(|| jiff::Timestamp::now().to_zoned(TimeZone::UTC).date().yesterday().unwrap());
static NOON_MS: LazyLock<i64> =
    LazyLock::new(|| DAY.at(12, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond());

/// A time of that day, such as `14:00:00.000Z`.
fn at(time: &str) -> String {
    format!("{}T{time}", *DAY)
}

impl Fleet {
    async fn new(label: &str) -> Self {
        Self { world: World::new(label).await, emitted: Vec::new() }
    }

    /// Sends an event of a unit, taken in so many ms after noon.
    async fn emit(&mut self, event: &str, (site, unit): (&str, &str), at_ms: i64, facts: Value) {
        let mut facts = facts;
        facts["meta"] = json!({
            "site_uid": site, "unit_uid": unit, "occurred_at": 0, "recorded_at": *NOON_MS + at_ms, "source": "it/1",
        });
        self.emitted.push(self.world.json(&["emit", event, "--json", &facts.to_string()]).await);
    }

    /// A fault with everything that CSV has to quote.
    async fn fault(&mut self, unit: (&str, &str), at_ms: i64) {
        let description = "in the way: \"x\", y\nand more";
        let facts = json!({"fault_id": "f1", "fault_type": "blocked", "level": "warning",
                           "description": description, "references": {}});
        self.emit("FaultRaised", unit, at_ms, facts).await;
    }

    /// Lets the projections take everything.
    async fn settle(&self) {
        self.world.ok(&["run", "--once"]).await;
    }
}

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn types(text: &str) -> Vec<String> {
    lines(text).iter().map(|row| row["event_type"].as_str().unwrap().to_owned()).collect()
}

async fn run(fleetlog: &Fleetlog, args: &[&str]) -> Output {
    fleetlog.run(args, LIMIT).await.unwrap()
}

/// Unit 7 of two sites: that of 504 has a fault; that of 505 left, and its stale last will came after that.
async fn two_sites(label: &str) -> Fleet {
    let mut fleet = Fleet::new(label).await;
    let (first, second) = (("504", "7"), ("505", "7"));
    fleet.emit("Connected", first, 0, json!({})).await;
    fleet.emit("Connected", second, HOUR_MS, json!({})).await;
    // The clock was turned back by an hour: later on the log, earlier by its time.
    fleet.emit("ModeChanged", first, -HOUR_MS, json!({"mode": "manual"})).await;
    fleet.fault(first, 2 * HOUR_MS).await;
    fleet.emit("Decommissioned", second, 2 * HOUR_MS, json!({"reason": "sold"})).await;
    fleet.emit("Disconnected", second, 3 * HOUR_MS, json!({"reason": "broken"})).await;
    fleet
        .emit("telemetry.Telemetry", first, 3 * HOUR_MS, json!({"battery_percent": 80.5, "charging": false}))
        .await;
    let position = json!({"map_id": "hall", "x_m": 1.5, "y_m": -2.25, "driving": true});
    fleet.emit("telemetry.Telemetry", first, 3 * HOUR_MS + 1_000, position).await;
    fleet.settle().await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_shown_by_both_stores_and_by_one_where_the_other_is_down() {
    let fleet = two_sites("show").await;
    let world = &fleet.world;
    let shown = world.json(&["unit", "show", "s504.u7"]).await;
    assert_eq!(
        (&shown["status"]["connection"], &shown["status"]["mode"]),
        (&json!("online"), &json!("manual"))
    );
    assert_eq!(shown["last_telemetry"]["battery_percent"], "80.5");
    assert_eq!(shown["last_heard"]["status"], at("14:00:00.000Z"));
    assert_eq!(shown["last_heard"]["last_telemetry"], at("15:00:01.000Z"));
    let events: Vec<&Value> = shown["events"].as_array().unwrap().iter().map(|e| &e["event_type"]).collect();
    assert_eq!(events, ["Connected", "ModeChanged", "FaultRaised"], "in log order");
    let text = world.ok(&["unit", "show", "s504.u7", "--events", "1"]).await;
    for part in [&*format!("last heard {}", at("14:00:00.000Z")), "FaultRaised", "80.5", "last events"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("ModeChanged"), "{text}");

    let unknown = world.fails(1, &["unit", "show", "s506.u7"]).await.stderr;
    assert!(unknown.contains("no unit `s506.u7`") && unknown.contains("s504.u7, s505.u7"), "{unknown}");
    let unknown = world.fails(1, &["unit", "show", "s504.u17"]).await.stderr;
    assert!(unknown.contains("is it one of these? s504.u7"), "{unknown}");

    let no_redis = world.fleetlog.clone().env("FLEETLOG_REDIS__URL", "redis://127.0.0.1:1/0");
    let by_history = run(&no_redis, &["unit", "show", "s504.u7", "--format", "json"]).await;
    assert_eq!(by_history.code(), Some(3), "{}", by_history.stderr);
    assert!(by_history.stderr.contains("hot state cannot be read (redis at"), "{}", by_history.stderr);
    let shown: Value = serde_json::from_str(&by_history.stdout).unwrap();
    assert_eq!((&shown["status"], &shown["by_history"]["connection"]), (&Value::Null, &json!("online")));
    assert_eq!(shown["events"].as_array().unwrap().len(), 3);
    let text = run(&no_redis, &["unit", "show", "s504.u7"]).await.stdout;
    assert!(text.contains("by history") && text.contains("manual"), "{text}");

    let no_postgres = world.fleetlog.clone().env("FLEETLOG_POSTGRES__URL", "postgres://x@127.0.0.1:1/x");
    let by_hot = run(&no_postgres, &["unit", "show", "s504.u7"]).await;
    assert_eq!(by_hot.code(), Some(3), "{}", by_hot.stderr);
    assert!(by_hot.stderr.contains("history cannot be read (postgresql at"), "{}", by_hot.stderr);
    assert!(by_hot.stdout.contains("online") && !by_hot.stdout.contains("FaultRaised"), "{}", by_hot.stdout);
    let untold = run(&no_postgres, &["unit", "show", "s504.u8"]).await;
    assert_eq!(untold.code(), Some(3), "nobody knows whether history knows it: {}", untold.stderr);
    let neither = no_postgres.env("FLEETLOG_REDIS__URL", "redis://127.0.0.1:1/0");
    let nothing = run(&neither, &["unit", "show", "s504.u7"]).await;
    assert_eq!((nothing.code(), nothing.stdout.as_str()), (Some(3), ""), "{}", nothing.stderr);
    fleet_now_says_what_hot_state_says(world).await;
}

/// Connection, reason and mode of every unit, and what one of them measured, by view `fleet_now` and by hot state.
async fn fleet_now_says_what_hot_state_says(world: &World) {
    let by_hot: BTreeMap<String, String> = world
        .json(&["unit", "list"])
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| {
            let told = ["connection", "mode", "faults"].map(|field| unit[field].as_str().unwrap().to_owned());
            (unit["unit"].as_str().unwrap().to_owned(), told.join(" "))
        })
        .collect();
    let sql =
        "SELECT 's' || site_uid || '.u' || unit_uid, connection || ' ' || coalesce(mode, '') || ' ' || faults
               FROM fleet_now";
    let rows = sqlx::query(sql).fetch_all(&mut world.postgres().await).await.unwrap();
    let by_history: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(by_history, by_hot);
    assert_eq!(by_hot["s505.u7"], "decommissioned  0", "a stale last will changes nothing");

    let shown = world.json(&["unit", "show", "s504.u7"]).await;
    let measured = ["battery_percent", "charging", "driving", "map_id", "x_m", "y_m"];
    let by_hot = measured.map(|field| shown["last_telemetry"][field].as_str().unwrap().to_owned());
    let sql =
        format!("SELECT ARRAY[{}::text] FROM fleet_now WHERE site_uid = '504'", measured.join("::text, "));
    let by_history: Vec<String> =
        sqlx::query_scalar(&sql).fetch_one(&mut world.postgres().await).await.unwrap();
    assert_eq!(by_history, by_hot, "{measured:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_goes_by_ranges_types_and_formats() {
    let fleet = two_sites("past").await;
    let world = &fleet.world;
    let asked = async |args: &[&str]| {
        types(&world.ok(&[&["history", "s504.u7", "--format", "json"], args].concat()).await)
    };
    let all = ["Connected", "ModeChanged", "FaultRaised"];
    assert_eq!(asked(&[]).await, all, "in log order, whatever the clock said; of this site alone");
    assert_eq!(asked(&["--since", &at("12:00:00Z")]).await, ["Connected", "FaultRaised"]);
    assert_eq!(asked(&["--until", &at("12:00:00Z")]).await, ["ModeChanged"]);
    assert_eq!(
        asked(&["--since", &DAY.to_string(), "--until", &DAY.tomorrow().unwrap().to_string()]).await,
        all
    );
    assert_eq!(asked(&["--from", &at("12:00:00Z"), "--to", &at("13:00:00Z")]).await, ["Connected"]);
    assert_eq!(asked(&["--type", "ModeChanged,fleetlog.robot.Connected"]).await, all[..2]);
    assert_eq!(asked(&["--limit", "1"]).await, ["FaultRaised"], "the newest");
    let cut = run(&world.fleetlog, &["history", "s504.u7", "--limit", "2"]).await;
    assert!(cut.stderr.contains("the newest 2 shown"), "{}", cut.stderr);
    let whole = run(&world.fleetlog, &["history", "s504.u7", "--limit", "3"]).await;
    assert_eq!(whole.stderr, "", "there is nothing more");

    let csv = world.ok(&["history", "s504.u7", "--all", "--format", "csv"]).await;
    let mut csv = csv::Reader::from_reader(csv.as_bytes());
    let head: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
    let payload = head.iter().position(|name| name == "payload").unwrap();
    assert_eq!((head[0].as_str(), head.len()), ("recorded_at", 19));
    let records: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0][0], at("12:00:00+00:00"));
    let fault: Value = serde_json::from_str(&records[2][payload]).unwrap();
    assert_eq!(fault["description"], "in the way: \"x\", y\nand more");

    let telemetry = lines(&world.ok(&["history", "s504.u7", "--telemetry", "--format", "json"]).await);
    assert_eq!((telemetry.len(), &telemetry[0]["battery_percent"]), (2, &json!(80.5)));
    for (code, args, said) in [
        (2, &["--since", "soon"][..], "not a time: give RFC 3339"),
        (2, &["--since", "2026-11-22", "--until", "2026-11-21"], "is not before"),
        (2, &["--type", "Created"], "no event of a unit is called `Created`"),
        (2, &["--limit", "0"], "0 is not in 1.."),
        (1, &["--until", "2020-01-01"], "has nothing of `s504.u7` in that range"),
    ] {
        let told = world.fails(code, &[&["history", "s504.u7"], args].concat()).await.stderr;
        assert!(told.contains(said), "{args:?}: {told}");
    }
    let elsewhere = world.fails(2, &["unit", "list", "--format", "csv"]).await.stderr;
    assert!(elsewhere.contains("only `fleetlog history` prints CSV"), "{elsewhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_is_explained_by_the_event_that_set_it() {
    let mut fleet = two_sites("why").await;
    let task =
        json!({"task_id": "T1", "task_type": "transport", "priority": 2, "steps": [], "parameters": {}});
    fleet.emit("task.Created", ("504", "7"), 0, task).await;
    fleet.emit("task.Assigned", ("504", "8"), 10, json!({"task_id": "T1"})).await;
    fleet
        .emit(
            "task.Created",
            ("504", "7"),
            20,
            json!({"task_id": "T1", "task_type": "again", "priority": 1,
                                                      "steps": [], "parameters": {}}),
        )
        .await;
    fleet.emit("telemetry.Telemetry", ("504", "7"), 4 * HOUR_MS, json!({"x_m": 1.0})).await;
    fleet.settle().await;
    let world = &fleet.world;
    for (subject, field, emitted, before, value) in [
        ("s504.u7", "mode", 2, Value::Null, json!("manual")),
        ("s504.u7", "fault_count", 3, json!("0"), json!("1")),
        ("s505.u7", "connection", 4, json!("online"), json!("decommissioned")),
        ("s504.u7", "battery_percent", 6, Value::Null, json!("80.5")),
        (
            "s504.u7",
            "recorded_at_ms",
            11,
            json!((*NOON_MS + 3 * HOUR_MS + 1_000).to_string()),
            json!((*NOON_MS + 4 * HOUR_MS).to_string()),
        ),
        ("T1", "state", 9, json!("created"), json!("assigned")),
        ("T1", "task_type", 8, Value::Null, json!("transport")),
        ("T1", "status", 9, json!("created"), json!("assigned")),
        ("T1", "assigned_at", 9, Value::Null, json!("1970-01-01T00:00:00.000Z")),
    ] {
        let explained = world.json(&["explain", subject, field]).await;
        let (change, at) = (&explained["changes"][0], &fleet.emitted[emitted]);
        assert_eq!((&change["value"], &change["before"]), (&value, &before), "{field}: {explained:#}");
        for name in ["topic", "partition", "offset", "event_id"] {
            assert_eq!(change[name], at[name], "{field} {name}");
        }
        assert_eq!((&explained["verdict"], &change["source"]), (&json!("agrees"), &json!("it/1")), "{field}");
        assert_eq!(change["before_is_told"], true, "{field}: {explained:#}");
    }
    let all = world.json(&["explain", "s505.u7", "connection", "--all"]).await;
    assert_eq!(all["changes"].as_array().unwrap().len(), 2, "{all:#}");
    let text = world.ok(&["explain", "s505.u7", "connection"]).await;
    for part in ["fleetlog.robot.Decommissioned", &*at("14:00:00.000Z"), "it/1", "online", "offset"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    what_cannot_be_explained_is_said(world).await;
    without_history_and_against_a_wrong_store(world, &fleet.emitted[2]).await;
}

async fn what_cannot_be_explained_is_said(world: &World) {
    let unknown = world.fails(2, &["explain", "s504.u7", "colour"]).await.stderr;
    assert!(
        unknown.contains("fields of unit-status: site_uid") && unknown.contains("battery_percent"),
        "{unknown}"
    );
    let task = world.fails(2, &["explain", "T1", "colour"]).await.stderr;
    assert!(task.contains("task-ledger: task_id") && !task.contains("battery_percent"), "{task}");
    assert!(world.fails(1, &["explain", "T9", "state"]).await.stderr.contains("knows `T9`"));
    assert!(
        world
            .fails(2, &["explain", "T1", "state", "--projection", "x"])
            .await
            .stderr
            .contains("task-state, task-ledger")
    );
    let chosen = world.json(&["explain", "T1", "unit_uid", "--projection", "task-ledger"]).await;
    assert_eq!((&chosen["projection"], &chosen["value"]), (&json!("task-ledger"), &json!("8")));
}

/// Without history the log is read from its beginning, and the answer is the same; a store that holds something else is told.
async fn without_history_and_against_a_wrong_store(world: &World, mode_changed: &Value) {
    let no_postgres = world.fleetlog.clone().env("FLEETLOG_POSTGRES__URL", "postgres://x@127.0.0.1:1/x");
    let alone = run(&no_postgres, &["explain", "s504.u7", "mode", "--format", "json"]).await;
    assert_eq!(alone.code(), Some(0), "{}", alone.stderr);
    assert!(alone.stderr.contains("reading the log from its beginning"), "{}", alone.stderr);
    let explained: Value = serde_json::from_str(&alone.stdout).unwrap();
    assert_eq!(explained["changes"][0]["offset"], mode_changed["offset"]);

    let mut redis = redis_connection(&world.redis_url).await.unwrap();
    let key = format!("{}unit:s504.u7", world.prefix);
    redis::cmd("HSET").arg(key).arg("mode").arg("x").exec_async(&mut redis).await.unwrap();
    let wrong = world.fails(1, &["explain", "s504.u7", "mode"]).await;
    assert!(wrong.stderr.contains("the store holds `x`, the log says `manual`"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("fleetlog verify --projection unit-status"), "{}", wrong.stderr);
    assert!(wrong.stdout.contains("ModeChanged"), "{}", wrong.stdout);
}
