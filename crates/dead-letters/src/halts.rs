//! Which projections and handlers stand still, and whose circuits are open, folded from topic `ops`.

use std::collections::{BTreeMap, HashSet};

use fleetlog_event::{
    EventId,
    ops::{CircuitChanged, OpsEvent, ProjectionHalted, ProjectionResumed},
};

/// What topic `ops` says of one consumer group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HaltState {
    /// The halt that nobody has answered, the newest.
    pub halt: Option<ProjectionHalted>,
    /// How often it was resumed, whether or not it was halted: whoever stopped with a failure waits for the next time.
    pub resumes: u64,
    /// How many more events each lane may set aside before its breaker counts: what came with the newest resume.
    pub set_asides_max: u64,
}

/// The halts on topic `ops`, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Halts {
    groups: BTreeMap<String, HaltState>,
    /// Halts that were taken: one whose acknowledgement was lost may come again, after it was answered.
    taken: HashSet<EventId>,
    /// Circuits that are not closed, by group and process.
    open: BTreeMap<(String, String), CircuitChanged>,
}

impl Halts {
    /// Takes the next event of the topic into account.
    pub fn take(&mut self, event: OpsEvent) {
        match event {
            OpsEvent::ProjectionHalted(halt) if self.taken.insert(halt.meta.event_id) => {
                let state = self.groups.entry(halt.group.clone()).or_default();
                state.halt = Some(halt);
                state.set_asides_max = 0;
            }
            OpsEvent::ProjectionResumed(ProjectionResumed { group, set_asides_max, .. }) => {
                let state = self.groups.entry(group).or_default();
                state.halt = None;
                state.resumes += 1;
                state.set_asides_max =
                    set_asides_max.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
            }
            OpsEvent::CircuitChanged(change) => {
                let whose = (change.group.clone(), change.who.clone());
                if change.is_open() {
                    self.open.insert(whose, change);
                } else {
                    self.open.remove(&whose);
                }
            }
            // Says nothing of either.
            _ => {}
        }
    }

    /// The circuits of a group that are open, one for each process that said so. One that was killed has not taken it back, and
    /// does when it is started again under its name.
    pub fn open_circuits<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a CircuitChanged> {
        self.open.iter().filter(move |((of, _), _)| of == group).map(|(_, change)| change)
    }

    /// What it says of a group.
    #[must_use]
    pub fn of(&self, group: &str) -> HaltState {
        self.groups.get(group).cloned().unwrap_or_default()
    }
}
