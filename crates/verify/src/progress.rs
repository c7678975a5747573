//! Where the lanes are, and how far they can be compared.

use std::{collections::BTreeSet, time::Duration};

use fleetlog_event::LogId;
use fleetlog_projection::LaneId;
use tokio::time::Instant;

use crate::{LaneRange, Report, Topic, VerifyError, VerifySettings, hot_store::LaneProgress};

/// A lane and the part `[low, to)` of the log that it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    /// Where the log begins.
    pub(crate) low: i64,
    /// The end that the log had at the start, or progress where it is behind that.
    pub(crate) to: i64,
    /// Where the lane was when it was read.
    pub(crate) progress: i64,
}

impl Lane {
    /// Whether retention took records by which the one at `offset` could be a duplicate: then nobody can tell.
    pub(crate) fn is_cut_near(&self, offset: i64, topic: &Topic) -> bool {
        self.low > 0 && offset < self.low + topic.dedup_span_offsets
    }
}

/// What a store says of its lanes.
pub(crate) trait LaneSource: Sync {
    /// The lane's progress; none if it never wrote.
    fn progress(
        &self,
        lane: &LaneId,
    ) -> impl Future<Output = Result<Option<LaneProgress>, VerifyError>> + Send;

    /// The offsets of `log` that the lane's ledger names and whose events were not taken later on, by a redrive.
    fn ledger(
        &self,
        lane: &LaneId,
        log: LogId,
    ) -> impl Future<Output = Result<BTreeSet<i64>, VerifyError>> + Send;
}

/// How often progress is read while it is waited for.
const EVERY: Duration = Duration::from_millis(200);

/// Waits until every lane of the topic has reached the end that it has now, at most as long as the settings say.
/// Enters the lanes into the report, with how far each is behind.
pub(crate) async fn await_progress(
    projection: &str,
    version: u32,
    topic: &Topic,
    source: &impl LaneSource,
    settings: &VerifySettings,
    report: &mut Report,
) -> Result<Vec<Lane>, VerifyError> {
    let deadline = Instant::now() + Duration::from_millis(settings.wait_ms);
    let mut lanes = Vec::new();
    for (partition, range) in topic.numbered() {
        let id = LaneId { projection: projection.to_owned(), version, topic: topic.name.clone(), partition };
        let progress = loop {
            let progress = read(source, &id, topic, range.low).await?;
            if progress >= range.end || Instant::now() >= deadline {
                break progress;
            }
            tokio::time::sleep(EVERY).await;
        };
        let behind = (range.end - progress).max(0);
        let to = range.end.min(progress).max(range.low);
        report.behind += behind;
        report.lanes.push(LaneRange { topic: topic.name.clone(), partition, from: range.low, to, behind });
        lanes.push(Lane { id, low: range.low, to, progress });
    }
    Ok(lanes)
}

async fn read(source: &impl LaneSource, id: &LaneId, topic: &Topic, low: i64) -> Result<i64, VerifyError> {
    match source.progress(id).await? {
        // A lane that never wrote has taken nothing of what is there.
        None => Ok(low),
        Some(progress) if progress.log == topic.log => Ok(progress.main),
        Some(progress) => {
            Err(VerifyError::OtherLog { lane: id.to_string(), stored: progress.log, found: topic.log })
        }
    }
}
