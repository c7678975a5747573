//! The whole recording: what the events carry is what a third party counted over the messages (`facts_A.json`).

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::{facts, map_all, recording, vehicle_of};
use fleetlog_event::{EventSet, FleetEvent, robot::RobotEvent, task::TaskEvent, telemetry::Telemetry};
use fleetlog_vda5050::{MessageKind, Verdict, unit_and_order_of};
use serde_json::{Value, json};

type Counts = BTreeMap<String, i64>;

/// What plain code finds in a vehicle's events.
#[derive(Default)]
struct Found {
    states: i64,
    visualizations: i64,
    last_state: Option<Telemetry>,
    connection: Option<&'static str>,
    connections_live: Vec<&'static str>,
    mode: Option<Value>,
    emergency_stop: Option<Value>,
    faults: BTreeMap<String, String>,
    distinct_faults: BTreeSet<(String, String)>,
    onsets: Counts,
    actions: Counts,
    rejections: Counts,
    rejected_orders: BTreeSet<String>,
    tasks: Tasks,
    counters: BTreeMap<&'static str, Counter>,
}

#[derive(Default)]
struct Tasks {
    seen: Vec<String>,
    accepted: Vec<String>,
    ended: HashMap<&'static str, Vec<String>>,
    completed_with_failed_step: i64,
}

#[derive(Default)]
struct Counter {
    previous: Option<(String, i64)>,
    gaps: i64,
    missing: i64,
    resets: i64,
    repeats: i64,
}

impl Counter {
    /// As a query over history would: only `sequence` and `sequence_scope`, in the order of the log.
    fn count(&mut self, event: &FleetEvent) {
        let meta = event.meta();
        let (Some(sequence), Some(scope)) = (meta.sequence, meta.sequence_scope.clone()) else { return };
        match &self.previous {
            Some((before, _)) if *before != scope => self.resets += 1,
            Some((_, previous)) if sequence == *previous => self.repeats += 1,
            Some((_, previous)) if sequence > previous + 1 => {
                self.gaps += 1;
                self.missing += sequence - previous - 1;
            }
            Some((_, previous)) => assert_eq!(sequence, previous + 1, "falls within {scope}"),
            None => {}
        }
        self.previous = Some((scope, sequence));
    }

    fn json(&self) -> Value {
        json!({"gaps": self.gaps, "missing": self.missing, "resets": self.resets, "repeats": self.repeats})
    }
}

fn order_of(task_id: &str) -> String {
    unit_and_order_of(task_id).unwrap().1
}

impl Found {
    fn take(&mut self, event: &FleetEvent) {
        match event {
            FleetEvent::Telemetry(fleetlog_event::telemetry::TelemetryEvent::Telemetry(telemetry)) => {
                if telemetry.channel.as_deref() == Some("state") {
                    self.states += 1;
                    self.last_state = Some(telemetry.clone());
                    self.counters.entry("state").or_default().count(event);
                } else {
                    self.visualizations += 1;
                    self.counters.entry("visualization").or_default().count(event);
                }
            }
            FleetEvent::Robot(robot) => self.take_robot(event, robot),
            FleetEvent::Task(task) => self.take_task(task),
            FleetEvent::Ops(_) => unreachable!("no message of a vehicle is an operator's action"),
        }
    }

