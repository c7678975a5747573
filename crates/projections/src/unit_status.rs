//! `unit-status`: is a unit connected, in which mode, which faults hold, what does it carry.
//!
//! Hash `unit:s{site}.u{unit}`, and sorted sets: `online:{site}`, connected units by the time since when; `units:{type}`,
//! all units of a type that are not decommissioned, with 1 for those that are connected and 0 for the others. The latter
//! are what `/metrics` counts.
//!
//! Log order decides what holds. Times shown as `since` never go back: a last will is made when a connection begins
//! and carries that time, so a `Disconnected` may be hours older than the `Connected` before it. Such a time is
//! replaced by the one known (`since` is the later of both), while the connection state itself is taken. Nor can
//! anything hold since later than fleetlog heard of it: a device's 2100 is cut to `recorded_at`.
//!
//! After `Decommissioned` a tombstone with its version stays: connection `decommissioned`, off every list. `Registered`
//! or `Connected` mean that the unit is back, and begin a new record; anything else (a stale last will) changes nothing.

use std::collections::BTreeMap;

use fleetlog_event::{
    EntityKey, EventSet, Recorded, Reject, TimestampMs,
    robot::{
        ActionRequested, Authenticated, DisconnectReason, DoorState, EmergencyStop, FaultLevel, FaultRaised,
        Load, OperatingMode, Registered, RobotEvent, SafetyChanged, UnitType,
    },
};
use fleetlog_projection::{FoldProjector, HotWrite};
use serde::{Deserialize, Serialize};

use crate::{json_text, place, symbol, time_text};

/// Every type of units with the name of its list, in the order of [`UnitType`]. A unit that nobody registered is of type
/// unknown.
#[must_use]
pub fn unit_lists() -> [(UnitType, &'static str); 3] {
    [
        (UnitType::Robot, "units:robot"),
        (UnitType::Station, "units:station"),
        (UnitType::Unknown, "units:unknown"),
    ]
}

/// Whether a unit can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// Nothing was heard about it.
    #[default]
    Unknown,
    /// Connected.
    Online,
    /// Signed off, broken, silent: see [`UnitStatusState::disconnect_reason`].
    Offline,
    /// Left the fleet: a tombstone.
    Decommissioned,
}

/// A fault that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind.
    pub fault_type: String,
    /// How bad.
    pub level: FaultLevel,
    /// In words.
    pub description: Option<String>,
    /// What it refers to.
    pub references: BTreeMap<String, String>,
    /// When it was raised (device time).
    pub since: TimestampMs,
}

/// The state of a unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitStatusState {
    /// The unit's site, as its source names it.
    pub site_uid: String,
    /// The unit, as its source names it.
    pub unit_uid: String,
    /// Whether it can be reached.
    pub connection: Connection,
    /// Why not, if it is offline.
    pub disconnect_reason: Option<DisconnectReason>,
    /// Since when the connection is as it is; never earlier than the change before it.
    pub connection_since: Option<TimestampMs>,
    /// How often it connected.
    pub connects: u64,
    /// Who is in control.
    pub mode: Option<OperatingMode>,
    /// Since when; never earlier than the change before it.
    pub mode_since: Option<TimestampMs>,
    /// Faults that hold, by id.
    pub faults: BTreeMap<String, Fault>,
    /// How often faults began to hold, by type.
    pub fault_onsets: BTreeMap<String, u64>,
    /// The emergency stop.
    pub emergency_stop: Option<EmergencyStop>,
    /// Whether something is in the protective field.
    pub field_violation: Option<bool>,
    /// Doors by name.
    pub doors: BTreeMap<String, DoorState>,
    /// What it carries; none where it never told.
    pub loads: Option<Vec<Load>>,
    /// The last request to act at once.
    pub last_action: Option<LastAction>,
    /// Who last proved who they are.
    pub last_authentication: Option<LastAuthentication>,
    /// What is known of it.
    pub identity: Option<Identity>,
    /// Protocol and version that it speaks.
    pub protocol: Option<String>,
    /// Why it left the fleet.
    pub decommission_reason: Option<String>,
    /// The device's time of the last event.
    pub occurred_at: TimestampMs,
    /// When fleetlog took the last event in.
    pub recorded_at: TimestampMs,
}

/// The last request to act at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastAction {
    /// Identifies the request.
    pub action_id: String,
    /// Its kind.
    pub action_type: String,
    /// When it was asked for.
    pub at: TimestampMs,
}

/// The last authentication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastAuthentication {
    /// Who.
    pub subject: String,
    /// Whether it was accepted.
    pub accepted: bool,
    /// When.
    pub at: TimestampMs,
}

/// What a unit's factsheet tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Robot or station.
    pub unit_type: UnitType,
    /// Its maker.
    pub manufacturer: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial_number: Option<String>,
    /// Further facts.
    pub attributes: BTreeMap<String, String>,
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnitStatus;

impl FoldProjector for UnitStatus {
    const ID: &'static str = "unit-status";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = UnitStatusState;

