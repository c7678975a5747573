//! The facts that a third party counted over the recording (`facts_A.json`), answered by SQL over history and by
//! Redis hashes over hot state, after `import`, `run --once` and `verify` of the binary.

use std::collections::BTreeMap;

use fleetlog_vda5050::unit_and_order_of;
use serde_json::{Value, json};

use crate::import_rig::{RECORDING, Rig, file};

mod views;

/// Vehicle → what was answered. A vehicle without a row has `null` here.
type Answers = BTreeMap<String, Value>;

/// One fact: its name in `facts_A.json` (a path with `/`), what a vehicle without rows has, and the query.
struct Question {
    fact: &'static str,
    none: Value,
    sql: String,
}

fn question(fact: &'static str, none: Value, sql: impl Into<String>) -> Question {
    Question { fact, none, sql: sql.into() }
}

/// A vehicle's name in the facts: interface, maker, serial number.
const VEHICLE: &str = "site_uid || '/' || unit_uid";

/// The value of an expression in a vehicle's last `state` message.
fn last_state(expression: &str) -> String {
    format!(
        "SELECT DISTINCT ON (site_uid, unit_uid) {VEHICLE}, to_json({expression}) FROM telemetry
         WHERE channel = 'state' ORDER BY site_uid, unit_uid, log_offset DESC"
    )
}

/// The value of an expression in a vehicle's last event of a type.
fn last_event(event_type: &str, expression: &str) -> String {
    format!(
        "SELECT DISTINCT ON (site_uid, unit_uid) {VEHICLE}, to_json({expression}) FROM unit_event
         WHERE event_type = '{event_type}' ORDER BY site_uid, unit_uid, log_offset DESC"
    )
}

/// How many rows of a table satisfy a condition.
fn count(table: &str, condition: &str) -> String {
    format!("SELECT {VEHICLE}, to_json(count(*)) FROM {table} WHERE {condition} GROUP BY 1")
}

/// An object: how many (of `counted`) there are by the value of an expression.
fn count_by(table: &str, condition: &str, by: &str, counted: &str) -> String {
    format!(
        "SELECT vehicle, json_object_agg(by_what, n) FROM
           (SELECT {VEHICLE} AS vehicle, {by} AS by_what, count({counted}) AS n FROM {table}
            WHERE {condition} GROUP BY 1, 2) AS counts GROUP BY 1"
    )
}

/// The sorted order ids of tasks that have an event which satisfies a condition.
fn orders_with(condition: &str) -> String {
    format!(
        "SELECT {VEHICLE}, json_agg(external_id ORDER BY external_id COLLATE \"C\") FROM task_event AS created
         WHERE event_type = 'Created'
           AND EXISTS (SELECT FROM task_event AS own WHERE own.task_id = created.task_id AND {condition})
         GROUP BY 1"
    )
}

fn telemetry_questions() -> Vec<Question> {
    let position = "CASE WHEN map_id IS NULL THEN NULL
                    ELSE json_build_object('mapId', map_id, 'x', x_m, 'y', y_m, 'theta', heading_rad) END";
    vec![
        question("counts/state", json!(0), count("telemetry", "channel = 'state'")),
        question("counts/visualization", json!(0), count("telemetry", "channel = 'visualization'")),
        question("final_battery_charge", Value::Null, last_state("battery_percent")),
        question("final_charging", Value::Null, last_state("charging")),
        question("final_last_node_id", Value::Null, last_state("last_node_id")),
        question("final_driving", Value::Null, last_state("driving")),
        question("final_paused", Value::Null, last_state("paused")),
        question("final_state_header_id", Value::Null, last_state("sequence")),
        question("final_agv_position", Value::Null, last_state(position)),
        question("final_order_id", Value::Null, last_state("task_id")),
        question(
            "battery_min_max",
            Value::Null,
            format!(
                "SELECT {VEHICLE}, json_build_array(min(battery_percent), max(battery_percent)) FROM telemetry
                 WHERE channel = 'state' GROUP BY 1"
            ),
        ),
    ]
}

