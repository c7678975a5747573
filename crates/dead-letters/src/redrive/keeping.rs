//! A job's groups: taken before anything is sent, kept while it is at work, given back at its end.

use fleetlog_event::TimestampMs;

use super::{
    Lanes, Leases, Plan, RedriveError, Road,
    job::{Job, acknowledged, patiently},
    lease::{LEASE_MS, RENEW_MS},
    told::Ended,
};
use crate::letter::time_text;

/// How long saying that a job goes on may take, before it goes on without.
const RENEW_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

impl<L: Lanes, R: Road> Job<'_, L, R> {
    /// Takes the groups, or says who has one.
    pub(super) async fn lease(&mut self, plan: &Plan, groups: &[String]) -> Result<(), RedriveError> {
        if groups.is_empty() {
            return Ok(());
        }
        let patience = self.request.patience;
        let held = patiently(patience, async || self.road.leases().await).await?;
        self.refuse_if_held(&held, groups)?;
        let now = self.road.now();
        let until = TimestampMs(now.0.saturating_add(LEASE_MS));
        let mut events = Vec::new();
        for group in groups {
            let letters = plan.go.iter().filter(|candidate| candidate.lane.group == *group).count();
            events.push(self.audit(group).started(letters, now, until));
        }
        let write = async || self.road.write_down(events.clone()).await;
        acknowledged(patience, "taking the groups", write).await?;
        (self.leased, self.renewed_at) = (groups.to_vec(), now);
        let held = patiently(patience, async || self.road.leases().await).await?;
        if let Err(error) = self.refuse_if_held(&held, groups) {
            // Those that it did get are free again at once.
            self.done.ended = Ended::Stopped;
            self.end().await;
            return Err(error);
        }
        Ok(())
    }

    fn refuse_if_held(&self, leases: &Leases, groups: &[String]) -> Result<(), RedriveError> {
        let now = self.road.now();
        for group in groups {
            let other = leases.holder(group, now).filter(|lease| lease.action_id != self.request.action_id);
            if let Some(lease) = other {
                return Err(RedriveError::Held {
                    group: group.clone(),
                    by: Box::new(lease.clone()),
                    until: time_text(lease.until),
                });
            }
        }
        Ok(())
    }

    /// Says that the job goes on, when it is time to. A server that is away now is no reason to end: whoever takes over
    /// fences this job.
    pub(super) async fn keep(&mut self) {
        let now = self.road.now();
        if self.leased.is_empty() || now.0 - self.renewed_at.0 < RENEW_MS {
            return;
        }
        let until = TimestampMs(now.0.saturating_add(LEASE_MS));
        let groups = self.leased.clone();
        let events = groups.iter().map(|group| self.audit(group).progressed(now, until)).collect();
        if let Ok(Ok(())) = tokio::time::timeout(RENEW_TIMEOUT, self.road.write_down(events)).await {
            self.renewed_at = now;
        }
    }

    /// Gives the groups back, if the cluster can be reached; else their leases expire.
    pub(super) async fn end(&mut self) {
        let (now, end) = (self.road.now(), self.done.ended.written());
        let groups = std::mem::take(&mut self.leased);
        let mut events = Vec::new();
        for group in &groups {
            let outcomes = self.by_group.get(group).copied().unwrap_or_default();
            events.push(self.audit(group).ended(end, outcomes, now));
        }
        if !events.is_empty() {
            let _ = tokio::time::timeout(RENEW_TIMEOUT, self.road.write_down(events)).await;
        }
    }
}
