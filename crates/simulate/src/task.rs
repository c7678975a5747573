//! A unit's task: from node to node, with a pick and a drop.

use fleetlog_event::{
    EventMeta,
    task::{
        Assigned, Cancelled, Completed, Created, Failed, Paused, Reassigned, Rejected, Resumed, Started,
        Step, StepChanged, StepStatus,
    },
};

use crate::{Out, random::Random};

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Created; the unit has not answered yet.
    Offered,
    /// The unit took it.
    Accepted,
    /// On the way to the pick.
    ToPick,
    /// Picking, for so many seconds more.
    Picking(i64),
    /// On the way to the drop.
    ToDrop,
    /// Dropping, for so many seconds more.
    Dropping(i64),
}

/// A task of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) paused: bool,
    pub(crate) pick_node: (i64, i64),
    pub(crate) drop_node: (i64, i64),
}

/// The name of a node of the grid.
pub(crate) fn node_id((x, y): (i64, i64)) -> String {
    format!("N{x:02}-{y:02}")
}

impl Task {
    /// A new task, offered to the unit of `meta`.
    pub(crate) fn create(id: String, random: &mut Random, mut meta: EventMeta, out: &mut Out<'_>) -> Self {
        let mut node = || (random.within(0..10), random.within(0..10));
        let (pick_node, drop_node) = (node(), node());
        if random.one_in(5) {
            meta.unit_uid = None;
        }
        let step = |kind: &str, node| Step {
            step_id: kind.to_owned(),
            step_type: Some(kind.to_owned()),
            node_id: Some(node_id(node)),
        };
        let priority = i32::try_from(random.within(0..5)).unwrap_or_default();
        out.task(Created {
            meta,
            task_id: id.clone(),
            task_type: random.pick(&["transport", "delivery", "return"]).to_owned(),
            priority,
            external_id: None,
            steps: vec![step("pick", pick_node), step("drop", drop_node)],
            parameters: [("last_node_id".to_owned(), node_id(drop_node))].into(),
        });
        Self { id, phase: Phase::Offered, paused: false, pick_node, drop_node }
    }

    /// Whether work has begun.
    pub(crate) fn is_started(&self) -> bool {
        !matches!(self.phase, Phase::Offered | Phase::Accepted)
    }

    pub(crate) fn assigned(&mut self, meta: EventMeta, out: &mut Out<'_>) {
        self.phase = Phase::Accepted;
        out.task(Assigned { meta, task_id: self.id.clone() });
    }

    /// Taken over from another unit, which had it first.
    pub(crate) fn taken_over(&mut self, from: EventMeta, meta: EventMeta, out: &mut Out<'_>) {
        let from_unit_uid = from.unit_uid.clone();
        out.task(Assigned { meta: from, task_id: self.id.clone() });
        self.phase = Phase::Accepted;
        let reason = Some("battery low".to_owned());
        out.task(Reassigned { meta, task_id: self.id.clone(), from_unit_uid, reason });
    }

    pub(crate) fn started(&mut self, meta: EventMeta, out: &mut Out<'_>) {
        self.phase = Phase::ToPick;
        out.task(Started { meta, task_id: self.id.clone() });
    }

    pub(crate) fn step(&self, step_id: &str, status: StepStatus, meta: EventMeta, out: &mut Out<'_>) {
        out.task(StepChanged {
            meta,
            task_id: self.id.clone(),
            step_id: step_id.to_owned(),
            step_type: Some(step_id.to_owned()),
            status,
            result: None,
        });
    }

    pub(crate) fn pause(&mut self, reason: &str, meta: EventMeta, out: &mut Out<'_>) {
        self.paused = true;
        out.task(Paused { meta, task_id: self.id.clone(), reason: Some(reason.to_owned()) });
    }

    pub(crate) fn resume(&mut self, meta: EventMeta, out: &mut Out<'_>) {
        self.paused = false;
        out.task(Resumed { meta, task_id: self.id.clone() });
    }

    pub(crate) fn completed(self, meta: EventMeta, out: &mut Out<'_>) {
        out.task(Completed { meta, task_id: self.id, failed_steps: 0 });
    }

    pub(crate) fn failed(self, reason: &str, meta: EventMeta, out: &mut Out<'_>) {
        out.task(Failed { meta, task_id: self.id, reason: reason.to_owned(), detail: None });
    }

    pub(crate) fn cancelled(self, meta: EventMeta, out: &mut Out<'_>) {
        out.task(Cancelled { meta, task_id: self.id, reason: "requested".to_owned(), detail: None });
    }

    pub(crate) fn rejected(self, meta: EventMeta, out: &mut Out<'_>) {
        let detail = Some("no way to the first node".to_owned());
        out.task(Rejected {
            meta,
            task_id: self.id,
            update_id: None,
            reason: "noRouteError".to_owned(),
            detail,
        });
    }
}