fn unit_questions() -> Vec<Question> {
    let connection =
        "CASE WHEN event_type = 'Connected' THEN 'ONLINE' WHEN reason = 'graceful' THEN 'OFFLINE'
                      WHEN reason = 'broken' THEN 'CONNECTIONBROKEN' END";
    let of_connection = "event_type IN ('Connected', 'Disconnected')";
    vec![
        question(
            "final_connection_state",
            Value::Null,
            format!(
                "SELECT DISTINCT ON (site_uid, unit_uid) {VEHICLE}, to_json({connection}) FROM unit_event
                 WHERE {of_connection} ORDER BY site_uid, unit_uid, log_offset DESC"
            ),
        ),
        question(
            // What a replay told has no sequence.
            "connection_sequence_live",
            json!([]),
            format!(
                "SELECT {VEHICLE}, json_agg({connection} ORDER BY log_offset) FROM unit_event
                 WHERE {of_connection} AND sequence IS NOT NULL GROUP BY 1"
            ),
        ),
        question("final_operating_mode", Value::Null, last_event("ModeChanged", "upper(mode)")),
        question(
            "final_e_stop",
            Value::Null,
            last_event("SafetyChanged", "upper(replace(payload ->> 'emergency_stop', '_', ''))"),
        ),
        question(
            "distinct_errors",
            json!({}),
            count_by("unit_event", "event_type = 'FaultRaised'", "fault_type", "DISTINCT fault_id"),
        ),
        question(
            "error_onsets",
            json!({}),
            count_by("unit_event", "event_type = 'FaultRaised'", "fault_type", "*"),
        ),
        question(
            "final_error_types",
            json!([]),
            format!(
                "SELECT vehicle, json_agg(fault_type ORDER BY fault_type COLLATE \"C\") FROM
                   (SELECT DISTINCT ON (site_uid, unit_uid, fault_id) {VEHICLE} AS vehicle, event_type, fault_type
                    FROM unit_event WHERE event_type IN ('FaultRaised', 'FaultCleared')
                    ORDER BY site_uid, unit_uid, fault_id, log_offset DESC) AS faults
                 WHERE event_type = 'FaultRaised' GROUP BY 1"
            ),
        ),
        question(
            "instant_actions",
            json!({}),
            count_by("unit_event", "event_type = 'ActionRequested'", "payload ->> 'action_type'", "*"),
        ),
    ]
}

fn task_questions() -> Vec<Question> {
    let of_type = |event_type: &str| count("task_event", &format!("event_type = '{event_type}'"));
    let accepted =
        "EXISTS (SELECT FROM task_event AS a WHERE a.task_id = own.task_id AND a.event_type = 'Assigned')
                    AND NOT EXISTS (SELECT FROM task_event AS o WHERE o.task_id = own.task_id
                                    AND o.event_type IN ('Completed', 'Cancelled', 'Failed'))";
    let unanswered = "event_type = 'Created' AND NOT EXISTS (SELECT FROM task_event AS answer
                      WHERE answer.task_id = task_event.task_id AND answer.event_type IN ('Assigned', 'Rejected'))";
    vec![
        question("orders_seen", json!(0), of_type("Created")),
        question("orders_accepted", json!(0), of_type("Assigned")),
        question("orders_completed", json!(0), of_type("Completed")),
        question("orders_lost", json!(0), of_type("Failed")),
        question("rejections", json!(0), of_type("Rejected")),
        question(
            "orders_cancelled",
            json!(0),
            count("task_event", "event_type = 'Cancelled' AND reason = 'requested'"),
        ),
        question(
            "orders_superseded",
            json!(0),
            count("task_event", "event_type = 'Cancelled' AND reason = 'superseded'"),
        ),
        question(
            "orders_completed_with_failed_action",
            json!(0),
            count("task_event", "event_type = 'Completed' AND (payload ->> 'failed_steps')::int > 0"),
        ),
        question("orders_without_any_answer", json!(0), count("task_event", unanswered)),
        question(
            "rejections_by_type",
            json!({}),
            count_by("task_event", "event_type = 'Rejected'", "reason", "*"),
        ),
        question("completed_order_ids", json!([]), orders_with("event_type = 'Completed'")),
        question(
            "cancelled_order_ids",
            json!([]),
            orders_with("event_type = 'Cancelled' AND reason = 'requested'"),
        ),
        question(
            "superseded_order_ids",
            json!([]),
            orders_with("event_type = 'Cancelled' AND reason = 'superseded'"),
        ),
        question("lost_order_ids", json!([]), orders_with("event_type = 'Failed' AND reason = 'lost'")),
        question("open_order_ids", json!([]), orders_with(accepted)),
    ]
}

