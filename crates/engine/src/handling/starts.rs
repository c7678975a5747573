//! Where the lanes of a handler begin.

use std::sync::Arc;

use fleetlog_handler::{Handler, LaneKind};
use fleetlog_kafka::GroupOffsets;
use fleetlog_projection::LogNow;
use tracing::{debug, warn};

use super::{
    Shared, StartAt,
    told::{Teller, Told},
};
use crate::{
    LaneAt,
    ports::{LogFacts, Schemas},
};

/// Where a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: i64,
    /// Nothing was committed, and a later look would say another place: this one has to be committed first.
    pub(super) is_new: bool,
}

/// Where a partition begins that looks like this. (Partitions are never added to these topics: order per key hangs on their number.)
fn start(kind: LaneKind, log: &LogNow, committed: Option<i64>, start_at: StartAt) -> Start {
    match committed {
        Some(offset) if (log.low..=log.high).contains(&offset) => Start { offset, is_new: false },
        // Retention was faster, or the topic was made anew: what is there now is all there is.
        Some(_) => Start { offset: log.low, is_new: false },
        // What waits is never passed over.
        None if kind != LaneKind::Source || start_at == StartAt::Begin => {
            Start { offset: log.low, is_new: false }
        }
        None => Start { offset: log.high, is_new: true },
    }
}

impl<H: Handler, C: Schemas> Shared<H, C> {
    /// Looks how the logs are and what is committed, and tells it.
    pub(super) async fn find_starts(self: Arc<Self>, tell: Teller<H::Event>, lanes: Vec<LaneAt>) {
        let names: Vec<String> = self.topics.iter().map(|topic| topic.name.to_string()).collect();
        let look = || async {
            // What is committed first: the ends are those of a later moment.
            let committed = self.logs.port().committed(&self.group, &names).await?;
            Ok((self.logs.port().look(&names).await?, committed))
        };
        if let Some((facts, committed)) = self.insist("looking where to begin", &tell, look).await {
            tell.tell(Told::Found(lanes, facts, committed));
        }
    }

    /// Where each of these lanes begins; without those whose partition is not there.
    pub(super) fn starts(
        &self,
        lanes: &[LaneAt],
        facts: &LogFacts,
        committed: &GroupOffsets,
    ) -> Vec<(LaneAt, Start, LogNow)> {
        let start = |at: &LaneAt| {
            let topic = self.topics.get(at.topic)?;
            let place = (topic.name.to_string(), at.partition);
            let log = *facts.get(&place)?;
            let mine = committed.get(&place).copied();
            let start = start(topic.kind, &log, mine, self.settings.start_at);
            self.tell_start(&topic.name, &log, mine, start);
            Some((*at, start, log))
        };
        lanes.iter().filter_map(start).collect()
    }

    fn tell_start(&self, topic: &str, log: &LogNow, committed: Option<i64>, start: Start) {
        let (handler, partition, offset) = (&self.id, log.scope.partition, start.offset);
        match committed {
            Some(committed) if committed < log.low => {
                self.figures.lost(topic, log.low - committed);
                warn!(
                    handler,
                    topic,
                    partition,
                    "offsets {committed} to {} are gone: retention was faster than the handler; it goes on with what is there",
                    log.low
                );
            }
            Some(committed) if committed > log.high => warn!(
                handler,
                topic,
                partition,
                "offset {committed} was committed and the log ends at {}: it was made anew, and is read from its begin",
                log.high
            ),
            _ => debug!(handler, topic, partition, offset, is_new = start.is_new, "begins"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetlog_event::LogId;
    use fleetlog_projection::LaneScope;

    use super::*;

    #[test]
    fn where_a_lane_begins() {
        let scope = LaneScope { topic: 0, log: LogId(uuid::Uuid::nil()), partition: 0, partitions: 1 };
        let log = LogNow { scope, low: 100, high: 200 };
        let tier = LaneKind::Tier(Duration::from_secs(1));
        let at = |offset| Start { offset, is_new: false };
        let source = |committed, start_at| start(LaneKind::Source, &log, committed, start_at);
        for start_at in [StartAt::End, StartAt::Begin] {
            assert_eq!(source(Some(150), start_at), at(150));
            assert_eq!(source(Some(100), start_at), at(100));
            assert_eq!(source(Some(200), start_at), at(200));
            assert_eq!(source(Some(99), start_at), at(100), "retention was faster");
            assert_eq!(source(Some(201), start_at), at(100), "made anew");
            assert_eq!(start(tier, &log, None, start_at), at(100), "what waits is never passed over");
            assert_eq!(start(LaneKind::Held, &log, None, start_at), at(100));
        }
        assert_eq!(source(None, StartAt::Begin), at(100));
        assert_eq!(source(None, StartAt::End), Start { offset: 200, is_new: true });
    }
}
