//! Who redrives which group: a lease on topic `ops`, so that a second operator is told, and by whom.
//!
//! The lease is courtesy, the group's transactional id the wall: whoever takes over an expired lease fences the job that had it.

use std::collections::BTreeMap;

use fleetlog_event::{
    TimestampMs,
    ops::{OpsEvent, RedriveStarted},
};

/// How long a job has its groups after it was heard last, in milliseconds.
pub(crate) const LEASE_MS: i64 = 60_000;
/// How often a job is heard, in milliseconds.
pub(crate) const RENEW_MS: i64 = 15_000;

/// A job that redrives a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which job.
    pub action_id: String,
    /// Who.
    pub operator: String,
    /// Why.
    pub why: String,
    /// What was asked for.
    pub selection: String,
    /// Until when, if nothing more is heard.
    pub until: TimestampMs,
}

/// The leases, folded from topic `ops` in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    held: BTreeMap<String, Lease>,
}

impl Leases {
    /// Takes the next event of the topic into account. Of two jobs that start at a time the one whose event lies first has
    /// the group, and everybody who reads the topic sees the same.
    pub fn take(&mut self, event: &OpsEvent) {
        match event {
            OpsEvent::RedriveStarted(started) => self.started(started),
            OpsEvent::RedriveProgressed(event) => {
                if let Some(lease) = self.of(&event.group, &event.action_id) {
                    lease.until = lease.until.max(event.lease_until);
                }
            }
            OpsEvent::RedriveEnded(event) if self.of(&event.group, &event.action_id).is_some() => {
                self.held.remove(&event.group);
            }
            _ => {}
        }
    }

    /// Who has the group at that time.
    #[must_use]
    pub fn holder(&self, group: &str, now: TimestampMs) -> Option<&Lease> {
        self.held.get(group).filter(|lease| lease.until > now)
    }

    fn of(&mut self, group: &str, action_id: &str) -> Option<&mut Lease> {
        self.held.get_mut(group).filter(|lease| lease.action_id == action_id)
    }

    fn started(&mut self, event: &RedriveStarted) {
        let now = event.meta.recorded_at;
        let is_taken = self.holder(&event.group, now).is_some_and(|lease| lease.action_id != event.action_id);
        if !is_taken {
            let lease = Lease {
                action_id: event.action_id.clone(),
                operator: event.operator.clone(),
                why: event.why.clone(),
                selection: event.selection.clone(),
                until: event.lease_until,
            };
            self.held.insert(event.group.clone(), lease);
        }
    }
}