    fn home(&self, key: &EntityKey) -> String {
        format!("unit:{key}")
    }

    fn apply(&self, state: &mut UnitStatusState, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        let meta = event.event.meta();
        if state.connection == Connection::Decommissioned {
            if !matches!(event.event, RobotEvent::Registered(_) | RobotEvent::Connected(_)) {
                return Ok(());
            }
            *state = UnitStatusState::default();
        }
        state.site_uid.clone_from(&meta.site_uid);
        state.unit_uid = meta.unit_uid.clone().unwrap_or_default();
        state.occurred_at = meta.occurred_at;
        state.recorded_at = event.recorded_at;
        state.take(&event.event);
        Ok(())
    }

    fn writes(&self, key: &EntityKey, state: &UnitStatusState, out: &mut Vec<HotWrite>) {
        state.write_connection(out);
        state.write_places(key, out);
        state.write_condition(out);
        state.write_identity(out);
    }
}

impl UnitStatusState {
    fn take(&mut self, event: &RobotEvent) {
        let at = self.occurred_at;
        match event {
            RobotEvent::Registered(e) => self.register(e),
            RobotEvent::Connected(e) => {
                self.connect(Connection::Online, None);
                self.connects += 1;
                self.protocol = e.protocol.clone().or(self.protocol.take());
            }
            RobotEvent::Disconnected(e) => self.connect(Connection::Offline, Some(e.reason)),
            RobotEvent::ModeChanged(e) => {
                if self.mode != Some(e.mode) {
                    self.mode_since = self.since(self.mode_since);
                }
                self.mode = Some(e.mode);
            }
            RobotEvent::FaultRaised(e) => self.raise(e),
            RobotEvent::FaultCleared(e) => {
                self.faults.remove(&e.fault_id);
            }
            RobotEvent::SafetyChanged(SafetyChanged { emergency_stop, field_violation, .. }) => {
                (self.emergency_stop, self.field_violation) = (Some(*emergency_stop), Some(*field_violation));
            }
            RobotEvent::LoadChanged(e) => self.loads = Some(e.loads.clone()),
            RobotEvent::Authenticated(Authenticated { subject, accepted, .. }) => {
                self.last_authentication =
                    Some(LastAuthentication { subject: subject.clone(), accepted: *accepted, at });
            }
            RobotEvent::DoorChanged(e) => {
                self.doors.insert(e.door.clone(), e.state);
            }
            RobotEvent::ActionRequested(ActionRequested { action_id, action_type, .. }) => {
                let (action_id, action_type) = (action_id.clone(), action_type.clone());
                self.last_action = Some(LastAction { action_id, action_type, at });
            }
            RobotEvent::Decommissioned(e) => self.decommission(e.reason.clone()),
        }
    }

    fn register(&mut self, event: &Registered) {
        self.protocol = event.protocol.clone().or(self.protocol.take());
        self.identity = Some(Identity {
            unit_type: event.unit_type,
            manufacturer: event.manufacturer.clone(),
            model: event.model.clone(),
            serial_number: event.serial_number.clone(),
            attributes: event.attributes.clone(),
        });
    }

    /// The connection changed. Told again as it is (a broker repeats a last will), it keeps its `since`.
    fn connect(&mut self, connection: Connection, reason: Option<DisconnectReason>) {
        if (self.connection, self.disconnect_reason) != (connection, reason) {
            self.connection_since = self.since(self.connection_since);
        }
        (self.connection, self.disconnect_reason) = (connection, reason);
    }

    /// A fault raised again while it holds takes what is told now, and keeps its beginning.
    fn raise(&mut self, event: &FaultRaised) {
        let known = self.faults.get(&event.fault_id);
        let since = known.map_or(self.occurred_at, |fault| fault.since);
        if known.is_none() {
            *self.fault_onsets.entry(event.fault_type.clone()).or_default() += 1;
        }
        let fault = Fault {
            fault_type: event.fault_type.clone(),
            level: event.level,
            description: event.description.clone(),
            references: event.references.clone(),
            since,
        };
        self.faults.insert(event.fault_id.clone(), fault);
    }

    fn decommission(&mut self, reason: Option<String>) {
        *self = Self {
            site_uid: std::mem::take(&mut self.site_uid),
            unit_uid: std::mem::take(&mut self.unit_uid),
            connection: Connection::Decommissioned,
            connection_since: self.since(self.connection_since),
            decommission_reason: reason,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            ..Self::default()
        };
    }

    fn write_connection(&self, out: &mut Vec<HotWrite>) {
        let since = self.connection_since;
        out.extend([
            HotWrite::field("site_uid", self.site_uid.as_str()),
            HotWrite::field("unit_uid", self.unit_uid.as_str()),
            HotWrite::field("connection", symbol(&self.connection)),
            HotWrite::maybe("disconnect_reason", self.disconnect_reason.as_ref().map(symbol)),
            HotWrite::maybe("connection_since", since.map(time_text)),
            HotWrite::field("connects", self.connects.to_string()),
            HotWrite::maybe("decommission_reason", self.decommission_reason.as_deref()),
            HotWrite::field("occurred_at", time_text(self.occurred_at)),
            HotWrite::field("recorded_at", time_text(self.recorded_at)),
        ]);
    }

