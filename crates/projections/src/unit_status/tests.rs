use fleetlog_event::{
    EventMeta,
    robot::{Connected, Decommissioned, Disconnected, DoorChanged, FaultCleared, LoadChanged, ModeChanged},
};
use fleetlog_projection::{
    Fold,
    given::{MemoryLog, START, assert_cuts_do_not_matter, given, later, unit_meta},
};
use proptest::prelude::*;

use super::*;
use crate::testing::{cuts, raised, registered, robot_event};

const UNIT: &str = "s504.u7";

fn at(seconds: i64) -> EventMeta {
    later(unit_meta("504", "7"), seconds * 1000)
}

fn told_at(occurred_at: i64, recorded_at: i64) -> EventMeta {
    let time = |seconds| TimestampMs(START.0 + seconds * 1000);
    EventMeta { occurred_at: time(occurred_at), recorded_at: time(recorded_at), ..unit_meta("504", "7") }
}

fn connected(meta: EventMeta) -> Connected {
    Connected { meta, protocol: Some("VDA5050/2.0.0".to_owned()) }
}

fn broken(meta: EventMeta) -> Disconnected {
    Disconnected { meta, reason: DisconnectReason::Broken }
}

#[test]
fn a_unit_comes_and_goes() {
    let _ = given(UnitStatus)
        .event(connected(at(10)))
        .then_field(UNIT, "connection", Some("online"))
        .then_field(UNIT, "connection_since", Some("2024-01-01T00:00:10.000Z"))
        .then_field(UNIT, "protocol", Some("VDA5050/2.0.0"))
        .then_ranked(UNIT, "online:504", Some((START.0 + 10_000) as f64))
        .event(Disconnected { meta: at(20), reason: DisconnectReason::Graceful })
        .then_field(UNIT, "connection", Some("offline"))
        .then_field(UNIT, "disconnect_reason", Some("graceful"))
        .then_field(UNIT, "connection_since", Some("2024-01-01T00:00:20.000Z"))
        .then_ranked(UNIT, "online:504", None)
        .event(Connected { meta: at(30), protocol: None })
        .then_field(UNIT, "disconnect_reason", None)
        .then_field(UNIT, "protocol", Some("VDA5050/2.0.0"))
        .then_field(UNIT, "connects", Some("2"));
}

/// What the figures count: each unit in the list of its type, whether it is connected or not, and in no other.
#[test]
fn a_unit_is_listed_under_its_type_until_it_leaves_the_fleet() {
    let of = |unit_type, seconds| Registered { unit_type, ..registered(at(seconds), "AMR-7") };
    let _ = given(UnitStatus)
        .event(connected(at(1)))
        .then_ranked(UNIT, "units:unknown", Some(1.0))
        .then_ranked(UNIT, "units:robot", None)
        .event(of(UnitType::Robot, 2))
        .then_ranked(UNIT, "units:unknown", None)
        .then_ranked(UNIT, "units:robot", Some(1.0))
        .event(broken(at(3)))
        .then_ranked(UNIT, "units:robot", Some(0.0))
        .event(of(UnitType::Station, 4))
        .then_ranked(UNIT, "units:robot", None)
        .then_ranked(UNIT, "units:station", Some(0.0))
        .event(Decommissioned { meta: at(5), reason: None })
        .then_ranked(UNIT, "units:station", None)
        .then_ranked(UNIT, "units:unknown", None)
        .event(connected(at(6)))
        .then_ranked(UNIT, "units:unknown", Some(1.0));
}

/// A last will is made when the connection begins: it carries that time when it is published hours later.
#[test]
fn a_stale_last_will_is_taken_but_does_not_move_time_back() {
    let _ = given(UnitStatus)
        .event(connected(at(3600)))
        .event(broken(told_at(10, 7200)))
        .then_field(UNIT, "connection", Some("offline"))
        .then_field(UNIT, "disconnect_reason", Some("broken"))
        .then_field(UNIT, "connection_since", Some("2024-01-01T01:00:00.000Z"));
}

#[test]
fn a_clock_of_the_year_2100_does_not_hold_since_then() {
    let _ = given(UnitStatus)
        .event(connected(told_at(76 * 365 * 86_400, 10)))
        .then_field(UNIT, "connection_since", Some("2024-01-01T00:00:10.000Z"))
        .event(broken(at(20)))
        .then_field(UNIT, "connection_since", Some("2024-01-01T00:00:20.000Z"));
}

#[test]
fn a_connection_told_again_keeps_its_beginning() {
    let _ = given(UnitStatus).event(broken(at(10))).event(broken(at(20))).then_field(
        UNIT,
        "connection_since",
        Some("2024-01-01T00:00:10.000Z"),
    );
}

