//! Whether hot state of units is whole. While it is folded anew (a Redis that was lost, a rebuild) its lists hold a part of
//! the units, and a part must not be told for all.

use fleetlog_event::{LogId, catalogue::physical_name};
use fleetlog_kafka::{KafkaSettings, Offsets};
use fleetlog_projection::LaneId;
use fleetlog_projections::Described;
use fleetlog_sink_redis::HotReader;
use tokio::sync::Mutex;

use crate::{config::Config, lanes, wiring};

/// Looks at the lanes of one projection of hot state.
pub(super) struct Whole {
    hot: HotReader,
    kafka: KafkaSettings,
    topic_prefix: String,
    projections: Vec<Described>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How far each lane has to be: where its partition ended at the first look, and then the furthest that it was seen.
    lanes: Vec<Wanted>,
    /// Whether it was said that some lane is not there yet.
    is_told: bool,
}

#[derive(Debug)]
struct Wanted {
    lane: LaneId,
    /// None before the lane was seen.
    log: Option<LogId>,
    /// None where the partition was empty: the lane may have written nothing.
    next: Option<i64>,
}

/// How a lane stands to what is wanted of it.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    There,
    Behind,
    /// The topic was made anew: what was wanted is of another log.
    OnAnotherLog,
}

impl Whole {
    /// For the lanes of a projection. Connects when it is asked.
    pub(super) fn new(config: &Config, projection: &str) -> anyhow::Result<Self> {
        Ok(Self {
            hot: HotReader::open(wiring::redis_settings(config)?)?,
            kafka: wiring::kafka_settings(config),
            topic_prefix: config.kafka.topic_prefix.clone(),
            projections: lanes::chosen(&[projection.to_owned()])?,
            seen: Mutex::new(Seen::default()),
        })
    }

    /// Whether every lane has taken what lay on the log at the first look, and stands nowhere before where it stood.
    pub(super) async fn is_whole(&self) -> anyhow::Result<bool> {
        let mut seen = self.seen.lock().await;
        if seen.lanes.is_empty() {
            seen.lanes = self.ends().await?;
        }
        let lanes: Vec<LaneId> = seen.lanes.iter().map(|wanted| wanted.lane.clone()).collect();
        let progress = self.hot.progress(&lanes).await?;
        let standings: Vec<Standing> =
            seen.lanes.iter_mut().zip(progress).map(|(wanted, progress)| wanted.stand(progress)).collect();
        if standings.contains(&Standing::OnAnotherLog) {
            seen.lanes.clear();
        }
        let behind = standings.iter().filter(|standing| **standing != Standing::There).count();
        if behind > 0 && !seen.is_told {
            tracing::info!(
                lanes = behind,
                "figures of units are left out of /metrics while lanes of hot state are behind where they have to be"
            );
        }
        seen.is_told = behind > 0;
        Ok(behind == 0)
    }

    /// Where the lanes' partitions end now.
    async fn ends(&self) -> anyhow::Result<Vec<Wanted>> {
        // For this one question: a client that nobody asks any more would only keep connections, and its log.
        let offsets = Offsets::new(&self.kafka)?;
        let mut lanes = Vec::new();
        for projection in &self.projections {
            for stem in projection.topics {
                let topic = physical_name(&self.topic_prefix, stem);
                let ranges = offsets.ranges(&[&topic]).await?;
                lanes.extend(ranges.into_iter().map(|((topic, partition), range)| Wanted {
                    lane: lanes::lane_id(projection, &topic, partition),
                    log: None,
                    next: (range.end > range.low).then_some(range.end),
                }));
            }
        }
        Ok(lanes)
    }
}

impl Wanted {
    /// Compares with progress, and from now on wants that.
    fn stand(&mut self, progress: Option<(LogId, i64)>) -> Standing {
        match (self.next, progress) {
            (None, None) => Standing::There,
            (Some(_), None) => Standing::Behind,
            (_, Some((log, _))) if self.log.is_some_and(|known| known != log) => Standing::OnAnotherLog,
            (Some(wanted), Some((_, next))) if next < wanted => Standing::Behind,
            (_, Some((log, next))) => {
                (self.log, self.next) = (Some(log), Some(next));
                Standing::There
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LOG: LogId = LogId(Uuid::from_u128(1));

    fn wanted(next: Option<i64>) -> Wanted {
        let lane =
            LaneId { projection: "unit-status".into(), version: 1, topic: "robot".into(), partition: 0 };
        Wanted { lane, log: None, next }
    }

    #[test]
    fn a_lane_is_there_once_it_has_taken_what_lay_on_the_log_and_as_long_as_it_does_not_fall_back() {
        let mut lane = wanted(Some(10));
        assert_eq!(lane.stand(None), Standing::Behind);
        assert_eq!(lane.stand(Some((LOG, 9))), Standing::Behind);
        assert_eq!(lane.stand(Some((LOG, 10))), Standing::There);
        assert_eq!(lane.stand(Some((LOG, 25))), Standing::There);
        assert_eq!(lane.stand(Some((LOG, 24))), Standing::Behind, "it fell back behind what was seen");
        assert_eq!(lane.stand(None), Standing::Behind);
        assert_eq!(lane.stand(Some((LOG, 25))), Standing::There);
        assert_eq!(lane.stand(Some((LogId(Uuid::from_u128(2)), 3))), Standing::OnAnotherLog);
    }

    #[test]
    fn a_lane_of_an_empty_partition_may_have_written_nothing() {
        let mut lane = wanted(None);
        assert_eq!(lane.stand(None), Standing::There);
        assert_eq!(lane.stand(Some((LOG, 3))), Standing::There);
        assert_eq!(lane.stand(None), Standing::Behind, "it had written");
    }
}
