//! What an order message says is to be done.

use std::collections::BTreeMap;

use fleetlog_event::task::Step;
use serde_json::Value;

use crate::{
    emit::Emit,
    json::{elements, filled, text, whole},
};

/// An order's plan, as far as one message tells it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) task_type: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) first_sequence_id: Option<i64>,
    pub(super) last_sequence_id: Option<i64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            task_type: task_type(&[]),
            steps: Vec::new(),
            parameters: BTreeMap::new(),
            first_sequence_id: None,
            last_sequence_id: None,
        }
    }
}

/// VDA 5050 has no kinds of order: its actions tell.
fn task_type(steps: &[Step]) -> &'static str {
    let has = |kind: &str| steps.iter().any(|step| step.step_type.as_deref() == Some(kind));
    match () {
        () if has("pick") || has("drop") => "transport",
        () if has("startCharging") => "charge",
        () => "move",
    }
}

/// Reads nodes and edges, whichever of them are there: the actions on them, in the order of `sequenceId`, are the
/// steps.
pub(super) fn read(body: &Value, emit: &mut Emit<'_>) -> Plan {
    let nodes = elements(body, "nodes");
    let places = nodes.iter().map(|node| (node, "nodeId"));
    let ways = elements(body, "edges").iter().map(|edge| (edge, "edgeId"));
    let mut elements_in_order: Vec<(&Value, &str)> = places.chain(ways).collect();
    elements_in_order.sort_by_key(|(element, _)| whole(element, "sequenceId").unwrap_or(i64::MAX));
    let mut steps = Vec::new();
    for (element, id) in elements_in_order {
        for action in elements(element, "actions") {
            let Some(action_id) = filled(action, "actionId") else {
                emit.omitted.push("actions (an action without actionId)");
                continue;
            };
            steps.push(Step {
                step_id: emit.fit("actions.actionId", action_id),
                step_type: text(action, "actionType").map(str::to_owned),
                node_id: text(element, id).map(str::to_owned),
            });
        }
    }
    Plan {
        task_type: task_type(&steps),
        steps,
        parameters: parameters(body, nodes),
        first_sequence_id: nodes.first().and_then(|node| whole(node, "sequenceId")),
        last_sequence_id: nodes.last().and_then(|node| whole(node, "sequenceId")),
    }
}

fn parameters(body: &Value, nodes: &[Value]) -> BTreeMap<String, String> {
    let node = |node: Option<&Value>| node.and_then(|node| text(node, "nodeId")).map(str::to_owned);
    [
        ("first_node_id", node(nodes.first())),
        ("last_node_id", node(nodes.last())),
        ("zone_set_id", text(body, "zoneSetId").map(str::to_owned)),
        ("description", text(body, "orderDescription").map(str::to_owned)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