#[test]
fn faults_hold_until_they_are_cleared() {
    let faults = r#"[{"fault_id":"a","fault_type":"blocked","level":"warning","since":"2024-01-01T00:00:01.000Z","description":"something is in the way","references":{"orderId":"ORD-1"}}]"#;
    let cleared = |id: &str| FaultCleared { meta: at(5), fault_id: id.into(), fault_type: "blocked".into() };
    let _ = given(UnitStatus)
        .events([raised(at(1), "a", "blocked"), raised(at(2), "b", "lost"), raised(at(3), "a", "blocked")])
        .then_field(UNIT, "fault_count", Some("2"))
        .then_field(UNIT, "fault_onsets", Some(r#"{"blocked":1,"lost":1}"#))
        .events([cleared("b"), cleared("never raised")])
        .then_field(UNIT, "faults", Some(faults))
        .event(cleared("a"))
        .then_field(UNIT, "faults", Some("[]"))
        .then_field(UNIT, "fault_count", Some("0"))
        .event(raised(at(6), "a", "blocked"))
        .then_field(UNIT, "fault_onsets", Some(r#"{"blocked":2,"lost":1}"#));
}

#[test]
fn mode_safety_doors_and_loads_are_the_last_told() {
    let load = Load { load_id: Some("EPAL-1".to_owned()), weight_kg: Some(12.5), ..Load::default() };
    let safety = SafetyChanged { meta: at(2), emergency_stop: EmergencyStop::AutoAck, field_violation: true };
    let _ = given(UnitStatus)
        .event(ModeChanged { meta: at(1), mode: OperatingMode::TeachIn })
        .then_field(UNIT, "mode", Some("teach_in"))
        .event(ModeChanged { meta: at(2), mode: OperatingMode::TeachIn })
        .then_field(UNIT, "mode_since", Some("2024-01-01T00:00:01.000Z"))
        .then_field(UNIT, "connection", Some("unknown"))
        .event(safety)
        .then_field(UNIT, "emergency_stop", Some("auto_ack"))
        .then_field(UNIT, "field_violation", Some("true"))
        .event(DoorChanged { meta: at(3), door: "left".to_owned(), state: DoorState::Open })
        .then_field(UNIT, "doors", Some(r#"{"left":"open"}"#))
        .then_field(UNIT, "loads", None)
        .event(LoadChanged { meta: at(4), loads: vec![load] })
        .then_field(UNIT, "load_count", Some("1"))
        .event(LoadChanged { meta: at(5), loads: Vec::new() })
        .then_field(UNIT, "loads", Some("[]"));
}

#[test]
fn what_is_asked_of_a_unit_and_who_it_knows() {
    let action = ActionRequested {
        meta: at(1),
        action_id: "i-1".to_owned(),
        action_type: "cancelOrder".to_owned(),
        parameters: BTreeMap::new(),
    };
    let badge = Authenticated { meta: at(2), subject: "p-17".to_owned(), method: None, accepted: false };
    let _ = given(UnitStatus)
        .event(action)
        .event(badge)
        .event(registered(at(3), "AMR-7"))
        .then_field(UNIT, "last_action_type", Some("cancelOrder"))
        .then_field(UNIT, "last_authentication_accepted", Some("false"))
        .then_field(UNIT, "model", Some("AMR-7"))
        .then_field(UNIT, "attributes", Some(r#"{"speed_max_m_s":"1.5"}"#));
}

#[test]
fn a_decommissioned_unit_leaves_a_tombstone() {
    let gone = Decommissioned { meta: at(30), reason: Some("sold".to_owned()) };
    let _ = given(UnitStatus)
        .event(registered(at(1), "AMR-7"))
        .event(connected(at(10)))
        .event(raised(at(20), "a", "blocked"))
        .event(gone)
        .then_field(UNIT, "connection", Some("decommissioned"))
        .then_field(UNIT, "decommission_reason", Some("sold"))
        .then_field(UNIT, "model", None)
        .then_field(UNIT, "fault_count", Some("0"))
        .then_ranked(UNIT, "online:504", None)
        .event(broken(told_at(10, 40)))
        .then_field(UNIT, "connection", Some("decommissioned"))
        .then_field(UNIT, "recorded_at", Some("2024-01-01T00:00:30.000Z"))
        .event(connected(at(50)))
        .then_field(UNIT, "connection", Some("online"))
        .then_field(UNIT, "decommission_reason", None)
        .then_field(UNIT, "connects", Some("1"));
}

proptest! {
    #[test]
    fn the_cut_of_the_log_does_not_matter(events in prop::collection::vec(robot_event(), 0..60), cuts in cuts()) {
        let mut log = MemoryLog::default();
        for event in events {
            log.append(event);
        }
        assert_cuts_do_not_matter(&Fold::new(UnitStatus), &log, &cuts);
    }
}
