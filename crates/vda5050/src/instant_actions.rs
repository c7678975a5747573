//! `instantActions` → `ActionRequested`.

use fleetlog_event::robot::ActionRequested;
use serde_json::Value;

use crate::{
    DeadReason, Verdict,
    emit::Emit,
    json::{elements, filled, pairs},
    mapper::Mapped,
    vehicle::Vehicle,
};

/// One event per action. The library sends them as `instantActions` where 2.1.0 wants `actions`: both are read, the
/// first that is not empty.
pub(crate) fn map(vehicle: &mut Vehicle, body: &Value, emit: &mut Emit<'_>) -> Mapped {
    let lists = ["instantActions", "actions"];
    if !lists.iter().any(|name| body.get(name).is_some_and(Value::is_array)) {
        let detail = "neither `instantActions` nor `actions` is a list".to_owned();
        return Err((DeadReason::MissingField, detail));
    }
    let actions =
        lists.iter().map(|name| elements(body, name)).find(|list| !list.is_empty()).unwrap_or_default();
    for action in actions {
        let (Some(id), Some(action_type)) = (filled(action, "actionId"), filled(action, "actionType")) else {
            emit.omitted.push("instantActions (an action without actionId or actionType)");
            continue;
        };
        if action_type == "cancelOrder" {
            vehicle.orders.cancel_requested(id);
        }
        let action_id = emit.fit("instantActions.actionId", id);
        let action_type = emit.fit("instantActions.actionType", action_type);
        let parameters = pairs(elements(action, "actionParameters"), "key", "value");
        emit.robot(ActionRequested { meta: emit.meta(), action_id, action_type, parameters });
    }
    match (actions.is_empty(), emit.events.is_empty()) {
        (true, _) => Ok(Verdict::NoChange),
        (false, true) => {
            Err((DeadReason::MissingField, "no action has an `actionId` and an `actionType`".to_owned()))
        }
        (false, false) => Ok(Verdict::Mapped),
    }
}
