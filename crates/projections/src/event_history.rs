//! `event-history`: every event of units and tasks as a row of `unit_event` or `task_event`.
//!
//! Reads two topics; each partition of each is a lane of its own. One event is one row: typed columns for what people
//! ask for, the event's other facts (all but `meta`) as `payload`. An event that comes late or is impossible for a
//! task's life cycle is history all the same: only hot state judges it.

use fleetlog_event::{
    DecodeOne, EntityKey, EventMeta, EventSet, EventType, Reason, Recorded, Reject, TimestampMs,
    robot::RobotEvent, task::TaskEvent,
};
use fleetlog_projection::{CopyEncoder, HistoryRow, MapProjector, Table};

use crate::{TIMESTAMP, column, symbol};

/// The table of events of topic `robot`.
pub static UNIT_EVENT: Table = Table {
    name: "unit_event",
    columns: &[
        column("recorded_at", TIMESTAMP),
        column("occurred_at", TIMESTAMP),
        column("site_uid", "text"),
        column("unit_uid", "text"),
        column("event_type", "text"),
        column("log_partition", "integer"),
        column("log_offset", "bigint"),
        column("event_id", "uuid"),
        column("reason", "text"),
        column("mode", "text"),
        column("fault_id", "text"),
        column("fault_type", "text"),
        column("fault_level", "text"),
        column("payload", "jsonb"),
        column("sequence", "bigint"),
        column("sequence_scope", "text"),
        column("source", "text"),
        column("correlation_id", "uuid"),
        column("causation_id", "uuid"),
    ],
};

/// The table of events of topic `task`.
pub static TASK_EVENT: Table = Table {
    name: "task_event",
    columns: &[
        column("recorded_at", TIMESTAMP),
        column("occurred_at", TIMESTAMP),
        column("site_uid", "text"),
        column("unit_uid", "text"),
        column("task_id", "text"),
        column("event_type", "text"),
        column("log_partition", "integer"),
        column("log_offset", "bigint"),
        column("event_id", "uuid"),
        column("task_type", "text"),
        column("priority", "bigint"),
        column("external_id", "text"),
        column("step_id", "text"),
        column("step_status", "text"),
        column("update_id", "text"),
        column("reason", "text"),
        column("payload", "jsonb"),
        column("sequence", "bigint"),
        column("sequence_scope", "text"),
        column("source", "text"),
        column("correlation_id", "uuid"),
        column("causation_id", "uuid"),
    ],
};

/// What `event-history` reads: the events of topics `robot` and `task`.
#[derive(Clone, Debug, PartialEq)]
pub enum HistoryEvent {
    /// Topic `robot`.
    Robot(RobotEvent),
    /// Topic `task`.
    Task(TaskEvent),
}

const TYPES: usize = RobotEvent::TYPES.len() + TaskEvent::TYPES.len();

impl EventSet for HistoryEvent {
    const TOPICS: &'static [&'static str] = &["robot", "task"];
    const TYPES: &'static [EventType] = &{
        let mut all = [RobotEvent::TYPES[0]; TYPES];
        let mut n = 0;
        while n < TYPES {
            let robots = RobotEvent::TYPES.len();
            all[n] = if n < robots { RobotEvent::TYPES[n] } else { TaskEvent::TYPES[n - robots] };
            n += 1;
        }
        all
    };

    fn decode<D: DecodeOne>(name: &str, decoder: D) -> Option<Result<Self, D::Error>> {
        // A decoder is used up by a decode, so the set is chosen by name first.
        if RobotEvent::TYPES.iter().any(|event_type| event_type.name == name) {
            return RobotEvent::decode(name, decoder).map(|event| event.map(Self::Robot));
        }
        TaskEvent::decode(name, decoder).map(|event| event.map(Self::Task))
    }
    fn event_type(&self) -> EventType {
        match self {
            Self::Robot(event) => event.event_type(),
            Self::Task(event) => event.event_type(),
        }
    }
    fn meta(&self) -> &EventMeta {
        match self {
            Self::Robot(event) => event.meta(),
            Self::Task(event) => event.meta(),
        }
    }
    fn entity(&self) -> EntityKey {
        match self {
            Self::Robot(event) => event.entity(),
            Self::Task(event) => event.entity(),
        }
    }
    fn validate(&self) -> Result<(), Reject> {
        match self {
            Self::Robot(event) => event.validate(),
            Self::Task(event) => event.validate(),
        }
    }
    fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        match self {
            Self::Robot(event) => event.to_json(),
            Self::Task(event) => event.to_json(),
        }
    }
}