/// The same of the ledger, which is a fold: as hot state has it, but for ever.
fn ledger_questions() -> Vec<Question> {
    let tasks = |of: &str| count("t_app_task_ledger2", of);
    vec![
        question("orders_seen", json!(0), tasks("true")),
        question("orders_accepted", json!(0), tasks("assignments > 0")),
        question("orders_completed", json!(0), tasks("status = 'completed'")),
        question(
            "orders_cancelled",
            json!(0),
            tasks("status = 'cancelled' AND failure_reason = 'requested'"),
        ),
        question(
            "orders_superseded",
            json!(0),
            tasks("status = 'cancelled' AND failure_reason = 'superseded'"),
        ),
        question("orders_lost", json!(0), tasks("status = 'failed' AND failure_reason = 'lost'")),
    ]
}

fn counter_questions() -> Vec<Question> {
    let counters = |channel: &str, table: &str| {
        format!(
            "SELECT {VEHICLE}, json_build_object('gaps', gaps, 'missing', missing, 'resets', resets, 'repeats', repeats)
             FROM {table} AS counters WHERE channel = '{channel}'"
        )
    };
    // The query of docs/vda5050.md, word for word.
    let manual = std::fs::read_to_string(file("docs/vda5050.md")).unwrap();
    let documented = manual.split("```sql").nth(1).expect("docs/vda5050.md has a query in SQL");
    let documented = documented.split("```").next().unwrap().trim().trim_end_matches(';');
    let documented = documented.replacen("SELECT unit_uid", "SELECT site_uid, unit_uid", 1);
    let none = json!({"gaps": 0, "missing": 0, "resets": 0, "repeats": 0});
    vec![
        question("header_id/state", none.clone(), counters("state", "unit_gaps")),
        question("header_id/visualization", none.clone(), counters("visualization", "unit_gaps")),
        question("header_id/connection", none.clone(), counters("connection", "unit_gaps")),
        question("header_id/state", none.clone(), counters("state", &format!("({documented})"))),
        question("header_id/visualization", none, counters("visualization", &format!("({documented})"))),
    ]
}

/// What the facts say, in the form in which it is asked.
fn expected(vehicle: &Value, question: &Question) -> Value {
    let fact = question.fact.split('/').fold(vehicle, |value, step| &value[step]);
    match (fact, question.fact) {
        // A channel on which the vehicle never spoke has no counters.
        (Value::Null, fact) if fact.starts_with("header_id/") || fact.starts_with("counts/") => {
            question.none.clone()
        }
        (Value::Array(ids), fact) if fact.ends_with("_order_ids") || fact == "final_error_types" => {
            let mut ids: Vec<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
            ids.sort_unstable();
            json!(ids)
        }
        (Value::Object(position), "final_agv_position") => {
            let mut position = position.clone();
            position.retain(|field, _| ["mapId", "x", "y", "theta"].contains(&field.as_str()));
            Value::Object(position)
        }
        _ => fact.clone(),
    }
}

/// The order that a task stands for; an empty text stands for itself.
fn order_of(task_id: &Value) -> Value {
    match task_id.as_str() {
        None | Some("") => task_id.clone(),
        Some(task_id) => json!(unit_and_order_of(task_id).unwrap().1),
    }
}

/// Differences between what was asked and the facts, one text each.
fn compare(
    source: &str,
    question: &Question,
    mut answers: Answers,
    facts: &Value,
    differences: &mut Vec<String>,
) {
    for (vehicle, facts) in facts["agvs"].as_object().unwrap() {
        let mut answer = answers.remove(vehicle).unwrap_or_else(|| question.none.clone());
        if question.fact == "final_order_id" {
            answer = order_of(&answer);
        }
        let expected = expected(facts, question);
        if answer != expected {
            differences.push(format!(
                "{source}, {vehicle}, {}: answered {answer}, the facts say {expected}",
                question.fact
            ));
        }
    }
    for (vehicle, answer) in answers {
        differences.push(format!("{source}, {}: unknown vehicle {vehicle} with {answer}", question.fact));
    }
}

fn vehicle_of(hash: &BTreeMap<String, String>) -> String {
    format!("{}/{}", hash["site_uid"], hash["unit_uid"])
}