    /// Places in lists. A unit stands in the list of its type, and in no other, whatever it was before.
    fn write_places(&self, key: &EntityKey, out: &mut Vec<HotWrite>) {
        let online = self.connection == Connection::Online;
        let since = self.connection_since.filter(|_| online);
        out.push(place(format!("online:{}", self.site_uid), key, since.map(|at| at.0)));
        let unit_type = self.identity.as_ref().map(|identity| identity.unit_type).unwrap_or_default();
        let counts = self.connection != Connection::Decommissioned;
        for (listed, list) in unit_lists() {
            let rank = (counts && listed == unit_type).then_some(i64::from(online));
            out.push(place(list.to_owned(), key, rank));
        }
    }

    fn write_condition(&self, out: &mut Vec<HotWrite>) {
        let loads = self.loads.as_ref();
        let action = self.last_action.as_ref();
        let authentication = self.last_authentication.as_ref();
        out.extend([
            HotWrite::maybe("mode", self.mode.as_ref().map(symbol)),
            HotWrite::maybe("mode_since", self.mode_since.map(time_text)),
            HotWrite::field("fault_count", self.faults.len().to_string()),
            HotWrite::field("faults", self.faults_text()),
            HotWrite::maybe(
                "fault_onsets",
                (!self.fault_onsets.is_empty()).then(|| json_text(&self.fault_onsets)),
            ),
            HotWrite::maybe("emergency_stop", self.emergency_stop.as_ref().map(symbol)),
            HotWrite::maybe("field_violation", self.field_violation),
            HotWrite::maybe("doors", (!self.doors.is_empty()).then(|| json_text(&self.doors))),
            HotWrite::maybe("load_count", loads.map(Vec::len)),
            HotWrite::maybe("loads", loads.map(|loads| loads_text(loads))),
            HotWrite::maybe("last_action_id", action.map(|a| a.action_id.as_str())),
            HotWrite::maybe("last_action_type", action.map(|a| a.action_type.as_str())),
            HotWrite::maybe("last_action_at", action.map(|a| time_text(a.at))),
            HotWrite::maybe("last_authenticated", authentication.map(|a| a.subject.as_str())),
            HotWrite::maybe("last_authentication_accepted", authentication.map(|a| a.accepted)),
            HotWrite::maybe("last_authentication_at", authentication.map(|a| time_text(a.at))),
        ]);
    }

    fn write_identity(&self, out: &mut Vec<HotWrite>) {
        let identity = self.identity.as_ref();
        let attributes = identity.map(|i| &i.attributes).filter(|attributes| !attributes.is_empty());
        out.extend([
            HotWrite::maybe("unit_type", identity.map(|i| symbol(&i.unit_type))),
            HotWrite::maybe("manufacturer", identity.and_then(|i| i.manufacturer.as_deref())),
            HotWrite::maybe("model", identity.and_then(|i| i.model.as_deref())),
            HotWrite::maybe("serial_number", identity.and_then(|i| i.serial_number.as_deref())),
            HotWrite::maybe("attributes", attributes.map(json_text)),
            HotWrite::maybe("protocol", self.protocol.as_deref()),
        ]);
    }

    /// A JSON array of the faults that hold, by id.
    fn faults_text(&self) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            fault_id: &'a str,
            fault_type: &'a str,
            level: FaultLevel,
            since: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            description: Option<&'a str>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            references: &'a BTreeMap<String, String>,
        }
        let shown: Vec<Shown<'_>> = self
            .faults
            .iter()
            .map(|(fault_id, fault)| Shown {
                fault_id,
                fault_type: &fault.fault_type,
                level: fault.level,
                since: time_text(fault.since),
                description: fault.description.as_deref(),
                references: &fault.references,
            })
            .collect();
        json_text(&shown)
    }

    /// Since when something holds that just changed: never earlier than the change before it, never later than
    /// fleetlog heard of it.
    fn since(&self, before: Option<TimestampMs>) -> Option<TimestampMs> {
        let at = self.occurred_at.min(self.recorded_at);
        Some(before.map_or(at, |before| before.max(at)))
    }
}

/// A JSON array of loads. What a later version of the event told first is left out where it is not known, so that a state
/// written before shows the same.
fn loads_text(loads: &[Load]) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        load_id: Option<&'a str>,
        load_type: Option<&'a str>,
        load_position: Option<&'a str>,
        weight_kg: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        length_m: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        width_m: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        height_m: Option<f64>,
    }
    let shown = loads.iter().map(|load| Shown {
        load_id: load.load_id.as_deref(),
        load_type: load.load_type.as_deref(),
        load_position: load.load_position.as_deref(),
        weight_kg: load.weight_kg,
        length_m: load.length_m,
        width_m: load.width_m,
        height_m: load.height_m,
    });
    json_text(&shown.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