/// What rows of both tables have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// The record's timestamp.
    pub recorded_at: TimestampMs,
    /// The partition of the event's topic.
    pub log_partition: i32,
    /// The record's offset.
    pub log_offset: i64,
    /// The event's type without its name space: `Connected`.
    pub event_type: &'static str,
    /// The event's head.
    pub meta: EventMeta,
    /// The event's facts as a JSON object, without `meta`.
    pub payload: String,
    /// The typed columns of its table.
    pub columns: Columns,
}

/// The typed columns of the two tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Columns {
    /// Table `unit_event`.
    Unit {
        /// Why it disconnected, or was decommissioned.
        reason: Option<String>,
        /// The operating mode it changed to.
        mode: Option<String>,
        /// Which fault.
        fault_id: Option<String>,
        /// Its kind.
        fault_type: Option<String>,
        /// How bad.
        fault_level: Option<String>,
    },
    /// Table `task_event`.
    Task {
        /// Which task.
        task_id: String,
        /// Its kind (Created).
        task_type: Option<String>,
        /// Its priority (Created).
        priority: Option<i32>,
        /// The source's own number of it (Created).
        external_id: Option<String>,
        /// Which step (StepChanged).
        step_id: Option<String>,
        /// Its status now (StepChanged).
        step_status: Option<String>,
        /// Which update was refused (Rejected).
        update_id: Option<String>,
        /// Why it was paused, failed, cancelled, reassigned or rejected.
        reason: Option<String>,
    },
}

impl HistoryRow for EventRow {
    fn table(&self) -> &'static Table {
        match self.columns {
            Columns::Unit { .. } => &UNIT_EVENT,
            Columns::Task { .. } => &TASK_EVENT,
        }
    }

    fn encode(&self, out: &mut CopyEncoder) {
        out.timestamptz(self.recorded_at);
        out.timestamptz(self.meta.occurred_at);
        out.text(&self.meta.site_uid);
        out.maybe_text(self.meta.unit_uid.as_deref());
        if let Columns::Task { task_id, .. } = &self.columns {
            out.text(task_id);
        }
        out.text(self.event_type);
        out.int4(self.log_partition);
        out.int8(self.log_offset);
        out.uuid(self.meta.event_id);
        self.encode_columns(out);
        out.jsonb(&self.payload);
        out.maybe_int8(self.meta.sequence);
        out.maybe_text(self.meta.sequence_scope.as_deref());
        out.text(&self.meta.source);
        out.maybe_uuid(self.meta.correlation_id);
        out.maybe_uuid(self.meta.causation_id);
    }

    /// That of the indexes: by unit, or by task, and time.
    fn sort_key(&self) -> (&str, i64) {
        let first = match &self.columns {
            Columns::Unit { .. } => self.meta.unit_uid.as_deref().unwrap_or_default(),
            Columns::Task { task_id, .. } => task_id,
        };
        (first, self.recorded_at.0)
    }
}

impl EventRow {
    fn encode_columns(&self, out: &mut CopyEncoder) {
        match &self.columns {
            Columns::Unit { reason, mode, fault_id, fault_type, fault_level } => {
                for text in [reason, mode, fault_id, fault_type, fault_level] {
                    out.maybe_text(text.as_deref());
                }
            }
            Columns::Task {
                task_id: _,
                task_type,
                priority,
                external_id,
                step_id,
                step_status,
                update_id,
                reason,
            } => {
                out.maybe_text(task_type.as_deref());
                out.maybe_int8(priority.map(i64::from));
                for text in [external_id, step_id, step_status, update_id, reason] {
                    out.maybe_text(text.as_deref());
                }
            }
        }
    }
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventHistory;

impl MapProjector for EventHistory {
    const ID: &'static str = "event-history";
    type Event = HistoryEvent;
    type Write = EventRow;

