//! Random events for the properties that every projection has to have.

use fleetlog_event::{
    EventMeta, TimestampMs,
    robot::{
        Connected, Decommissioned, DisconnectReason, Disconnected, FaultCleared, FaultLevel, FaultRaised,
        Load, LoadChanged, ModeChanged, OperatingMode, Registered, RobotEvent, UnitType,
    },
    task::{
        Assigned, Cancelled, Completed, Created, Failed, Paused, Reassigned, Rejected, Resumed, Stalled,
        Started, Step, StepChanged, StepStatus, TaskEvent,
    },
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::given::{later, site_meta, unit_meta};
use proptest::prelude::*;

/// How the log is cut into batches.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..7_usize, 1..6)
}

/// A head: one of three units, at some time of some days, the device's clock wrong now and then.
fn meta() -> impl Strategy<Value = EventMeta> {
    (0..3_u8, 0..20_i64, prop::option::weighted(0.1, prop::sample::select(vec![0, 4_102_444_800_000])))
        .prop_map(|(unit, days, clock)| {
            let meta = later(unit_meta("504", &unit.to_string()), days * 24 * 3600 * 1000);
            EventMeta { occurred_at: clock.map_or(meta.occurred_at, TimestampMs), ..meta }
        })
}

/// An event of one of two tasks; many are impossible where they come.
pub(crate) fn task_event() -> impl Strategy<Value = TaskEvent> {
    (meta(), 0..2_u8, 0..13_u8, 0..3_u8).prop_map(|(meta, task, kind, n)| {
        let (task_id, reason) = (format!("task-{task}"), format!("reason-{n}"));
        match kind {
            0 | 11 => created(meta, &task_id).into(),
            1 => Assigned { meta, task_id }.into(),
            2 => Started { meta, task_id }.into(),
            3 => step(meta, &task_id, &format!("step-{n}"), StepStatus::Running).into(),
            4 => Paused { meta, task_id, reason: Some(reason) }.into(),
            5 => Resumed { meta, task_id }.into(),
            6 => Completed { meta, task_id, failed_steps: 0 }.into(),
            7 => Failed { meta, task_id, reason, detail: None }.into(),
            8 => Cancelled { meta, task_id, reason, detail: None }.into(),
            9 => Reassigned { meta, task_id, from_unit_uid: None, reason: None }.into(),
            12 => stalled(meta, &task_id).into(),
            _ => rejected(meta, &task_id, (n > 0).then_some("1")).into(),
        }
    })
}

pub(crate) fn created(meta: EventMeta, task_id: &str) -> Created {
    let step = |id: &str| Step { step_id: id.to_owned(), step_type: Some("pick".to_owned()), node_id: None };
    Created {
        meta,
        task_id: task_id.to_owned(),
        task_type: "transport".to_owned(),
        priority: 3,
        external_id: Some("ORD-1".to_owned()),
        steps: vec![step("step-0"), step("step-1")],
        parameters: [("from".to_owned(), "dock".to_owned())].into(),
    }
}

pub(crate) fn step(meta: EventMeta, task_id: &str, step_id: &str, status: StepStatus) -> StepChanged {
    let (task_id, step_id) = (task_id.to_owned(), step_id.to_owned());
    StepChanged { meta, task_id, step_id, step_type: None, status, result: None }
}

pub(crate) fn rejected(meta: EventMeta, task_id: &str, update_id: Option<&str>) -> Rejected {
    let update_id = update_id.map(str::to_owned);
    Rejected { meta, task_id: task_id.to_owned(), update_id, reason: "noRouteError".to_owned(), detail: None }
}

pub(crate) fn stalled(meta: EventMeta, task_id: &str) -> Stalled {
    let (task_id, status, since) = (task_id.to_owned(), "started".to_owned(), meta.occurred_at);
    Stalled { meta, task_id, status, since, timeout_ms: 60_000 }
}

pub(crate) fn task_created_at_site(task_id: &str) -> Created {
    created(site_meta("504"), task_id)
}

/// An event of a unit.
pub(crate) fn robot_event() -> impl Strategy<Value = RobotEvent> {
    (meta(), 0..9_u8, 0..3_u8, any::<Option<f64>>()).prop_map(|(meta, kind, n, weight_kg)| match kind {
        0 => Connected { meta, protocol: None }.into(),
        1 => Disconnected { meta, reason: DisconnectReason::Broken }.into(),
        2 => Disconnected { meta, reason: DisconnectReason::Graceful }.into(),
        3 => ModeChanged { meta, mode: OperatingMode::Manual }.into(),
        4 => raised(meta, &format!("fault-{n}"), "blocked").into(),
        5 => FaultCleared { meta, fault_id: format!("fault-{n}"), fault_type: "blocked".to_owned() }.into(),
        // Some weights are out of range: rejected.
        6 => LoadChanged { meta, loads: vec![Load { weight_kg, ..Load::default() }; n.into()] }.into(),
        7 => Decommissioned { meta, reason: None }.into(),
        _ => registered(meta, "AMR-7").into(),
    })
}

pub(crate) fn raised(meta: EventMeta, fault_id: &str, fault_type: &str) -> FaultRaised {
    FaultRaised {
        meta,
        fault_id: fault_id.to_owned(),
        fault_type: fault_type.to_owned(),
        level: FaultLevel::Warning,
        description: Some("something is in the way".to_owned()),
        references: [("orderId".to_owned(), "ORD-1".to_owned())].into(),
    }
}

pub(crate) fn registered(meta: EventMeta, model: &str) -> Registered {
    Registered {
        meta,
        unit_type: UnitType::Robot,
        manufacturer: Some("NordFTS".to_owned()),
        model: Some(model.to_owned()),
        serial_number: Some("0001".to_owned()),
        protocol: Some("VDA5050/2.0.0".to_owned()),
        attributes: [("speed_max_m_s".to_owned(), "1.5".to_owned())].into(),
    }
}

/// A measurement, some of them out of range.
pub(crate) fn telemetry() -> impl Strategy<Value = TelemetryEvent> {
    let number =
        || prop::option::of(prop_oneof![20 => -1e3..1e3_f64, 1 => Just(f64::NAN), 1 => any::<f64>()]);
    let text = || prop::option::of("[a-z]{0,3}");
    (meta(), number(), number(), prop::option::of(0.0..101.0_f64), any::<Option<bool>>(), text(), text())
        .prop_map(|(meta, x_m, heading_rad, battery_percent, driving, map_id, last_node_id)| {
            Telemetry {
                x_m,
                heading_rad,
                battery_percent,
                driving,
                map_id,
                last_node_id,
                ..Telemetry::silent(meta)
            }
            .into()
        })
}
