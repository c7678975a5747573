//! Events in one line.
//!
//! ```no_run
//! # async fn hello(producer: fleetlog_producer::EventProducer) -> Result<(), Box<dyn std::error::Error>> {
//! use fleetlog_event::{robot::{DoorState, Registered, UnitType}, telemetry::Telemetry};
//! use fleetlog_producer::Author;
//!
//! let author = Author::new("504", "door-service", env!("CARGO_PKG_VERSION")); // once
//! producer.send(author.unit("lift-2").door_changed("front", DoorState::Open)).await?;
//!
//! // What a method does not ask for is set with struct update syntax.
//! let lift = author.unit("lift-2");
//! producer.send(Registered { model: Some("L2".into()), ..lift.registered(UnitType::Station) }).await?;
//! producer.send(Telemetry { battery_percent: Some(81.5), ..author.unit("1010020021").telemetry() }).await?;
//! # Ok(()) }
//! ```

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use fleetlog_event::{
    EventId, EventMeta, TimestampMs,
    robot::{
        ActionRequested, Authenticated, Connected, Decommissioned, DisconnectReason, Disconnected,
        DoorChanged, DoorState, EmergencyStop, FaultCleared, FaultLevel, FaultRaised, Load, LoadChanged,
        ModeChanged, OperatingMode, Registered, SafetyChanged, UnitType,
    },
    task::{
        Assigned, Cancelled, Completed, Created, Failed, Paused, Reassigned, Rejected, Resumed, Stalled,
        Started, StepChanged, StepStatus,
    },
    telemetry::Telemetry,
};

/// Tells the time: milliseconds since 1970.
type Clock = Arc<dyn Fn() -> TimestampMs + Send + Sync>;

/// Makes the events of one service: a method for every event, heads filled in. Cheap to clone.
///
/// The head's `event_id` is a new UUID of version 7, `recorded_at` is now, `occurred_at` is now unless [`About::at`] says
/// otherwise. An event is made once and keeps its head: to send it again, send a clone of it, and it counts once.
///
/// Nothing is checked here: [`EventProducer`](crate::EventProducer) refuses what readers would reject.
#[derive(Clone)]
pub struct Author {
    site_uid: Arc<str>,
    source: Arc<str>,
    clock: Clock,
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Author({} on site {})", self.source, self.site_uid)
    }
}

impl Author {
    /// The author of a service's events, by the system's clock. `site_uid` as the site names itself (not
    /// percent-encoded); `service` and `version` become `meta.source`: `door-service/1.4.0`.
    #[must_use]
    pub fn new(site_uid: &str, service: &str, version: &str) -> Self {
        Self::with_clock(site_uid, service, version, now)
    }

    /// [`new`](Self::new) with a clock of the caller's: for tests and simulations.
    #[must_use]
    pub fn with_clock(
        site_uid: &str,
        service: &str,
        version: &str,
        clock: impl Fn() -> TimestampMs + Send + Sync + 'static,
    ) -> Self {
        Self {
            site_uid: site_uid.into(),
            source: format!("{service}/{version}").into(),
            clock: Arc::new(clock),
        }
    }

    /// The same author on another site: for services that serve several.
    #[must_use]
    pub fn on_site(&self, site_uid: &str) -> Self {
        Self { site_uid: site_uid.into(), ..self.clone() }
    }

    /// Events about a unit, robot or station: `unit_uid` as its source names it (not percent-encoded).
    #[must_use]
    pub fn unit(&self, unit_uid: impl Into<String>) -> About<'_, Unit> {
        About::new(self, Unit { unit_uid: unit_uid.into() })
    }

    /// Events about a task.
    #[must_use]
    pub fn task(&self, task_id: impl Into<String>) -> About<'_, Task> {
        About::new(self, Task { task_id: task_id.into(), unit_uid: None })
    }
}

/// What events are about, and the circumstances that go into their heads. Each method that makes an event gives it an
/// identity of its own.
#[derive(Clone, Debug)]
pub struct About<'a, S> {
    author: &'a Author,
    subject: S,
    occurred_at: Option<TimestampMs>,
    sequence: Option<(i64, String)>,
    correlation_id: Option<EventId>,
    causation_id: Option<EventId>,
}

/// A unit, as the subject of events.
#[derive(Clone, Debug)]
pub struct Unit {
    unit_uid: String,
}

/// A task, as the subject of events.
#[derive(Clone, Debug)]
pub struct Task {
    task_id: String,
    unit_uid: Option<String>,
}

impl<'a, S> About<'a, S> {
    fn new(author: &'a Author, subject: S) -> Self {
        Self { author, subject, occurred_at: None, sequence: None, correlation_id: None, causation_id: None }
    }