    fn map(&self, event: &Recorded<HistoryEvent>, out: &mut Vec<EventRow>) -> Result<(), Reject> {
        out.push(EventRow {
            recorded_at: event.recorded_at,
            log_partition: event.position.partition,
            log_offset: event.position.offset,
            event_type: event.event.event_type().short_name(),
            meta: event.event.meta().clone(),
            payload: payload(&event.event)?,
            columns: match &event.event {
                HistoryEvent::Robot(event) => unit_columns(event),
                HistoryEvent::Task(event) => task_columns(event),
            },
        });
        Ok(())
    }
}

/// The event as a JSON object, without `meta`, which has columns of its own.
fn payload(event: &HistoryEvent) -> Result<String, Reject> {
    let no_json = |error| Reject::new(Reason::Undecodable, format!("the event has no JSON form: {error}"));
    let mut json = event.to_json().map_err(no_json)?;
    if let Some(fields) = json.as_object_mut() {
        fields.shift_remove("meta");
    }
    Ok(json.to_string())
}

fn unit_columns(event: &RobotEvent) -> Columns {
    let (mut reason, mut mode, mut fault_id, mut fault_type, mut fault_level) =
        (None, None, None, None, None);
    match event {
        RobotEvent::Disconnected(e) => reason = Some(symbol(&e.reason)),
        RobotEvent::Decommissioned(e) => reason.clone_from(&e.reason),
        RobotEvent::ModeChanged(e) => mode = Some(symbol(&e.mode)),
        RobotEvent::FaultRaised(e) => {
            fault_id = Some(e.fault_id.clone());
            fault_type = Some(e.fault_type.clone());
            fault_level = Some(symbol(&e.level));
        }
        RobotEvent::FaultCleared(e) => {
            fault_id = Some(e.fault_id.clone());
            fault_type = Some(e.fault_type.clone());
        }
        RobotEvent::Registered(_)
        | RobotEvent::Connected(_)
        | RobotEvent::SafetyChanged(_)
        | RobotEvent::LoadChanged(_)
        | RobotEvent::Authenticated(_)
        | RobotEvent::DoorChanged(_)
        | RobotEvent::ActionRequested(_) => {}
    }
    Columns::Unit { reason, mode, fault_id, fault_type, fault_level }
}

fn task_columns(event: &TaskEvent) -> Columns {
    let (mut task_type, mut priority, mut external_id) = (None, None, None);
    let (mut step_id, mut step_status, mut update_id, mut reason) = (None, None, None, None);
    match event {
        TaskEvent::Created(e) => {
            task_type = Some(e.task_type.clone());
            priority = Some(e.priority);
            external_id.clone_from(&e.external_id);
        }
        TaskEvent::StepChanged(e) => {
            step_id = Some(e.step_id.clone());
            step_status = Some(symbol(&e.status));
        }
        TaskEvent::Paused(e) => reason.clone_from(&e.reason),
        TaskEvent::Failed(e) => reason = Some(e.reason.clone()),
        TaskEvent::Cancelled(e) => reason = Some(e.reason.clone()),
        TaskEvent::Reassigned(e) => reason.clone_from(&e.reason),
        TaskEvent::Rejected(e) => {
            update_id.clone_from(&e.update_id);
            reason = Some(e.reason.clone());
        }
        TaskEvent::Assigned(_)
        | TaskEvent::Started(_)
        | TaskEvent::Resumed(_)
        | TaskEvent::Completed(_)
        | TaskEvent::Stalled(_) => {}
    }
    let task_id = event.entity().as_str().to_owned();
    Columns::Task { task_id, task_type, priority, external_id, step_id, step_status, update_id, reason }
}

#[cfg(test)]
mod tests {
    use fleetlog_event::{
        robot::{DisconnectReason, Disconnected},
        task::{Paused, StepStatus},
    };
    use fleetlog_projection::{
        Map,
        given::{MemoryLog, START, assert_cuts_do_not_matter, given_map, unit_meta},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{created, cuts, raised, robot_event, step, task_event};

    /// Decodes nothing, tells as what it was asked to decode.
    struct Asked;
    impl DecodeOne for Asked {
        type Error = &'static str;
        fn one<E: fleetlog_event::Event>(self) -> Result<E, &'static str> {
            Err(E::NAME)
        }
    }

    fn row_of(event: HistoryEvent) -> EventRow {
        let mut rows = Vec::new();
        let _ = given_map(EventHistory).event(event).then(|made| rows.clone_from(&made.rows));
        assert_eq!(rows.len(), 1, "one event is one row");
        rows.remove(0).write
    }

