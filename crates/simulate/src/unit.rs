//! One robot, second by second.

mod work;

use fleetlog_event::{
    EventMeta,
    robot::{
        Connected, DisconnectReason, Disconnected, EmergencyStop, FaultCleared, FaultLevel, FaultRaised,
        Load, LoadChanged, ModeChanged, OperatingMode, Registered, SafetyChanged, UnitType,
    },
    telemetry::Telemetry,
};

use crate::{
    Out, UNITS_PER_SITE,
    random::{Random, mix},
    task::{Task, node_id},
};

/// Metres between two nodes of the grid.
const NODE_DISTANCE_M: f64 = 6.0;
/// Speed of a driving unit in m/s.
const SPEED_M_S: f64 = 1.5;
/// Below this charge an idle unit goes to the charger.
const BATTERY_LOW_PERCENT: f64 = 25.0;
/// At this charge it leaves it.
const BATTERY_FULL_PERCENT: f64 = 95.0;

#[derive(Debug)]
pub(crate) struct Unit {
    site_uid: String,
    unit_uid: String,
    /// A unit of the same site.
    neighbour_uid: String,
    random: Random,
    x_m: f64,
    y_m: f64,
    heading_rad: f64,
    driving: bool,
    /// The last node it reached.
    node: (i64, i64),
    battery_percent: f64,
    charging: bool,
    loaded: bool,
    map_id: String,
    sequence: i64,
    incarnation: u32,
    sequence_scope: String,
    link: Link,
    held: Option<Held>,
    warning: Option<Fault>,
    task: Option<Task>,
    tasks_made: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not heard of yet.
    New,
    Up,
    /// Until that second; then back, perhaps after a restart.
    Down {
        until: i64,
        restart: bool,
    },
}

/// What keeps a unit from working, until a second.
#[derive(Debug)]
struct Held {
    until: i64,
    by: Hold,
}

#[derive(Debug)]
enum Hold {
    Request,
    EmergencyStop,
    Fault(Fault),
    /// Somebody drives it by hand.
    Hand,
}

impl Hold {
    fn reason(&self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::EmergencyStop => "emergency stop",
            Self::Fault(_) => "fault",
            Self::Hand => "driven by hand",
        }
    }
}

#[derive(Debug)]
struct Fault {
    until: i64,
    id: String,
    fault_type: &'static str,
}

fn unit_uid(number: u32) -> String {
    (1_010_000_000_u64 + u64::from(number)).to_string()
}

impl Unit {
    pub(crate) fn new(number: u32, seed: u64) -> Self {
        let mut random = Random::new(seed ^ mix(u64::from(number)));
        let node = (random.within(0..10), random.within(0..10));
        let (x_m, y_m) = place(node);
        let site = number / UNITS_PER_SITE;
        Self {
            site_uid: (501 + u64::from(site)).to_string(),
            unit_uid: unit_uid(number),
            neighbour_uid: unit_uid(if number.is_multiple_of(UNITS_PER_SITE) {
                number.saturating_add(1)
            } else {
                number - 1
            }),
            x_m,
            y_m,
            heading_rad: 0.0,
            driving: false,
            node,
            battery_percent: real(random.within(30..100)),
            charging: false,
            loaded: false,
            map_id: format!("floor-{}", random.within(1..4)),
            sequence: 0,
            incarnation: 0,
            sequence_scope: "state#0".to_owned(),
            link: Link::New,
            held: None,
            warning: None,
            task: None,
            tasks_made: 0,
            random,
        }
    }

    /// One second: what happens to the unit, what it does, and, if it is connected, its measurement.
    pub(crate) fn tick(&mut self, second: i64, out: &mut Out<'_>) {
        match self.link {
            Link::New => self.register(out),
            Link::Down { until, restart } if second >= until => self.reconnect(restart, out),
            Link::Down { .. } => {
                // What it says meanwhile is lost: the counter will show it.
                self.sequence += 1;
                return;
            }
            Link::Up if self.random.one_in(3000) => {
                self.disconnect(second, out);
                return;
            }
            Link::Up => {}
        }
        self.warnings(second, out);
        self.holds(second, out);
        self.driving = false;
        if self.held.is_none() {
            self.live(out);
        }
        let used = if self.driving { 0.03 } else { 0.004 };
        let gained = if self.charging { 0.4 } else { -used };
        self.battery_percent = (self.battery_percent + gained).clamp(0.0, 100.0);
        self.measure(out);
    }