/// What the hashes of a unit say.
async fn ask_units(rig: &Rig, facts: &Value, differences: &mut Vec<String>) {
    let hashes = rig.hashes("unit:").await;
    assert_eq!(hashes.len(), 24, "hashes of unit-status");
    let mut ask = |fact, none: Value, answer: &dyn Fn(&BTreeMap<String, String>) -> Value| {
        let answers = hashes.iter().map(|hash| (vehicle_of(hash), answer(hash))).collect();
        compare("Redis unit:…", &question(fact, none, ""), answers, facts, differences);
    };
    ask("final_connection_state", Value::Null, &|hash| match (
        hash["connection"].as_str(),
        hash.get("disconnect_reason").map(String::as_str),
    ) {
        ("online", None) => json!("ONLINE"),
        ("offline", Some("graceful")) => json!("OFFLINE"),
        ("offline", Some("broken")) => json!("CONNECTIONBROKEN"),
        other => json!(format!("{other:?}")),
    });
    ask("final_operating_mode", Value::Null, &|hash| json!(hash["mode"].to_uppercase()));
    ask("final_e_stop", Value::Null, &|hash| json!(hash["emergency_stop"].to_uppercase().replace('_', "")));
    ask("error_onsets", json!({}), &|hash| {
        hash.get("fault_onsets").map_or(json!({}), |onsets| serde_json::from_str(onsets).unwrap())
    });
    ask("final_error_types", json!([]), &|hash| {
        let faults: Vec<Value> = serde_json::from_str(&hash["faults"]).unwrap();
        let mut types: Vec<&str> = faults.iter().map(|fault| fault["fault_type"].as_str().unwrap()).collect();
        types.sort_unstable();
        json!(types)
    });
}

/// What the last pings say.
async fn ask_consensus(rig: &Rig, facts: &Value, differences: &mut Vec<String>) {
    let hashes = rig.hashes("UnitConsensus@").await;
    assert_eq!(hashes.len(), 24, "hashes of unit-consensus");
    let number = |hash: &BTreeMap<String, String>, field: &str| {
        hash.get(field).map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    };
    let text =
        |hash: &BTreeMap<String, String>, field: &str| json!(hash.get(field).cloned().unwrap_or_default());
    let mut ask = |fact, answer: &dyn Fn(&BTreeMap<String, String>) -> Value| {
        let answers = hashes.iter().map(|hash| (vehicle_of(hash), answer(hash))).collect();
        compare("Redis UnitConsensus@…", &question(fact, Value::Null, ""), answers, facts, differences);
    };
    ask("final_battery_charge", &|hash| number(hash, "battery_percent"));
    ask("final_charging", &|hash| number(hash, "charging"));
    ask("final_driving", &|hash| number(hash, "driving"));
    ask("final_paused", &|hash| number(hash, "paused"));
    ask("final_last_node_id", &|hash| text(hash, "last_node_id"));
    ask("final_order_id", &|hash| text(hash, "task_id"));
}

