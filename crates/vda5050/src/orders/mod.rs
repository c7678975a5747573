//! `order` and what the states say of it → the events of a task.
//!
//! An order becomes a task when its message is seen. Everything after that is told by the vehicle's states: that it
//! took the order, that work is visible, that a step moved on, that the order is over. The definitions are those of the
//! recording's `facts.py`.

mod life;
mod plan;

use std::collections::{BTreeSet, HashMap, VecDeque};

use fleetlog_event::{
    UnitKey, decode_id, encode_id,
    task::{Created, Rejected, StepStatus},
};
use serde_json::Value;

use crate::{
    DeadReason, Verdict,
    emit::Emit,
    faults::error_type,
    json::{ID_BYTES_MAX, elements, text, to_text},
    mapper::Mapped,
    outcome::Dead,
};

/// How many orders are remembered per vehicle, over or not. Beyond it the one that was longest not heard of is
/// forgotten: a message that names it again is then one about a new order.
pub const ORDERS_MAX: usize = 4096;

/// How many `cancelOrder` requests are remembered per vehicle; the oldest is forgotten first.
const CANCELS_MAX: usize = 1024;

/// The task that stands for an order of a vehicle: `<unit key>.o<order id>`, percent-encoded as in the unit key, so
/// that it is unique among all vehicles and [`unit_and_order_of`] can take it apart. None if it would be longer than an
/// event's key may be (512 bytes).
#[must_use]
pub fn task_id(site_uid: &str, unit_uid: &str, order_id: &str) -> Option<String> {
    let id = format!("{}.o{}", UnitKey::new(site_uid, unit_uid), encode_id(order_id));
    (id.len() <= ID_BYTES_MAX).then_some(id)
}

/// Undoes [`task_id`]: the unit and the `orderId`. None if the task does not stand for an order.
#[must_use]
pub fn unit_and_order_of(task_id: &str) -> Option<(UnitKey, String)> {
    let (unit, order) = task_id.rsplit_once(".o")?;
    Some((UnitKey::parse(unit).ok()?, decode_id(order).ok()?))
}

/// The orders of one vehicle.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    by_id: HashMap<String, Order>,
    /// The `orderId` of the last state; empty if that said that there is none.
    current: Option<String>,
    /// `actionId`s of the `cancelOrder` requests, oldest first, and whether the vehicle has finished them.
    cancels: VecDeque<(String, bool)>,
    /// Counts what was heard, to know which order was longest not heard of.
    tick: u64,
}

/// Where an order stands: the state of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Assigned,
    Started,
    Paused,
    /// Rejected before it was accepted, completed, failed or cancelled: nothing moves it any more.
    Over,
}

#[derive(Debug)]
struct Order {
    task_id: String,
    phase: Phase,
    /// The `orderUpdateId`s seen, with the `sequenceId` of their last node.
    updates: HashMap<String, Option<i64>>,
    /// The `sequenceId` of the first node that any message named.
    first_sequence_id: Option<i64>,
    /// The order's own actions, with the status last told of in an event; none where no event told of the step yet.
    steps: HashMap<String, Option<StepStatus>>,
    /// The `orderUpdateId`s that the vehicle refused.
    rejected: BTreeSet<String>,
    heard: u64,
}

impl Orders {
    /// A message on `order`: a new order, an update, or one seen before.
    pub(crate) fn on_order(&mut self, body: &Value, emit: &mut Emit<'_>) -> Mapped {
        let order_id = text(body, "orderId")
            .ok_or_else(|| (DeadReason::MissingField, "`orderId` is not there, or no text".to_owned()))?;
        let update_id = update_id(body.get("orderUpdateId"));
        let (new, order) = self.remember(order_id, emit)?;
        let plan = plan::read(body, emit);
        let known_update = order.updates.contains_key(&update_id);
        if order.phase != Phase::Over && !known_update {
            order.updates.insert(update_id, plan.last_sequence_id);
            order.first_sequence_id = order.first_sequence_id.or(plan.first_sequence_id);
            let told = new.then_some(StepStatus::Waiting);
            for step in &plan.steps {
                order.steps.entry(step.step_id.clone()).or_insert(told);
            }
        }
        if !new {
            return Ok(if known_update { Verdict::NoChange } else { Verdict::Noted });
        }
        let task_id = order.task_id.clone();
        emit.task(plan.into_created(emit.meta(), task_id, order_id));
        Ok(Verdict::Mapped)
    }

    /// A `cancelOrder` was asked for: what it cancels is told when the vehicle has finished it.
    pub(crate) fn cancel_requested(&mut self, action_id: &str) {
        if self.cancels.iter().any(|(known, _)| known == action_id) {
            return;
        }
        if self.cancels.len() == CANCELS_MAX {
            self.cancels.pop_front();
        }
        self.cancels.push_back((action_id.to_owned(), false));
    }

    /// What a state says of orders. The order before the current one ends first, so that a stitched order begins after
    /// it; a refused update is told after the acceptance of what it was to change.
    pub(crate) fn on_state(&mut self, body: &Value, emit: &mut Emit<'_>) {
        if let Some(order_id) = text(body, "orderId") {
            self.leave_previous(order_id, emit);
            self.tick += 1;
            if let Some(order) = self.by_id.get_mut(order_id) {
                order.heard = self.tick;
                order.progress(body, emit);
            }
        }
        for error in elements(body, "errors") {
            self.on_error(error, emit);
        }
        if let Some(order_id) = text(body, "orderId") {
            let cancelled = self.newly_cancelled(body);
            if let Some(order) = self.by_id.get_mut(order_id) {
                order.finish(body, cancelled, emit);
            }
        }
    }

