//! Topic `robot`: what happens to a unit, keyed by the unit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    EntityKey, EventMeta, Rule,
    event::{event_set, events},
    identity::unit_entity,
    validate::number,
};

/// What kind of thing a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitType {
    /// A mobile robot.
    Robot,
    /// A fixed station (charger, lift, gate, shelf).
    Station,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// Why a unit is no longer connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisconnectReason {
    /// It signed off.
    Graceful,
    /// Its connection broke (last will).
    Broken,
    /// It sleeps and will be back (VDA 5050 3.0 `HIBERNATING`).
    Hibernating,
    /// It fell silent.
    Timeout,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// Who is in control of the unit (VDA 5050 `operatingMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatingMode {
    /// Master control drives.
    Automatic,
    /// Master control drives, speed is set by hand.
    Semiautomatic,
    /// Driven by hand.
    Manual,
    /// Under maintenance.
    Service,
    /// Being taught.
    TeachIn,
    /// Starting up (VDA 5050 3.0).
    Startup,
    /// Intervened in by hand (VDA 5050 3.0).
    Intervened,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultLevel {
    /// Can go on.
    Warning,
    /// Needs attention at once (VDA 5050 3.0).
    Urgent,
    /// Critical (VDA 5050 3.0).
    Critical,
    /// Cannot go on.
    Fatal,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// The emergency stop and how it is acknowledged (VDA 5050 `eStop`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmergencyStop {
    /// Not stopped.
    None,
    /// Stopped; acknowledged at the unit.
    Manual,
    /// Stopped; acknowledged from afar.
    Remote,
    /// Stopped; acknowledges itself.
    AutoAck,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// The state of a door or gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorState {
    /// Open.
    Open,
    /// On its way open.
    Opening,
    /// Closed.
    Closed,
    /// On its way closed.
    Closing,
    /// Closed and locked.
    Locked,
    /// Held or jammed.
    Blocked,
    /// A symbol this version does not know (the schema's default).
    #[default]
    #[serde(other)]
    Unknown,
}

/// Something a unit carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Its id (barcode, RFID), if it was read.
    #[serde(default)]
    pub load_id: Option<String>,
    /// Its kind, such as `EPAL`.
    #[serde(default)]
    pub load_type: Option<String>,
    /// Where on the unit, such as `fork`.
    #[serde(default)]
    pub load_position: Option<String>,
    /// Its weight in kg.
    #[serde(default)]
    pub weight_kg: Option<f64>,
    /// Its length along the unit, in metres.
    #[serde(default)]
    pub length_m: Option<f64>,
    /// Its width across the unit, in metres.
    #[serde(default)]
    pub width_m: Option<f64>,
    /// Its height, in metres.
    #[serde(default)]
    pub height_m: Option<f64>,
}

/// A unit is known to the fleet, or what is known of it changed (factsheet).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// The head.
    pub meta: EventMeta,
    /// Robot or station.
    #[serde(default)]
    pub unit_type: UnitType,
    /// Its maker.
    #[serde(default, alias = "vendor")]
    pub manufacturer: Option<String>,
    /// Its model or series.
    #[serde(default)]
    pub model: Option<String>,
    /// Its serial number: unique only together with the maker.
    #[serde(default)]
    pub serial_number: Option<String>,
    /// The protocol it speaks, with its version, such as `VDA5050/2.0.0`.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Further facts, such as `speed_max_m_s`.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// A unit is connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    /// The head.
    pub meta: EventMeta,
    /// The protocol it speaks, with its version.
    #[serde(default)]
    pub protocol: Option<String>,
}

/// A unit is no longer connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disconnected {
    /// The head.
    pub meta: EventMeta,
    /// Why.
    #[serde(default)]
    pub reason: DisconnectReason,
}

/// Control of a unit changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeChanged {
    /// The head.
    pub meta: EventMeta,
    /// The mode now.
    #[serde(default)]
    pub mode: OperatingMode,
}

/// A fault holds from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRaised {
    /// The head.
    pub meta: EventMeta,
    /// Identifies the fault while it holds: the same type, description and references give the same id.
    pub fault_id: String,
    /// The kind, such as `localizationLost`.
    pub fault_type: String,
    /// How bad.
    #[serde(default)]
    pub level: FaultLevel,
    /// In words.
    #[serde(default)]
    pub description: Option<String>,
    /// What it refers to, such as `orderId` → `ORD-1`.
    #[serde(default)]
    pub references: BTreeMap<String, String>,
}