/// What the hashes of tasks say.
async fn ask_tasks(rig: &Rig, facts: &Value, differences: &mut Vec<String>) {
    let hashes = rig.hashes("task:").await;
    assert_eq!(json!(hashes.len()), facts["totals"]["orders_seen"], "hashes of task-state");
    type Test = fn(&BTreeMap<String, String>) -> bool;
    let counts: [(&'static str, Test); 6] = [
        ("orders_seen", |_| true),
        ("orders_accepted", |hash| hash["assignments"] != "0"),
        ("orders_completed", |hash| hash["state"] == "completed"),
        ("orders_cancelled", |hash| hash["state"] == "cancelled" && hash["reason"] == "requested"),
        ("orders_superseded", |hash| hash["state"] == "cancelled" && hash["reason"] == "superseded"),
        ("orders_lost", |hash| hash["state"] == "failed" && hash["reason"] == "lost"),
    ];
    for (fact, test) in counts {
        let mut answers = Answers::new();
        for hash in hashes.iter().filter(|hash| test(hash)) {
            let count = answers.entry(vehicle_of(hash)).or_insert(json!(0));
            *count = json!(count.as_i64().unwrap() + 1);
        }
        compare("Redis task:…", &question(fact, json!(0), ""), answers, facts, differences);
    }
    let mut rejections = BTreeMap::<String, BTreeMap<String, i64>>::new();
    for hash in &hashes {
        let Some(own) = hash.get("rejections") else { continue };
        let own: BTreeMap<String, i64> = serde_json::from_str(own).unwrap();
        for (reason, count) in own {
            *rejections.entry(vehicle_of(hash)).or_default().entry(reason).or_default() += count;
        }
    }
    let answers = rejections.into_iter().map(|(vehicle, counts)| (vehicle, json!(counts))).collect();
    compare("Redis task:…", &question("rejections_by_type", json!({}), ""), answers, facts, differences);
}

/// The report's counts of messages are those of the facts, and its counts of events those of the tables.
async fn assert_report(rig: &Rig, report: &Value, facts: &Value) {
    for (kind, expected) in facts["counts"].as_object().unwrap() {
        let verdicts = report["messages"][kind].as_object().unwrap();
        let of = |wanted: &[&str]| -> u64 {
            let of_kind = verdicts.iter().filter(|(verdict, _)| wanted.contains(&verdict.as_str()));
            of_kind.map(|(_, n)| n.as_u64().unwrap()).sum()
        };
        let all: u64 = verdicts.values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(json!(all), *expected, "{kind} messages in the report: {verdicts:?}");
        let replays = of(&["retained_replay", "retained_news"]);
        assert_eq!(json!(replays), facts["counts_retained_replay"][kind], "replays of {kind}: {verdicts:?}");
        assert_eq!(of(&["dead"]), 0, "dead letters of {kind}: {verdicts:?}");
    }
    let mut answered =
        rig.sql("SELECT 'fleetlog.robot.' || event_type, to_json(count(*)) FROM unit_event GROUP BY 1").await;
    answered.extend(
        rig.sql("SELECT 'fleetlog.task.' || event_type, to_json(count(*)) FROM task_event GROUP BY 1").await,
    );
    answered.extend(rig.sql("SELECT 'fleetlog.telemetry.Telemetry', to_json(count(*)) FROM telemetry").await);
    let told: Answers = serde_json::from_value(report["events"].clone()).unwrap();
    assert_eq!(answered, told, "events by type: what the tables hold (left), what the report told (right)");
    let sent: u64 = told.values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(report["events_sent"], json!(sent), "events sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_and_redis_answer_the_facts_of_the_recording() {
    let rig = Rig::whole("facts").await;
    let report = rig.import(RECORDING).await;
    rig.ok(&["run", "--once"]).await;
    rig.verify_is_clean().await;
    let facts: Value =
        serde_json::from_slice(&std::fs::read(file("data/vda5050/facts_A.json")).unwrap()).unwrap();
    assert_eq!(facts["agvs"].as_object().unwrap().len(), 24, "vehicles in the facts");
    assert_report(&rig, &report, &facts).await;

    let mut differences = Vec::new();
    let questions = [
        telemetry_questions(),
        unit_questions(),
        task_questions(),
        ledger_questions(),
        counter_questions(),
        views::view_questions(),
    ];
    for question in questions.into_iter().flatten() {
        let answers = rig.sql(&question.sql).await;
        assert!(!answers.is_empty(), "{}: no row for\n{}", question.fact, question.sql);
        compare("SQL", &question, answers, &facts, &mut differences);
    }
    ask_units(&rig, &facts, &mut differences).await;
    ask_consensus(&rig, &facts, &mut differences).await;
    ask_tasks(&rig, &facts, &mut differences).await;
    views::ask_hours(&rig, &facts, &mut differences).await;
    views::ask_fleet_now(&rig, &mut differences).await;
    views::ask_availability(&rig, &mut differences).await;
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn an_answer_that_differs_or_is_missing_is_told() {
    let facts = json!({"agvs": {"a/b/1": {"orders_seen": 3}, "a/b/2": {"orders_seen": 4}}});
    let answers = Answers::from([("a/b/1".to_owned(), json!(2)), ("a/b/3".to_owned(), json!(1))]);
    let mut differences = Vec::new();
    compare("SQL", &question("orders_seen", json!(0), ""), answers, &facts, &mut differences);
    let expected = [
        "SQL, a/b/1, orders_seen: answered 2, the facts say 3",
        "SQL, a/b/2, orders_seen: answered 0, the facts say 4",
        "SQL, orders_seen: unknown vehicle a/b/3 with 1",
    ];
    assert_eq!(differences, expected);
}