    #[test]
    fn a_unit_event_has_its_facts_in_columns_and_payload() {
        let fault = raised(unit_meta("504", "7"), "a", "blocked");
        let row = row_of(HistoryEvent::Robot(fault.into()));
        assert_eq!(row.table().name, "unit_event");
        assert_eq!((row.event_type, row.recorded_at, row.log_offset), ("FaultRaised", START, 0));
        let some = |text: &str| Some(text.to_owned());
        let columns = Columns::Unit {
            reason: None,
            mode: None,
            fault_id: some("a"),
            fault_type: some("blocked"),
            fault_level: some("warning"),
        };
        assert_eq!(row.columns, columns);
        assert_eq!(
            row.payload,
            r#"{"fault_id":"a","fault_type":"blocked","level":"warning","description":"something is in the way","references":{"orderId":"ORD-1"}}"#
        );
    }

    #[test]
    fn why_a_unit_disconnected_is_a_symbol() {
        let event = Disconnected { meta: unit_meta("504", "7"), reason: DisconnectReason::Hibernating };
        match row_of(HistoryEvent::Robot(event.into())).columns {
            Columns::Unit { reason, .. } => assert_eq!(reason.as_deref(), Some("hibernating")),
            other => panic!("{other:?}"),
        }
    }

    /// History judges no life cycle: that is hot state's business.
    #[test]
    fn a_task_event_that_is_impossible_is_history_all_the_same() {
        let event =
            Paused { meta: unit_meta("504", "7"), task_id: "T9".to_owned(), reason: Some("door".to_owned()) };
        match row_of(HistoryEvent::Task(event.into())).columns {
            Columns::Task { task_id, reason, .. } => {
                assert_eq!((task_id.as_str(), reason.as_deref()), ("T9", Some("door")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn created_and_steps_have_their_columns() {
        match row_of(HistoryEvent::Task(created(unit_meta("504", "7"), "T1").into())).columns {
            Columns::Task { task_type, priority, external_id, .. } => {
                assert_eq!(priority, Some(3));
                assert_eq!(
                    (task_type.as_deref(), external_id.as_deref()),
                    (Some("transport"), Some("ORD-1"))
                );
            }
            other => panic!("{other:?}"),
        }
        let changed = step(unit_meta("504", "7"), "T1", "step-0", StepStatus::Finished);
        match row_of(HistoryEvent::Task(changed.into())).columns {
            Columns::Task { step_id, step_status, .. } => {
                assert_eq!((step_id.as_deref(), step_status.as_deref()), (Some("step-0"), Some("finished")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_set_knows_every_event_of_both_topics_and_no_other() {
        let names: Vec<&str> = HistoryEvent::TYPES.iter().map(|event_type| event_type.name).collect();
        let expected: Vec<&str> =
            RobotEvent::TYPES.iter().chain(TaskEvent::TYPES).map(|event_type| event_type.name).collect();
        assert_eq!(names, expected);
        for name in names {
            assert_eq!(
                HistoryEvent::decode(name, Asked).map(|decoded| decoded.unwrap_err()),
                Some(name),
                "{name}"
            );
        }
        assert!(HistoryEvent::decode("fleetlog.telemetry.Telemetry", Asked).is_none());
    }

    proptest! {
        #[test]
        fn the_cut_of_the_log_does_not_matter(
            events in prop::collection::vec(
                prop_oneof![robot_event().prop_map(HistoryEvent::Robot), task_event().prop_map(HistoryEvent::Task)],
                0..40,
            ),
            cuts in cuts(),
        ) {
            let mut log = MemoryLog::default();
            for event in events {
                log.append(event);
            }
            assert_cuts_do_not_matter(&Map(EventHistory), &log, &cuts);
        }

        /// As many columns are written as the table has, whatever the event; its payload is a JSON object.
        #[test]
        fn every_row_can_be_encoded(
            event in prop_oneof![task_event().prop_map(HistoryEvent::Task), robot_event().prop_map(HistoryEvent::Robot)],
        ) {
            prop_assume!(event.validate().is_ok());
            let row = row_of(event);
            let mut out = CopyEncoder::new();
            out.row(&row);
            let copy = out.finish();
            let columns = usize::from(u16::from_be_bytes([copy[19], copy[20]]));
            prop_assert_eq!(columns, row.table().columns.len());
            let payload: serde_json::Value = serde_json::from_str(&row.payload).unwrap();
            prop_assert!(payload.is_object() && payload.get("meta").is_none());
        }
    }
}
