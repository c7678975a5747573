//! The `errors` of a state → `FaultRaised`, `FaultCleared`.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::robot::{FaultCleared, FaultLevel, FaultRaised};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    emit::Emit,
    json::{elements, filled, pairs, text, to_text},
    vehicle::Vehicle,
};

/// `errors` are the conditions that hold now, not events: what was not there before is raised, what is no longer
/// there is cleared. Without the list nothing is known, and nothing changes.
pub(crate) fn map(vehicle: &mut Vehicle, body: &Value, emit: &mut Emit<'_>) {
    if !body.get("errors").is_some_and(Value::is_array) {
        return;
    }
    let errors: Vec<(String, &Value)> = elements(body, "errors")
        .iter()
        .filter(|error| error.is_object())
        .map(|error| (fault_id(error), error))
        .collect();
    let held: BTreeSet<&String> = errors.iter().map(|(id, _)| id).collect();
    let cleared: Vec<String> = vehicle.faults.keys().filter(|id| !held.contains(id)).cloned().collect();
    for fault_id in cleared {
        if let Some(fault_type) = vehicle.faults.remove(&fault_id) {
            emit.robot(FaultCleared { meta: emit.meta(), fault_id, fault_type });
        }
    }
    for (fault_id, error) in errors {
        if !vehicle.faults.contains_key(&fault_id) {
            let raised = raised(fault_id, error, emit);
            vehicle.faults.insert(raised.fault_id.clone(), raised.fault_type.clone());
            emit.robot(raised);
        }
    }
}

/// The kind of an error.
pub(crate) fn error_type(error: &Value, emit: &mut Emit<'_>) -> String {
    emit.fit("errors.errorType", filled(error, "errorType").unwrap_or("unknown"))
}

/// The references of an error; several values of one key are joined.
pub(crate) fn references(error: &Value) -> BTreeMap<String, String> {
    pairs(elements(error, "errorReferences"), "referenceKey", "referenceValue")
}

/// Type, description and references, in any order, make the fault; the level may change while it holds.
fn fault_id(error: &Value) -> String {
    let mut references: Vec<(&str, String)> = elements(error, "errorReferences")
        .iter()
        .map(|reference| {
            let value = reference.get("referenceValue").map(to_text).unwrap_or_default();
            (text(reference, "referenceKey").unwrap_or_default(), value)
        })
        .collect();
    references.sort_unstable();
    let identity = serde_json::json!([error.get("errorType"), error.get("errorDescription"), references]);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, identity.to_string().as_bytes()).hyphenated().to_string()
}

fn raised(fault_id: String, error: &Value, emit: &mut Emit<'_>) -> FaultRaised {
    let level = match text(error, "errorLevel") {
        Some("WARNING") => FaultLevel::Warning,
        Some("URGENT") => FaultLevel::Urgent,
        Some("CRITICAL") => FaultLevel::Critical,
        Some("FATAL") => FaultLevel::Fatal,
        _ => {
            emit.omitted.push("errors.errorLevel");
            FaultLevel::Unknown
        }
    };
    FaultRaised {
        fault_type: error_type(error, emit),
        meta: emit.meta(),
        fault_id,
        level,
        description: text(error, "errorDescription").map(str::to_owned),
        references: references(error),
    }
}
