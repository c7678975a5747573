//! A recount beside a redrive: ledger and store change together, and are read one after the other.

use std::collections::BTreeMap;

use fleetlog_projection::LaneId;

use crate::{Log, Report, VerifyError, progress::LaneSource};

/// Recounts before what differs is told though ledgers changed meanwhile.
const RECOUNTS_MAX: usize = 5;

/// Counts until nothing differs, or the ledgers are after it as they were before: then what differs does.
pub(crate) async fn settled<L: Log>(
    log: &L,
    store: &impl LaneSource,
    (projection, version, stems): (&str, u32, &[&str]),
    recount: impl AsyncFn() -> Result<Report, VerifyError>,
) -> Result<Report, VerifyError> {
    let ledgers = async || {
        let mut ledgers = BTreeMap::new();
        for stem in stems {
            let topic = log.topic(stem).await?;
            for (partition, _) in topic.numbered() {
                let projection = projection.to_owned();
                let lane = LaneId { projection, version, topic: topic.name.clone(), partition };
                let named = store.ledger(&lane, topic.log).await?;
                ledgers.insert(lane, named);
            }
        }
        Ok::<_, VerifyError>(ledgers)
    };
    let mut before = ledgers().await?;
    for _ in 1..RECOUNTS_MAX {
        let report = recount().await?;
        if report.is_clean() {
            return Ok(report);
        }
        let after = ledgers().await?;
        if after == before {
            return Ok(report);
        }
        before = after;
    }
    recount().await
}
