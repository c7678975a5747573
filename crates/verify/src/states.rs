//! Folding the log again: what all stores of folds are compared with.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetlog_event::{EntityKey, EventSet, Recorded, Reject};
use fleetlog_projection::{FoldProjector, LaneId};

use crate::{
    Kind, Log, Report, Topic, VerifyError,
    entity::Expected,
    judged::{self, Judged, Part},
    progress::Lane,
};

/// An entity that is further than the part of the log that was folded.
pub(crate) struct Ahead<S, T> {
    /// One past the last event that it took.
    pub(crate) next: i64,
    /// What the log makes of it, as far as it was folded.
    pub(crate) expected: Option<Expected<S>>,
    /// What the store showed of it.
    pub(crate) seen: T,
}

/// The states that the lane's part of the log makes, without the events that its ledger names.
pub(crate) async fn fold_part<P: FoldProjector, L: Log>(
    projector: &P,
    log: &L,
    (lane, topic): (&Lane, &Topic),
    named: &BTreeSet<i64>,
    report: &mut Report,
) -> Result<HashMap<EntityKey, Expected<P::State>>, VerifyError> {
    let mut unseen: BTreeSet<i64> = named.range(lane.low..lane.to.max(lane.low)).copied().collect();
    let mut expected: HashMap<EntityKey, Expected<P::State>> = HashMap::new();
    let part = Part { topic, partition: lane.id.partition, from: lane.low, to: lane.to };
    judged::each::<L, P::Event>(log, part, |offset, judged| {
        let rejected = match judged {
            Judged::Duplicate => {
                report.duplicates += 1;
                return;
            }
            _ if named.contains(&offset) => {
                unseen.remove(&offset);
                report.set_aside += 1;
                return;
            }
            Judged::Rejected(reject) => Err(reject),
            Judged::Event(event) => take(projector, &mut expected, &event),
        };
        if let Err(reject) = rejected {
            not_set_aside(report, &lane.id, offset, &reject);
        }
    })
    .await?;
    for offset in unseen.into_iter().filter(|offset| !lane.is_cut_near(*offset, topic)) {
        report.differ(Kind::Extra, at(&lane.id, offset), || {
            "the ledger names it, but the log has no event there, or a duplicate".to_owned()
        });
    }
    Ok(expected)
}

/// Reads the log on for entities that took more than was folded, each up to its own version; where the log ends now.
pub(crate) async fn read_on<P: FoldProjector, L: Log, T: Send>(
    projector: &P,
    log: &L,
    (lane, topic): (&Lane, &Topic),
    named: &BTreeSet<i64>,
    ahead: &mut BTreeMap<EntityKey, Ahead<P::State, T>>,
    report: &mut Report,
) -> Result<i64, VerifyError> {
    let now = log.topic(P::Event::TOPICS[0]).await?;
    let end =
        now.numbered().nth(usize::try_from(lane.id.partition).unwrap_or(0)).map_or(0, |(_, range)| range.end);
    let to = ahead.values().map(|ahead| ahead.next).max().unwrap_or(lane.to).min(end);
    debug_assert_eq!(now.name, topic.name);
    let part = Part { topic: &now, partition: lane.id.partition, from: lane.to, to };
    judged::each::<L, P::Event>(log, part, |offset, judged| {
        let Judged::Event(event) = judged else { return };
        let Some(entity) = ahead.get_mut(&event.key).filter(|entity| offset < entity.next) else {
            return;
        };
        if named.contains(&offset) {
            return;
        }
        let mut one: HashMap<_, _> =
            entity.expected.take().map(|e| (event.key.clone(), e)).into_iter().collect();
        if let Err(reject) = take(projector, &mut one, &event) {
            not_set_aside(report, &lane.id, offset, &reject);
        }
        entity.expected = one.remove(&event.key);
    })
    .await?;
    Ok(end)
}

/// Takes an event into its entity's state, on a copy: a rejected one leaves no trace.
fn take<P: FoldProjector>(
    projector: &P,
    expected: &mut HashMap<EntityKey, Expected<P::State>>,
    event: &Recorded<P::Event>,
) -> Result<(), Reject> {
    let mut state = expected.get(&event.key).map(|expected| expected.state.clone()).unwrap_or_default();
    projector.apply(&mut state, event)?;
    expected.insert(event.key.clone(), Expected { state, next: event.position.offset + 1 });
    Ok(())
}

/// `lane offset`, for reports.
pub(crate) fn at(lane: &LaneId, offset: i64) -> String {
    format!("{}/{} offset {offset}", lane.topic, lane.partition)
}

/// An event that the projection could not take, and that its ledger does not name.
pub(crate) fn not_set_aside(report: &mut Report, lane: &LaneId, offset: i64, reject: &Reject) {
    report.differ(Kind::Missing, at(lane, offset), || {
        format!("cannot be taken ({reject}), and is not set aside")
    });
}