    fn meta(&self, out: &mut Out<'_>) -> EventMeta {
        out.meta(&self.site_uid, &self.unit_uid)
    }

    fn register(&mut self, out: &mut Out<'_>) {
        self.link = Link::Up;
        let attributes = [("speed_max_m_s".to_owned(), SPEED_M_S.to_string())].into();
        let meta = self.meta(out);
        out.robot(Registered {
            meta,
            unit_type: UnitType::Robot,
            manufacturer: Some("fleetlog".to_owned()),
            model: Some("Simulated 1".to_owned()),
            serial_number: Some(self.unit_uid.clone()),
            protocol: None,
            attributes,
        });
        let meta = self.meta(out);
        out.robot(Connected { meta, protocol: None });
        self.mode(OperatingMode::Automatic, out);
        self.safety(EmergencyStop::None, out);
    }

    fn mode(&self, mode: OperatingMode, out: &mut Out<'_>) {
        let meta = self.meta(out);
        out.robot(ModeChanged { meta, mode });
    }

    fn safety(&self, emergency_stop: EmergencyStop, out: &mut Out<'_>) {
        let meta = self.meta(out);
        out.robot(SafetyChanged {
            meta,
            emergency_stop,
            field_violation: emergency_stop == EmergencyStop::AutoAck,
        });
    }

    fn disconnect(&mut self, second: i64, out: &mut Out<'_>) {
        let reason = self.random.pick(&[
            DisconnectReason::Broken,
            DisconnectReason::Broken,
            DisconnectReason::Graceful,
            DisconnectReason::Hibernating,
            DisconnectReason::Timeout,
        ]);
        let restart = reason == DisconnectReason::Graceful || self.random.one_in(3);
        self.link = Link::Down { until: second + self.random.within(5..90), restart };
        let meta = self.meta(out);
        out.robot(Disconnected { meta, reason });
    }

    /// After a restart the counter begins anew, and the task is forgotten.
    fn reconnect(&mut self, restart: bool, out: &mut Out<'_>) {
        self.link = Link::Up;
        let meta = self.meta(out);
        out.robot(Connected { meta, protocol: None });
        if !restart {
            return;
        }
        self.incarnation += 1;
        self.sequence = 0;
        self.sequence_scope = format!("state#{}", self.incarnation);
        if let Some(task) = self.task.take() {
            let meta = self.meta(out);
            task.failed("lost", meta, out);
        }
        if self.loaded {
            self.load(false, out);
        }
    }

    fn raise(
        &mut self,
        second: i64,
        fault_type: &'static str,
        level: FaultLevel,
        out: &mut Out<'_>,
    ) -> Fault {
        let id = format!("{fault_type}-{second}");
        let meta = self.meta(out);
        out.robot(FaultRaised {
            meta,
            fault_id: id.clone(),
            fault_type: fault_type.to_owned(),
            level,
            description: None,
            references: [("component".to_owned(), self.random.pick(&["front", "rear"]).to_owned())].into(),
        });
        Fault { until: second + self.random.within(5..60), id, fault_type }
    }

    fn clear(&self, fault: Fault, out: &mut Out<'_>) {
        let meta = self.meta(out);
        out.robot(FaultCleared { meta, fault_id: fault.id, fault_type: fault.fault_type.to_owned() });
    }

    /// Faults with which it goes on.
    fn warnings(&mut self, second: i64, out: &mut Out<'_>) {
        match self.warning.take() {
            Some(fault) if second >= fault.until => self.clear(fault, out),
            Some(fault) => self.warning = Some(fault),
            None if self.random.one_in(1500) => {
                let fault_type = self.random.pick(&["laserScannerDirty", "forkSensorTimeout", "wheelSlip"]);
                self.warning = Some(self.raise(second, fault_type, FaultLevel::Warning, out));
            }
            None => {}
        }
    }

