//! The facts by the views and aggregates for people; and `fleet_now` against hot state, unit by unit.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Answers, Question, VEHICLE, question, vehicle_of};
use crate::import_rig::Rig;

/// What view `fleet_now` says of each vehicle.
fn now(expression: &str) -> String {
    format!("SELECT {VEHICLE}, to_json({expression}) FROM fleet_now")
}

/// How many tasks have an event of a type in their timeline; each of the timelines is whole and begins with `Created`.
fn timelines(condition: &str) -> String {
    format!(
        "SELECT {VEHICLE}, to_json(count(*) FILTER (WHERE {condition})) FROM
           (SELECT task_id, min(site_uid) AS site_uid, min(unit_uid) AS unit_uid, array_agg(event_type) AS types,
                   array_agg(reason) AS reasons
            FROM task_timeline GROUP BY task_id
            HAVING max(number) = count(*) AND min(number) FILTER (WHERE event_type = 'Created') = 1) AS tasks GROUP BY 1"
    )
}

pub(super) fn view_questions() -> Vec<Question> {
    let connection = "CASE WHEN connection = 'online' THEN 'ONLINE' WHEN reason = 'graceful' THEN 'OFFLINE'
                           WHEN reason = 'broken' THEN 'CONNECTIONBROKEN' END";
    // Battery and charging are told by `state` messages alone, so what was last told at all was told by the last of them.
    let minutes = |expression: &str| format!("SELECT {VEHICLE}, {expression} FROM telemetry_1m GROUP BY 1");
    let gaps = |channel: &str| {
        format!(
            "SELECT {VEHICLE}, json_build_object('gaps', count(l.missing), 'missing', coalesce(sum(l.missing), 0),
                                                 'resets', min(g.resets), 'repeats', min(g.repeats))
             FROM unit_gaps g LEFT JOIN (SELECT * FROM unit_gap_list WHERE sequence_scope LIKE '{channel}#%') l
                              USING (site_uid, unit_uid)
             WHERE g.channel = '{channel}' GROUP BY 1"
        )
    };
    let none = json!({"gaps": 0, "missing": 0, "resets": 0, "repeats": 0});
    vec![
        question("final_connection_state", Value::Null, now(connection)),
        question("final_operating_mode", Value::Null, now("upper(mode)")),
        question("final_battery_charge", Value::Null, now("battery_percent")),
        question("final_charging", Value::Null, now("charging")),
        question(
            "battery_min_max",
            Value::Null,
            minutes("json_build_array(min(battery_min_percent), max(battery_max_percent))"),
        ),
        question(
            "final_battery_charge",
            Value::Null,
            minutes(
                "to_json((array_agg(battery_last_percent ORDER BY minute DESC)
                          FILTER (WHERE battery_last_percent IS NOT NULL))[1])",
            ),
        ),
        question("orders_seen", json!(0), timelines("true")),
        question("orders_completed", json!(0), timelines("'Completed' = ANY (types)")),
        question("orders_accepted", json!(0), timelines("'Assigned' = ANY (types)")),
        question("orders_superseded", json!(0), timelines("'superseded' = ANY (reasons)")),
        question("header_id/state", none.clone(), gaps("state")),
        question("header_id/visualization", none, gaps("visualization")),
    ]
}

/// `task_hourly_stats` over all hours, against the facts of each site's vehicles.
pub(super) async fn ask_hours(rig: &Rig, facts: &Value, differences: &mut Vec<String>) {
    let counts = [
        ("created", &["orders_seen"][..]),
        ("completed", &["orders_completed"]),
        ("cancelled", &["orders_cancelled", "orders_superseded"]),
        ("failed", &["orders_lost"]),
    ];
    for (column, of) in counts {
        let mut expected = BTreeMap::<String, i64>::new();
        for (vehicle, facts) in facts["agvs"].as_object().unwrap() {
            let (site, _) = vehicle.split_once('/').unwrap();
            let count: i64 = of.iter().map(|fact| facts[fact].as_i64().unwrap()).sum();
            *expected.entry(site.to_owned()).or_default() += count;
        }
        let sql =
            format!("SELECT site_uid, to_json(sum({column})::bigint) FROM task_hourly_stats GROUP BY 1");
        let answered = rig.sql(&sql).await;
        let expected: Answers = expected.into_iter().map(|(site, count)| (site, json!(count))).collect();
        if answered != expected {
            differences.push(format!(
                "task_hourly_stats, {column}: answered {answered:?}, the facts say {expected:?}"
            ));
        }
    }
}

/// What `fleet_now` says that a unit measured is what its hash of `unit-consensus` says, whichever message told it.
pub(super) async fn ask_fleet_now(rig: &Rig, differences: &mut Vec<String>) {
    let fields = ["battery_percent", "charging", "driving", "map_id", "x_m", "y_m"];
    let sql = format!("SELECT {VEHICLE}, json_build_array({}::text) FROM fleet_now", fields.join("::text, "));
    let mut answers = rig.sql(&sql).await;
    for hash in rig.hashes("UnitConsensus@").await {
        let told: Vec<Option<&String>> = fields.iter().map(|field| hash.get(*field)).collect();
        let answer = answers.remove(&vehicle_of(&hash));
        if answer != Some(json!(told)) {
            differences
                .push(format!("fleet_now, {}: {answer:?}, hot state says {told:?}", vehicle_of(&hash)));
        }
    }
    differences.extend(answers.keys().map(|vehicle| format!("fleet_now: hot state has no {vehicle}")));
}

/// `unit_availability_daily` over all days, against the connections of each unit one after the other. Seconds are those by
/// fleetlog's clock, and the last of them lasts until the moment of asking.
pub(super) async fn ask_availability(rig: &Rig, differences: &mut Vec<String>) {
    let sql = format!(
        "SELECT {VEHICLE}, json_build_array(sum(known_s), sum(online_s), sum(disconnects), extract(epoch FROM now()))
         FROM unit_availability_daily GROUP BY 1"
    );
    let mut answers = rig.sql(&sql).await;
    let sql = format!(
        "SELECT {VEHICLE}, json_agg(json_build_array(event_type, extract(epoch FROM recorded_at)) ORDER BY log_offset)
         FROM unit_event WHERE event_type IN ('Connected', 'Disconnected') GROUP BY 1"
    );
    let changes = rig.sql(&sql).await;
    assert_eq!(changes.len(), 24, "units that connected or disconnected");
    for (vehicle, changes) in changes {
        let changes = changes.as_array().unwrap();
        let answer = answers.remove(&vehicle).unwrap_or_default();
        let told: Vec<f64> = (0..4).filter_map(|at| answer[at].as_f64()).collect();
        let now_s = told.last().copied().unwrap_or_default();
        let (mut online_s, mut disconnects) = (0.0, 0.0);
        for (at, change) in changes.iter().enumerate() {
            let until_s = changes.get(at + 1).map_or(now_s, |next| next[1].as_f64().unwrap());
            match change[0].as_str() {
                Some("Connected") => online_s += until_s - change[1].as_f64().unwrap(),
                _ => disconnects += 1.0,
            }
        }
        let expected = [now_s - changes[0][1].as_f64().unwrap(), online_s, disconnects, now_s];
        let is_same = told.len() == 4
            && told.iter().zip(expected).all(|(told, expected)| (told - expected).abs() < 1e-3);
        if !is_same {
            differences.push(format!("unit_availability_daily, {vehicle}: {told:?}, computed {expected:?}"));
        }
    }
    differences
        .extend(answers.keys().map(|vehicle| format!("unit_availability_daily: nothing told of {vehicle}")));
}