    fn take_robot(&mut self, event: &FleetEvent, robot: &RobotEvent) {
        let state = match robot {
            RobotEvent::Connected(_) => Some("ONLINE"),
            RobotEvent::Disconnected(lost) => {
                match serde_json::to_value(lost.reason).unwrap().as_str().unwrap() {
                    "graceful" => Some("OFFLINE"),
                    "broken" => Some("CONNECTIONBROKEN"),
                    other => panic!("{other}"),
                }
            }
            _ => None,
        };
        if let Some(state) = state {
            self.connection = Some(state);
            if event.meta().sequence.is_some() {
                self.connections_live.push(state);
                self.counters.entry("connection").or_default().count(event);
            }
        }
        match robot {
            RobotEvent::ModeChanged(changed) => self.mode = Some(serde_json::to_value(changed.mode).unwrap()),
            RobotEvent::SafetyChanged(changed) => {
                self.emergency_stop = Some(serde_json::to_value(changed.emergency_stop).unwrap());
            }
            RobotEvent::FaultRaised(raised) => {
                assert!(self.faults.insert(raised.fault_id.clone(), raised.fault_type.clone()).is_none());
                self.distinct_faults.insert((raised.fault_type.clone(), raised.fault_id.clone()));
                *self.onsets.entry(raised.fault_type.clone()).or_default() += 1;
            }
            RobotEvent::FaultCleared(cleared) => assert!(self.faults.remove(&cleared.fault_id).is_some()),
            RobotEvent::ActionRequested(asked) => {
                *self.actions.entry(asked.action_type.clone()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn take_task(&mut self, task: &TaskEvent) {
        let tasks = &mut self.tasks;
        let mut end = |how, task_id| tasks.ended.entry(how).or_default().push(order_of(task_id));
        match task {
            TaskEvent::Created(created) => {
                assert_eq!(created.external_id, Some(order_of(&created.task_id)));
                tasks.seen.push(order_of(&created.task_id));
            }
            TaskEvent::Assigned(assigned) => tasks.accepted.push(order_of(&assigned.task_id)),
            TaskEvent::Completed(completed) => {
                end("completed", &completed.task_id);
                tasks.completed_with_failed_step += i64::from(completed.failed_steps > 0);
            }
            TaskEvent::Cancelled(cancelled) if cancelled.reason == "requested" => {
                end("cancelled", &cancelled.task_id);
            }
            TaskEvent::Cancelled(cancelled) => {
                assert_eq!(cancelled.reason, "superseded");
                end("superseded", &cancelled.task_id);
            }
            TaskEvent::Failed(failed) => {
                assert_eq!(failed.reason, "lost");
                end("lost", &failed.task_id);
            }
            TaskEvent::Rejected(rejected) => {
                *self.rejections.entry(rejected.reason.clone()).or_default() += 1;
                self.rejected_orders.insert(order_of(&rejected.task_id));
            }
            _ => {}
        }
    }

    fn ended(&self, how: &str) -> BTreeSet<&String> {
        self.tasks.ended.get(how).into_iter().flatten().collect()
    }

    /// In the words of the facts.
    fn json(&self) -> Value {
        let state = self.last_state.as_ref().unwrap();
        let task_id = state.task_id.as_deref().unwrap();
        let over: HashSet<&String> = self.tasks.ended.values().flatten().collect();
        let tasks = &self.tasks;
        let open: BTreeSet<&String> = tasks.accepted.iter().filter(|id| !over.contains(id)).collect();
        let unanswered = |id: &&String| !tasks.accepted.contains(id) && !self.rejected_orders.contains(*id);
        let mut distinct = Counts::new();
        for (fault_type, _) in &self.distinct_faults {
            *distinct.entry(fault_type.clone()).or_default() += 1;
        }
        let mut error_types: Vec<&String> = self.faults.values().collect();
        error_types.sort();
        json!({
            "states": self.states, "visualizations": self.visualizations,
            "final_connection_state": self.connection, "connection_sequence_live": self.connections_live,
            "final_battery_charge": state.battery_percent, "final_charging": state.charging,
            "final_last_node_id": state.last_node_id, "final_driving": state.driving, "final_paused": state.paused,
            "final_order_id": if task_id.is_empty() { String::new() } else { order_of(task_id) },
            "final_state_header_id": state.meta.sequence, "final_error_types": error_types,
            "final_operating_mode": self.mode, "final_e_stop": self.emergency_stop,
            "orders_seen": tasks.seen.len(), "orders_accepted": tasks.accepted.len(),
            "completed_order_ids": self.ended("completed"), "cancelled_order_ids": self.ended("cancelled"),
            "superseded_order_ids": self.ended("superseded"), "lost_order_ids": self.ended("lost"),
            "open_order_ids": open, "orders_completed_with_failed_action": tasks.completed_with_failed_step,
            "orders_without_any_answer": tasks.seen.iter().filter(unanswered).count(),
            "rejections": self.rejections.values().sum::<i64>(), "rejections_by_type": self.rejections,
            "distinct_errors": distinct, "error_onsets": self.onsets, "instant_actions": self.actions,
            "header_id": self.counters.iter().map(|(kind, c)| (kind.to_string(), c.json())).collect::<BTreeMap<_, _>>(),
        })
    }
}

/// A vehicle's facts, in the form of [`Found::json`].
fn expected(facts: &Value) -> Value {
    let sorted = |key: &str| {
        let mut list: Vec<&str> =
            facts[key].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        list.sort_unstable();
        json!(list)
    };
    let mut expected = json!({
        "states": facts["counts"]["state"], "visualizations": facts["counts"]["visualization"],
        "final_operating_mode": facts["final_operating_mode"].as_str().unwrap().to_lowercase(),
        "final_e_stop": facts["final_e_stop"].as_str().unwrap().to_lowercase().replace("autoack", "auto_ack"),
    });
    let header_id = facts["header_id"].as_object().unwrap();
    let mapped = ["state", "visualization", "connection"];
    expected["header_id"] = header_id
        .iter()
        .filter(|(kind, _)| mapped.contains(&kind.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for key in ["completed", "cancelled", "superseded", "lost", "open"] {
        expected[format!("{key}_order_ids")] = sorted(&format!("{key}_order_ids"));
    }
    for key in [
        "final_connection_state",
        "connection_sequence_live",
        "final_battery_charge",
        "final_charging",
        "final_last_node_id",
        "final_driving",
        "final_paused",
        "final_order_id",
        "final_state_header_id",
        "final_error_types",
        "orders_seen",
        "orders_accepted",
        "orders_completed_with_failed_action",
        "orders_without_any_answer",
        "rejections",
        "rejections_by_type",
        "distinct_errors",
        "error_onsets",
        "instant_actions",
    ] {
        expected[key] = facts[key].clone();
    }
    expected
}

#[test]
fn events_carry_the_facts_of_every_vehicle() {
    let mut found = BTreeMap::<String, Found>::new();
    for outcome in map_all(&recording()) {
        for event in &outcome.events {
            found.entry(vehicle_of(event)).or_default().take(event);
        }
    }
    let facts = facts();
    let vehicles = facts["agvs"].as_object().unwrap();
    assert_eq!(vehicles.len(), 24);
    assert_eq!(found.keys().collect::<Vec<_>>(), vehicles.keys().collect::<Vec<_>>());
    let mut differences = Vec::new();
    for (vehicle, facts) in vehicles {
        let (found, expected) = (found[vehicle].json(), expected(facts));
        for (fact, expected) in expected.as_object().unwrap() {
            if found[fact] != *expected {
                differences.push(format!("{vehicle} {fact}: found {}, expected {expected}", found[fact]));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn events_carry_the_facts_of_the_whole() {
    let outcomes = map_all(&recording());
    let facts = facts();
    let events = || outcomes.iter().flat_map(|outcome| &outcome.events);
    let count = |name: &str| events().filter(|event| event.event_type().short_name() == name).count() as u64;
    let total = |key: &str| facts["totals"][key].as_u64().unwrap();
    assert_eq!(count("Created"), total("orders_seen"));
    assert_eq!(count("Assigned"), total("orders_accepted"));
    assert_eq!(count("Completed"), total("orders_completed"));
    assert_eq!(count("Cancelled"), total("orders_cancelled") + total("orders_superseded"));
    assert_eq!(count("Failed"), total("orders_lost"));
    assert_eq!(count("Rejected"), total("rejections"));
    let raised: u64 = facts["error_onsets"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(count("FaultRaised"), raised);
    for kind in &MessageKind::ALL[..6] {
        let of_kind = || outcomes.iter().filter(|outcome| outcome.kind == *kind);
        assert_eq!(of_kind().count() as u64, facts["counts"][kind.as_str()].as_u64().unwrap(), "{kind}");
        let retained = |o: &&fleetlog_vda5050::Outcome| {
            matches!(o.verdict, Verdict::RetainedReplay | Verdict::RetainedNews)
        };
        let replays = of_kind().filter(retained).count() as u64;
        assert_eq!(replays, facts["counts_retained_replay"][kind.as_str()].as_u64().unwrap(), "{kind}");
    }
    assert!(outcomes.iter().all(|outcome| !matches!(outcome.verdict, Verdict::Dead { .. })));
    assert!(outcomes.iter().all(|outcome| outcome.omitted.is_empty()));
}

#[test]
fn every_event_is_valid_and_has_an_id_of_its_own() {
    let mut ids = HashSet::new();
    for event in map_all(&recording()).iter().flat_map(|outcome| &outcome.events) {
        event.validate().unwrap();
        assert!(ids.insert(event.meta().event_id), "{event:?}");
    }
}

#[test]
fn mapping_again_gives_the_same_events() {
    let lines = recording();
    assert_eq!(map_all(&lines), map_all(&lines));
}

/// The life cycle that projection `task-state` checks.
#[test]
fn the_events_of_a_task_are_a_legal_life() {
    let mut states = HashMap::<String, &'static str>::new();
    let mut paused = 0;
    for event in map_all(&recording()).iter().flat_map(|outcome| &outcome.events) {
        let FleetEvent::Task(task) = event else { continue };
        let state = states.entry(task.entity().to_string()).or_insert("unknown");
        let next = match (*state, task) {
            ("unknown", TaskEvent::Created(_)) => "created",
            ("created", TaskEvent::Assigned(_)) => "assigned",
            ("created", TaskEvent::Rejected(_)) => "over",
            ("assigned", TaskEvent::Started(_)) | ("paused", TaskEvent::Resumed(_)) => "started",
            ("started", TaskEvent::Paused(_)) => "paused",
            ("assigned" | "started" | "paused", TaskEvent::StepChanged(_) | TaskEvent::Rejected(_)) => *state,
            ("started" | "paused", TaskEvent::Completed(_)) => "over",
            ("assigned" | "started" | "paused", TaskEvent::Failed(_) | TaskEvent::Cancelled(_)) => "over",
            (state, task) => panic!("a task that is {state}: {task:?}"),
        };
        paused += usize::from(next == "paused");
        *state = next;
    }
    assert!(paused > 50, "{paused} pauses");
    assert!(states.values().any(|state| *state == "started"));
}

#[test]
fn last_wills_do_not_move_a_vehicles_time_back() {
    let mut last = HashMap::<String, i64>::new();
    let mut wills = 0;
    for event in map_all(&recording()).iter().flat_map(|outcome| &outcome.events) {
        let occurred_at = event.meta().occurred_at.0;
        let last = last.entry(vehicle_of(event)).or_insert(occurred_at);
        if let FleetEvent::Robot(RobotEvent::Disconnected(_)) = event {
            assert!(occurred_at >= *last, "{event:?} is {} ms back", *last - occurred_at);
            wills += 1;
        }
        // Orders and instant actions carry the master's clock.
        let by_vehicle =
            !matches!(event, FleetEvent::Task(_) | FleetEvent::Robot(RobotEvent::ActionRequested(_)));
        if by_vehicle {
            *last = occurred_at.max(*last);
        }
    }
    assert!(wills >= 29);
}