    /// When it happened, by the source's own clock. Without it: now.
    #[must_use]
    pub fn at(self, occurred_at: TimestampMs) -> Self {
        Self { occurred_at: Some(occurred_at), ..self }
    }

    /// The source's own counter, and what it counts (channel and incarnation, such as `state#3`): makes gaps visible.
    #[must_use]
    pub fn counted(self, sequence: i64, scope: impl Into<String>) -> Self {
        Self { sequence: Some((sequence, scope.into())), ..self }
    }

    /// The business process that the events belong to.
    #[must_use]
    pub fn correlated(self, correlation_id: EventId) -> Self {
        Self { correlation_id: Some(correlation_id), ..self }
    }

    /// The event that caused these: they belong to the process that it belongs to, or that it began.
    #[must_use]
    pub fn caused_by(self, cause: &EventMeta) -> Self {
        let correlation_id = self.correlation_id.or(cause.correlation_id).or(Some(cause.event_id));
        Self { correlation_id, causation_id: Some(cause.event_id), ..self }
    }

    fn head(&self, unit_uid: Option<&str>) -> EventMeta {
        let now = (self.author.clock)();
        let (sequence, sequence_scope) = self.sequence.clone().unzip();
        EventMeta {
            event_id: EventId::now_v7(),
            occurred_at: self.occurred_at.unwrap_or(now),
            recorded_at: now,
            site_uid: self.author.site_uid.as_ref().to_owned(),
            unit_uid: unit_uid.map(str::to_owned),
            sequence,
            sequence_scope,
            source: self.author.source.as_ref().to_owned(),
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
        }
    }
}

/// Topics `robot` and `telemetry`.
impl About<'_, Unit> {
    fn meta(&self) -> EventMeta {
        self.head(Some(&self.subject.unit_uid))
    }

    /// The unit is known to the fleet, or what is known of it changed. Further fields: maker, model, serial number,
    /// protocol, attributes.
    #[must_use]
    pub fn registered(&self, unit_type: UnitType) -> Registered {
        Registered {
            meta: self.meta(),
            unit_type,
            manufacturer: None,
            model: None,
            serial_number: None,
            protocol: None,
            attributes: [].into(),
        }
    }

    /// It is connected. Further field: protocol.
    #[must_use]
    pub fn connected(&self) -> Connected {
        Connected { meta: self.meta(), protocol: None }
    }

    /// It is no longer connected.
    #[must_use]
    pub fn disconnected(&self, reason: DisconnectReason) -> Disconnected {
        Disconnected { meta: self.meta(), reason }
    }

    /// Control of it changed.
    #[must_use]
    pub fn mode_changed(&self, mode: OperatingMode) -> ModeChanged {
        ModeChanged { meta: self.meta(), mode }
    }

    /// A fault holds from now on. Further fields: description, references.
    #[must_use]
    pub fn fault_raised(
        &self,
        fault_id: impl Into<String>,
        fault_type: impl Into<String>,
        level: FaultLevel,
    ) -> FaultRaised {
        FaultRaised {
            meta: self.meta(),
            fault_id: fault_id.into(),
            fault_type: fault_type.into(),
            level,
            description: None,
            references: [].into(),
        }
    }

    /// A fault no longer holds: `fault_id` as it was raised.
    #[must_use]
    pub fn fault_cleared(&self, fault_id: impl Into<String>, fault_type: impl Into<String>) -> FaultCleared {
        FaultCleared { meta: self.meta(), fault_id: fault_id.into(), fault_type: fault_type.into() }
    }

    /// The safety state changed: both values as they are now.
    #[must_use]
    pub fn safety_changed(&self, emergency_stop: EmergencyStop, field_violation: bool) -> SafetyChanged {
        SafetyChanged { meta: self.meta(), emergency_stop, field_violation }
    }

    /// What it carries changed: all that it carries now.
    #[must_use]
    pub fn load_changed(&self, loads: Vec<Load>) -> LoadChanged {
        LoadChanged { meta: self.meta(), loads }
    }

    /// Somebody proved who they are, or failed to: `subject` as a pseudonymous id. Further field: method.
    #[must_use]
    pub fn authenticated(&self, subject: impl Into<String>, accepted: bool) -> Authenticated {
        Authenticated { meta: self.meta(), subject: subject.into(), method: None, accepted }
    }

    /// One of its doors moved.
    #[must_use]
    pub fn door_changed(&self, door: impl Into<String>, state: DoorState) -> DoorChanged {
        DoorChanged { meta: self.meta(), door: door.into(), state }
    }

    /// It was asked to act at once. Further field: parameters.
    #[must_use]
    pub fn action_requested(
        &self,
        action_id: impl Into<String>,
        action_type: impl Into<String>,
    ) -> ActionRequested {
        ActionRequested {
            meta: self.meta(),
            action_id: action_id.into(),
            action_type: action_type.into(),
            parameters: [].into(),
        }
    }

    /// It has left the fleet for good. Further field: reason.
    #[must_use]
    pub fn decommissioned(&self) -> Decommissioned {
        Decommissioned { meta: self.meta(), reason: None }
    }

    /// A measurement that says nothing yet: what was measured is set by struct update.
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        Telemetry::silent(self.meta())
    }
}

