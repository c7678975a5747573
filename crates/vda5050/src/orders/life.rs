//! The life of one order, as the vehicle's states tell it.

use std::collections::{BTreeSet, HashMap};

use fleetlog_event::task::{
    Assigned, Cancelled, Completed, Failed, Paused, Resumed, Started, StepChanged, StepStatus,
};
use serde_json::Value;

use super::{Order, Phase, update_id};
use crate::{
    emit::Emit,
    json::{elements, flag, text, whole},
};

impl Order {
    pub(super) fn new(task_id: String) -> Self {
        Self {
            task_id,
            phase: Phase::Created,
            updates: HashMap::new(),
            first_sequence_id: None,
            steps: HashMap::new(),
            rejected: BTreeSet::new(),
            heard: 0,
        }
    }

    /// Nothing moves it any more; what was only needed to move it is forgotten.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Over;
        self.updates = HashMap::new();
        self.steps = HashMap::new();
    }

    fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Assigned | Phase::Started | Phase::Paused)
    }

    /// A state names this order: accepted if that update of it was seen, then begun, moved on, held or resumed.
    pub(super) fn progress(&mut self, body: &Value, emit: &mut Emit<'_>) {
        if self.phase == Phase::Created && self.reported_update(body).is_some() {
            self.phase = Phase::Assigned;
            emit.task(Assigned { meta: emit.meta(), task_id: self.task_id.clone() });
        }
        if !self.is_held() {
            return;
        }
        if self.phase == Phase::Assigned && self.work_is_visible(body) {
            self.start(emit);
        }
        self.steps_changed(body, emit);
        match (self.phase, flag(body, "paused")) {
            (Phase::Started, Some(true)) => {
                self.phase = Phase::Paused;
                emit.task(Paused { meta: emit.meta(), task_id: self.task_id.clone(), reason: None });
            }
            (Phase::Paused, Some(false)) => {
                self.phase = Phase::Started;
                emit.task(Resumed { meta: emit.meta(), task_id: self.task_id.clone() });
            }
            _ => {}
        }
    }

    /// The last node of the update that the state reports, if that update was seen.
    fn reported_update(&self, body: &Value) -> Option<Option<i64>> {
        self.updates.get(&update_id(body.get("orderUpdateId"))).copied()
    }

    /// The vehicle drives, or has passed the first node, or one of the order's actions no longer waits.
    fn work_is_visible(&self, body: &Value) -> bool {
        let passed = whole(body, "lastNodeSequenceId").zip(self.first_sequence_id);
        flag(body, "driving") == Some(true)
            || passed.is_some_and(|(last, first)| last > first)
            || self.own_actions(body).any(|(_, _, status)| status != StepStatus::Waiting)
    }

    fn start(&mut self, emit: &mut Emit<'_>) {
        self.phase = Phase::Started;
        emit.task(Started { meta: emit.meta(), task_id: self.task_id.clone() });
    }

    /// `actionStates` mixes the order's actions and instant actions, without a flag: the order's own are those that an
    /// order message named.
    fn own_actions<'a>(&self, body: &'a Value) -> impl Iterator<Item = (String, &'a Value, StepStatus)> {
        elements(body, "actionStates").iter().filter_map(|action| {
            let (id, _) = crate::json::fit(text(action, "actionId")?);
            self.steps.contains_key(&id).then(|| (id, action, status(action)))
        })
    }

    fn steps_changed(&mut self, body: &Value, emit: &mut Emit<'_>) {
        let actions: Vec<_> = self.own_actions(body).collect();
        for (step_id, action, status) in actions {
            if self.steps.get(&step_id) == Some(&Some(status)) {
                continue;
            }
            self.steps.insert(step_id.clone(), Some(status));
            let result = text(action, "resultDescription").or_else(|| text(action, "actionResult"));
            emit.task(StepChanged {
                meta: emit.meta(),
                task_id: self.task_id.clone(),
                step_id,
                step_type: text(action, "actionType").map(str::to_owned),
                status,
                result: result.map(str::to_owned),
            });
        }
    }

    /// The next state names another order, or none: it was stitched onto, or the vehicle restarted and forgot it.
    pub(super) fn left_for(&mut self, next_order_id: &str, emit: &mut Emit<'_>) {
        if !self.is_held() {
            return;
        }
        self.end();
        let (meta, task_id) = (emit.meta(), self.task_id.clone());
        if next_order_id.is_empty() {
            emit.task(Failed { meta, task_id, reason: "lost".to_owned(), detail: None });
        } else {
            let detail = Some(format!("followed by order {next_order_id}"));
            emit.task(Cancelled { meta, task_id, reason: "superseded".to_owned(), detail });
        }
    }

    /// Cancelled if a `cancelOrder` is finished in this state; completed if it is not, nothing is left to do, and the
    /// vehicle stands where the order ends. The order's id stays in the states afterwards: it is over once.
    pub(super) fn finish(&mut self, body: &Value, cancelled: bool, emit: &mut Emit<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        let (meta, task_id) = (emit.meta(), self.task_id.clone());
        if cancelled {
            self.end();
            emit.task(Cancelled { meta, task_id, reason: "requested".to_owned(), detail: None });
            return;
        }
        let Some(failed_steps) = self.is_held().then(|| self.done(body)).flatten() else { return };
        if self.phase == Phase::Assigned {
            self.start(emit);
        }
        self.end();
        emit.task(Completed { meta: emit.meta(), task_id, failed_steps });
    }

    /// How many steps failed, if the order is done.
    fn done(&self, body: &Value) -> Option<i32> {
        let nothing_left = |key: &str| body.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty);
        let at_the_end = whole(body, "lastNodeSequenceId") == self.reported_update(body)?;
        if !(nothing_left("nodeStates") && nothing_left("edgeStates") && at_the_end) {
            return None;
        }
        let mut failed_steps = 0;
        for (_, _, status) in self.own_actions(body) {
            match status {
                StepStatus::Finished => {}
                StepStatus::Failed => failed_steps += 1,
                _ => return None,
            }
        }
        Some(failed_steps)
    }
}

/// `PAUSED` is missing in the schemas of 2.0 and 2.1, and sent all the same.
fn status(action: &Value) -> StepStatus {
    match text(action, "actionStatus") {
        Some("WAITING") => StepStatus::Waiting,
        Some("INITIALIZING") => StepStatus::Initializing,
        Some("RUNNING") => StepStatus::Running,
        Some("PAUSED") => StepStatus::Paused,
        Some("RETRIABLE") => StepStatus::Retriable,
        Some("FINISHED") => StepStatus::Finished,
        Some("FAILED") => StepStatus::Failed,
        _ => StepStatus::Unknown,
    }
}