    /// What stops it for a while: its task is paused as long.
    fn holds(&mut self, second: i64, out: &mut Out<'_>) {
        match self.held.take() {
            Some(held) if second >= held.until => self.release(held.by, out),
            Some(held) => self.held = Some(held),
            None if self.random.one_in(700) => self.hold(second, out),
            None => {}
        }
    }

    fn hold(&mut self, second: i64, out: &mut Out<'_>) {
        let by = match self.random.within(0..8) {
            0..4 => Hold::Request,
            4 | 5 => {
                let fault_type = self.random.pick(&["localizationLost", "motorOvertemperature"]);
                Hold::Fault(self.raise(second, fault_type, FaultLevel::Fatal, out))
            }
            6 => {
                let stops = [EmergencyStop::Manual, EmergencyStop::Remote, EmergencyStop::AutoAck];
                let stop = self.random.pick(&stops);
                self.safety(stop, out);
                Hold::EmergencyStop
            }
            _ => {
                self.mode(OperatingMode::Manual, out);
                Hold::Hand
            }
        };
        if let Some(mut task) = self.task.take() {
            if task.is_started() {
                let meta = self.meta(out);
                task.pause(by.reason(), meta, out);
            }
            self.task = Some(task);
        }
        self.held = Some(Held { until: second + self.random.within(4..30), by });
    }

    fn release(&mut self, by: Hold, out: &mut Out<'_>) {
        match by {
            Hold::Request => {}
            Hold::EmergencyStop => self.safety(EmergencyStop::None, out),
            Hold::Fault(fault) => self.clear(fault, out),
            Hold::Hand => self.mode(OperatingMode::Automatic, out),
        }
        if let Some(mut task) = self.task.take() {
            if task.paused {
                let meta = self.meta(out);
                task.resume(meta, out);
            }
            self.task = Some(task);
        }
    }

    /// One second's way towards a node; true when it is there.
    fn drive_to(&mut self, node: (i64, i64)) -> bool {
        let (x_m, y_m) = place(node);
        let (dx, dy) = (x_m - self.x_m, y_m - self.y_m);
        let distance_m = dx.hypot(dy);
        if distance_m <= SPEED_M_S {
            (self.x_m, self.y_m, self.node) = (x_m, y_m, node);
            return true;
        }
        self.driving = true;
        self.heading_rad = dy.atan2(dx);
        self.x_m += dx / distance_m * SPEED_M_S;
        self.y_m += dy / distance_m * SPEED_M_S;
        false
    }

    fn load(&mut self, loaded: bool, out: &mut Out<'_>) {
        self.loaded = loaded;
        let load = || Load {
            load_id: Some(format!("L{}-{}", self.unit_uid, self.tasks_made)),
            load_type: Some("EPAL".to_owned()),
            load_position: Some("fork".to_owned()),
            weight_kg: Some(250.0),
            ..Load::default()
        };
        let loads = if loaded { vec![load()] } else { Vec::new() };
        let meta = self.meta(out);
        out.robot(LoadChanged { meta, loads });
    }

    fn measure(&mut self, out: &mut Out<'_>) {
        let mut meta = self.meta(out);
        meta.sequence = Some(self.sequence);
        meta.sequence_scope = Some(self.sequence_scope.clone());
        self.sequence += 1;
        out.telemetry(Telemetry {
            meta,
            channel: Some("state".to_owned()),
            x_m: Some(self.x_m),
            y_m: Some(self.y_m),
            heading_rad: Some(self.heading_rad),
            map_id: Some(self.map_id.clone()),
            latitude_deg: None,
            longitude_deg: None,
            battery_percent: Some(self.battery_percent),
            charging: Some(self.charging),
            speed_m_s: Some(if self.driving { SPEED_M_S } else { 0.0 }),
            driving: Some(self.driving),
            paused: Some(self.held.is_some()),
            last_node_id: Some(node_id(self.node)),
            task_id: Some(self.task.as_ref().map_or_else(String::new, |task| task.id.clone())),
            localized: None,
            new_base_request: None,
            zone_set_id: None,
            information: [].into(),
        });
    }
}

/// Where a node of the grid is, in metres.
fn place((x, y): (i64, i64)) -> (f64, f64) {
    (real(x) * NODE_DISTANCE_M, real(y) * NODE_DISTANCE_M)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn real(number: i64) -> f64 {
    number as f64
}