/// A fault no longer holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultCleared {
    /// The head.
    pub meta: EventMeta,
    /// As in [`FaultRaised`].
    pub fault_id: String,
    /// As in [`FaultRaised`].
    pub fault_type: String,
}

/// The safety state changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SafetyChanged {
    /// The head.
    pub meta: EventMeta,
    /// The emergency stop.
    #[serde(default)]
    pub emergency_stop: EmergencyStop,
    /// Whether something is in the protective field.
    #[serde(default)]
    pub field_violation: bool,
}

/// What a unit carries changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadChanged {
    /// The head.
    pub meta: EventMeta,
    /// All that it carries now.
    #[serde(default)]
    pub loads: Vec<Load>,
}

/// Somebody proved who they are to a unit (badge, app), or failed to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Authenticated {
    /// The head.
    pub meta: EventMeta,
    /// Who, as a pseudonymous id.
    pub subject: String,
    /// How, such as `badge` or `pin`.
    #[serde(default)]
    pub method: Option<String>,
    /// Whether it was accepted.
    pub accepted: bool,
}

/// A door, gate or compartment moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorChanged {
    /// The head.
    pub meta: EventMeta,
    /// Which of the unit's doors.
    pub door: String,
    /// Its state now.
    #[serde(default)]
    pub state: DoorState,
}

/// A unit was asked to act at once (VDA 5050 instant action).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRequested {
    /// The head.
    pub meta: EventMeta,
    /// Identifies the request.
    pub action_id: String,
    /// The kind, such as `cancelOrder`.
    pub action_type: String,
    /// Its parameters as text.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// A unit has left the fleet for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decommissioned {
    /// The head.
    pub meta: EventMeta,
    /// Why, in words.
    #[serde(default)]
    pub reason: Option<String>,
}

events! {
    topic "robot", head UNIT_HEAD by unit_head, entity |event| unit_of(&event.meta);
    Registered {} r#"{"unit_type": "station", "manufacturer": "Liftwerk", "model": "L2", "serial_number": "0042", "attributes": {"load_mass_max_kg": "1000"}}"#
    Connected {} r#"{"protocol": "VDA5050/2.1.0"}"#
    Disconnected {} r#"{"reason": "graceful"}"#
    ModeChanged {} r#"{"mode": "automatic"}"#
    FaultRaised { fault_id: Rule::Id, fault_type: Rule::Id }
        r#"{"fault_id": "motor-7", "fault_type": "motorOvertemperature", "level": "warning", "description": "left motor at 92 °C"}"#
    FaultCleared { fault_id: Rule::Id, fault_type: Rule::Id }
        r#"{"fault_id": "motor-7", "fault_type": "motorOvertemperature"}"#
    SafetyChanged {} r#"{"emergency_stop": "manual", "field_violation": false}"#
    LoadChanged {} [loads {
        weight_kg: number(0.0, 1e9),
        length_m: number(0.0, 1e3),
        width_m: number(0.0, 1e3),
        height_m: number(0.0, 1e3)
    }]
        r#"{"loads": [{"load_id": "RFID_280ec8ae", "load_type": "EPAL", "load_position": "fork", "weight_kg": 310.5, "length_m": 1.2, "width_m": 0.8}]}"#
    Authenticated { subject: Rule::Id } r#"{"subject": "badge-51c0", "method": "badge", "accepted": true}"#
    DoorChanged { door: Rule::Id } r#"{"door": "front", "state": "open"}"#
    ActionRequested { action_id: Rule::Id, action_type: Rule::Id }
        r#"{"action_id": "a-1", "action_type": "startCharging", "parameters": {"duration_s": "600"}}"#
    Decommissioned {} r#"{"reason": "sold"}"#
}

/// The unit that `meta` names; an empty unit id (no valid entity) where it names none.
pub(crate) fn unit_of(meta: &EventMeta) -> EntityKey {
    unit_entity(&meta.site_uid, meta.unit_uid.as_deref().unwrap_or_default())
}

event_set! {
    /// Every event of topic `robot`.
    RobotEvent on "robot" {
        Registered, Connected, Disconnected, ModeChanged, FaultRaised, FaultCleared, SafetyChanged, LoadChanged,
        Authenticated, DoorChanged, ActionRequested, Decommissioned,
    }
}
