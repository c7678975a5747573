//! `fault-totals`: how often each kind of fault was raised at each unit.
//!
//! Hash `faults:s{site}.u{unit}`: a field per kind of fault; sorted set `faulty:{site}`: units by their total.

use std::collections::BTreeMap;

use fleetlog_event::{EntityKey, EventSet, Recorded, Reject, robot::RobotEvent};
use fleetlog_projection::{FoldProjector, HotWrite};
use serde::{Deserialize, Serialize};

/// The totals of one unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultTotalsState {
    /// The unit's site.
    pub site_uid: String,
    /// How often, by kind.
    pub raised: BTreeMap<String, u64>,
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultTotals;

impl FoldProjector for FaultTotals {
    const ID: &'static str = "fault-totals";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = FaultTotalsState;

    fn home(&self, key: &EntityKey) -> String {
        format!("faults:{key}")
    }

    fn apply(&self, state: &mut FaultTotalsState, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        state.site_uid.clone_from(&event.event.meta().site_uid);
        if let RobotEvent::FaultRaised(fault) = &event.event {
            *state.raised.entry(fault.fault_type.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn writes(&self, key: &EntityKey, state: &FaultTotalsState, out: &mut Vec<HotWrite>) {
        for (fault_type, times) in &state.raised {
            out.push(HotWrite::Field { name: fault_type.clone().into(), value: Some(times.to_string()) });
        }
        let (list, member) = (format!("faulty:{}", state.site_uid), key.as_str().to_owned());
        let total: u64 = state.raised.values().sum();
        out.push(HotWrite::Ranked { list, member, score: Some(total as f64) });
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_event::robot::{FaultLevel, FaultRaised};
    use fleetlog_projection::Fold;
    use fleetlog_projection::given::{MemoryLog, assert_cuts_do_not_matter, given, unit_meta};

    use super::*;

    fn raised(fault_type: &str) -> RobotEvent {
        let (fault_id, fault_type) = ("f-1".to_owned(), fault_type.to_owned());
        let (meta, level, references) = (unit_meta("504", "7"), FaultLevel::Warning, BTreeMap::new());
        FaultRaised { meta, fault_id, fault_type, level, description: None, references }.into()
    }

    #[test]
    fn each_kind_of_fault_is_counted() {
        let _ = given(FaultTotals)
            .events(["blocked", "lost", "blocked"].map(raised))
            .then_field("s504.u7", "blocked", Some("2"))
            .then_ranked("s504.u7", "faulty:504", Some(3.0));
    }

    #[test]
    fn the_cut_of_the_log_does_not_matter() {
        let mut log = MemoryLog::default();
        (0..20).for_each(|n| _ = log.append(raised(if n % 3 == 0 { "lost" } else { "blocked" })));
        assert_cuts_do_not_matter(&Fold::new(FaultTotals), &log, &[1, 7, 3]);
    }
}