/// Topic `task`.
impl About<'_, Task> {
    /// The unit concerned. [`assigned`](Self::assigned) and [`reassigned`](Self::reassigned) name theirs.
    #[must_use]
    pub fn of_unit(mut self, unit_uid: impl Into<String>) -> Self {
        self.subject.unit_uid = Some(unit_uid.into());
        self
    }

    fn meta(&self) -> EventMeta {
        self.head(self.subject.unit_uid.as_deref())
    }

    fn id(&self) -> String {
        self.subject.task_id.clone()
    }

    /// The task exists. Further fields: priority, the source's own number, steps, parameters.
    #[must_use]
    pub fn created(&self, task_type: impl Into<String>) -> Created {
        Created {
            meta: self.meta(),
            task_id: self.id(),
            task_type: task_type.into(),
            priority: 0,
            external_id: None,
            steps: Vec::new(),
            parameters: [].into(),
        }
    }

    /// A unit took the task.
    #[must_use]
    pub fn assigned(&self, unit_uid: &str) -> Assigned {
        Assigned { meta: self.head(Some(unit_uid)), task_id: self.id() }
    }

    /// Work began.
    #[must_use]
    pub fn started(&self) -> Started {
        Started { meta: self.meta(), task_id: self.id() }
    }

    /// A step moved on. Further fields: the kind of step, its result.
    #[must_use]
    pub fn step_changed(&self, step_id: impl Into<String>, status: StepStatus) -> StepChanged {
        StepChanged {
            meta: self.meta(),
            task_id: self.id(),
            step_id: step_id.into(),
            step_type: None,
            status,
            result: None,
        }
    }

    /// Work is held. Further field: reason.
    #[must_use]
    pub fn paused(&self) -> Paused {
        Paused { meta: self.meta(), task_id: self.id(), reason: None }
    }

    /// Work goes on.
    #[must_use]
    pub fn resumed(&self) -> Resumed {
        Resumed { meta: self.meta(), task_id: self.id() }
    }

    /// The task is done. Further field: how many steps failed all the same.
    #[must_use]
    pub fn completed(&self) -> Completed {
        Completed { meta: self.meta(), task_id: self.id(), failed_steps: 0 }
    }

    /// The task could not be done; `reason` is a short code, such as `timeout`. Further field: detail.
    #[must_use]
    pub fn failed(&self, reason: impl Into<String>) -> Failed {
        Failed { meta: self.meta(), task_id: self.id(), reason: reason.into(), detail: None }
    }

    /// The task was called off; `reason` is a short code, such as `requested`. Further field: detail.
    #[must_use]
    pub fn cancelled(&self, reason: impl Into<String>) -> Cancelled {
        Cancelled { meta: self.meta(), task_id: self.id(), reason: reason.into(), detail: None }
    }

    /// The task went to another unit. Further fields: the unit that had it, reason.
    #[must_use]
    pub fn reassigned(&self, unit_uid: &str) -> Reassigned {
        Reassigned { meta: self.head(Some(unit_uid)), task_id: self.id(), from_unit_uid: None, reason: None }
    }

    /// A unit refused the task, or an update of it; `reason` is a short code. Further fields: which update, detail.
    #[must_use]
    pub fn rejected(&self, reason: impl Into<String>) -> Rejected {
        Rejected {
            meta: self.meta(),
            task_id: self.id(),
            update_id: None,
            reason: reason.into(),
            detail: None,
        }
    }

    /// Nothing moved the task since `since`, and its type may go without for `timeout_ms`; `status` is the state in which it
    /// stands.
    #[must_use]
    pub fn stalled(&self, status: impl Into<String>, since: TimestampMs, timeout_ms: i64) -> Stalled {
        Stalled { meta: self.meta(), task_id: self.id(), status: status.into(), since, timeout_ms }
    }
}

/// The system's clock.
pub(crate) fn now() -> TimestampMs {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "author/tests.rs"]
mod tests;