    fn leave_previous(&mut self, order_id: &str, emit: &mut Emit<'_>) {
        if self.current.as_deref() == Some(order_id) {
            return;
        }
        let previous = self.current.replace(order_id.to_owned());
        if let Some(order) = previous.and_then(|previous| self.by_id.get_mut(&previous)) {
            order.left_for(order_id, emit);
        }
    }

    /// Whether a requested `cancelOrder` is finished in this state, and was not in one before.
    fn newly_cancelled(&mut self, body: &Value) -> bool {
        let mut any = false;
        for action in elements(body, "actionStates").iter().chain(elements(body, "instantActionStates")) {
            if text(action, "actionStatus") != Some("FINISHED") {
                continue;
            }
            let Some(id) = text(action, "actionId") else { continue };
            for (_, finished) in self.cancels.iter_mut().filter(|(known, finished)| known == id && !finished)
            {
                *finished = true;
                any = true;
            }
        }
        any
    }

    /// An error that refers to an order refuses it, or an update of it. It stands in every state until the next
    /// accepted order, and counts once.
    fn on_error(&mut self, error: &Value, emit: &mut Emit<'_>) {
        let Some((order_id, update)) = refused(error) else { return };
        let Ok((new, order)) = self.remember(&order_id, emit) else { return };
        if !order.rejected.insert(update.clone()) {
            return;
        }
        let task_id = order.task_id.clone();
        if order.phase == Phase::Created {
            order.end();
        }
        if new {
            emit.task(plan::Plan::unseen().into_created(emit.meta(), task_id.clone(), &order_id));
        }
        let reason = error_type(error, emit);
        emit.task(Rejected {
            meta: emit.meta(),
            task_id,
            update_id: Some(update),
            reason,
            detail: text(error, "errorDescription").map(str::to_owned),
        });
    }

    /// The order of that id, and whether it is new.
    fn remember(&mut self, order_id: &str, emit: &Emit<'_>) -> Result<(bool, &mut Order), Dead> {
        let task_id = task_id(emit.site_uid, &emit.unit_uid, order_id).ok_or_else(|| {
            let detail = format!("`orderId` has {} bytes: no room for it in a key", order_id.len());
            (DeadReason::TooLong, detail)
        })?;
        self.tick += 1;
        let new = !self.by_id.contains_key(order_id);
        if new {
            self.forget_one();
        }
        let order = self.by_id.entry(order_id.to_owned()).or_insert_with(|| Order::new(task_id));
        order.heard = self.tick;
        Ok((new, order))
    }

    fn forget_one(&mut self) {
        if self.by_id.len() < ORDERS_MAX {
            return;
        }
        let current = self.current.as_ref();
        let others = self.by_id.iter().filter(|(id, _)| Some(*id) != current);
        if let Some(id) = others.min_by_key(|(_, order)| order.heard).map(|(id, _)| id.clone()) {
            self.by_id.remove(&id);
        }
    }
}

/// An `orderUpdateId` as text: some send the number as a string, and it is the same update.
fn update_id(value: Option<&Value>) -> String {
    value.map(to_text).unwrap_or_default()
}

/// The (order, update) that an error refuses, by its references. An error with an `actionId` is about that action, not
/// about the order, unless it is an `orderError`.
fn refused(error: &Value) -> Option<(String, String)> {
    let last = |key: &str| {
        let mut references = elements(error, "errorReferences").iter().rev();
        references.find(|reference| text(reference, "referenceKey") == Some(key))?.get("referenceValue")
    };
    if last("topic")?.as_str() != Some("order") {
        return None;
    }
    if last("actionId").is_some() && text(error, "errorType") != Some("orderError") {
        return None;
    }
    Some((last("orderId")?.as_str()?.to_owned(), update_id(last("orderUpdateId"))))
}

impl plan::Plan {
    /// Of an order that a rejection named, and no message.
    fn unseen() -> Self {
        let mut plan = Self::default();
        plan.parameters.insert("known_from".to_owned(), "rejection".to_owned());
        plan
    }

    fn into_created(self, meta: fleetlog_event::EventMeta, task_id: String, order_id: &str) -> Created {
        Created {
            meta,
            task_id,
            task_type: self.task_type.to_owned(),
            priority: 0,
            external_id: Some(order_id.to_owned()),
            steps: self.steps,
            parameters: self.parameters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_task_id_is_readable() {
        assert_eq!(
            task_id("werk2", "AltTrans/AT:17", "520021").as_deref(),
            Some("swerk2.uAltTrans%2FAT%3A17.o520021")
        );
        assert_eq!(task_id("a", "b/c", &"x".repeat(512)), None);
        assert_eq!(unit_and_order_of("task-1"), None);
    }

    proptest! {
        #[test]
        fn a_task_id_can_be_taken_apart(site in ".{0,20}", unit in ".{0,20}", order in ".{0,20}") {
            if let Some(id) = task_id(&site, &unit, &order) {
                prop_assert_eq!(unit_and_order_of(&id), Some((UnitKey::new(site, unit), order)));
            }
        }
    }
}
