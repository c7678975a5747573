//! Hot state against the fold of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fleetlog_event::{EntityKey, EventSet, partition_of};
use fleetlog_projection::{FoldProjector, HotWrite};

use crate::{
    HotStore, Kind, Log, Report, Topic, VerifyError, VerifySettings,
    entity::{Expected, Look, Stored, compare, expires_at, places},
    hot_store::{Shown, Wanted},
    progress::{Lane, LaneSource, await_progress},
    settled::settled,
    states::{self, Ahead},
};

/// Entities read in one call.
const ENTITIES_PER_READ: usize = 200;

/// Folds the log and compares every entity with what Redis shows.
///
/// Works while the projection runs: progress is read first, then each entity with its places in lists at one moment,
/// then the ledger; an entity that is further than that progress is compared at its own version, for which the log
/// is read on. Expected states of one partition are held in memory at a time.
///
/// Events that are redriven meanwhile are no differences: then it is counted once more.
///
/// # Errors
/// When log or store cannot be read. Differences are no error: see [`Report::is_clean`].
pub async fn verify_fold<P, L>(
    projector: &P,
    log: &L,
    store: &HotStore,
    settings: &VerifySettings,
) -> Result<Report, VerifyError>
where
    P: FoldProjector<Write = HotWrite>,
    L: Log,
{
    let lanes = (P::ID, P::VERSION, P::Event::TOPICS);
    settled(log, store, lanes, async || recount(projector, log, store, settings).await).await
}

async fn recount<P, L>(
    projector: &P,
    log: &L,
    store: &HotStore,
    settings: &VerifySettings,
) -> Result<Report, VerifyError>
where
    P: FoldProjector<Write = HotWrite>,
    L: Log,
{
    let topic = log.topic(P::Event::TOPICS[0]).await?;
    let mut report = Report::new(P::ID, P::VERSION, settings);
    let lanes = await_progress(P::ID, P::VERSION, &topic, store, settings, &mut report).await?;
    let mut found = found_keys(projector, store, &topic).await?;
    let mut recount =
        Recount { projector, log, store, settings, topic: &topic, report, judged: HashMap::new() };
    for lane in lanes {
        let found = found.remove(&lane.id.partition).unwrap_or_default();
        recount.lane(&lane, found).await?;
    }
    recount.stray_members().await?;
    Ok(recount.report)
}

/// Keys of entities in the store, by the partition that their events must be in.
async fn found_keys<P: FoldProjector>(
    projector: &P,
    store: &HotStore,
    topic: &Topic,
) -> Result<HashMap<i32, BTreeSet<String>>, VerifyError> {
    const PROBE: &str = "fleetlog-probe";
    let home = projector.home(&EntityKey::from(PROBE));
    let (before, after) = home.split_once(PROBE).ok_or_else(|| {
        VerifyError::Malformed(format!(
            "projection `{}`: `{home}` does not hold the entity's key as it is",
            P::ID
        ))
    })?;
    let mut found: HashMap<i32, BTreeSet<String>> = HashMap::new();
    for name in store.names(before, after).await? {
        found.entry(partition_of(name.as_bytes(), topic.count())).or_default().insert(name);
    }
    Ok(found)
}

struct Recount<'a, P, L> {
    projector: &'a P,
    log: &'a L,
    store: &'a HotStore,
    settings: &'a VerifySettings,
    topic: &'a Topic,
    report: Report,
    /// By list: members that were compared, and are or wrongly were in it.
    judged: HashMap<String, HashSet<String>>,
}

/// What was read of an entity: its hash, and its places in the lists asked for.
type Seen = (Shown, Vec<(String, String)>);

impl<P, L> Recount<'_, P, L>
where
    P: FoldProjector<Write = HotWrite>,
    L: Log,
{
    async fn lane(&mut self, lane: &Lane, mut found: BTreeSet<String>) -> Result<(), VerifyError> {
        let named = self.store.ledger(&lane.id, self.topic.log).await?;
        let part = (lane, self.topic);
        let expected = states::fold_part(self.projector, self.log, part, &named, &mut self.report).await?;
        for key in expected.keys() {
            found.remove(key.as_str());
        }
        let unknown = found.into_iter().map(|name| (EntityKey::from(name), None));
        let mut entities: Vec<_> =
            expected.into_iter().map(|(key, expected)| (key, Some(expected))).chain(unknown).collect();
        entities.sort_by(|a, b| a.0.cmp(&b.0));
        let mut ahead = BTreeMap::new();
        let mut entities = entities.into_iter();
        loop {
            let chunk: Vec<_> = entities.by_ref().take(ENTITIES_PER_READ).collect();
            if chunk.is_empty() {
                break;
            }
            self.chunk(lane, chunk, &mut ahead).await?;
        }
        if ahead.is_empty() { Ok(()) } else { self.compare_ahead(lane, ahead).await }
    }

    async fn chunk(
        &mut self,
        lane: &Lane,
        chunk: Vec<(EntityKey, Option<Expected<P::State>>)>,
        ahead: &mut BTreeMap<EntityKey, Ahead<P::State, Seen>>,
    ) -> Result<(), VerifyError> {
        let wanted: Vec<Wanted> = chunk
            .iter()
            .map(|(key, expected)| Wanted {
                home: self.projector.home(key),
                places: expected.as_ref().map_or_else(Vec::new, |e| places(&self.writes(key, &e.state))),
            })
            .collect();
        let shown = self.store.entities(&wanted).await?;
        for (((key, expected), shown), wanted) in chunk.into_iter().zip(shown).zip(wanted) {
            if let Look::Ahead(next) =
                self.look(lane, &key, expected.as_ref(), &shown, &wanted.places, lane.to)
            {
                ahead.insert(key, Ahead { next, expected, seen: (shown, wanted.places) });
            }
        }
        Ok(())
    }

    /// Reads the log on for entities that took more than it, and compares each at its own version.
    async fn compare_ahead(
        &mut self,
        lane: &Lane,
        mut ahead: BTreeMap<EntityKey, Ahead<P::State, Seen>>,
    ) -> Result<(), VerifyError> {
        // After the entities: a set-aside is entered before, or with, what the entity's version covers.
        let named = self.store.ledger(&lane.id, self.topic.log).await?;
        let part = (lane, self.topic);
        let end =
            states::read_on(self.projector, self.log, part, &named, &mut ahead, &mut self.report).await?;
        for (key, entity) in ahead {
            if entity.next > end {
                let home = self.projector.home(&key);
                self.report.compared += 1;
                self.report.differ(Kind::Different, home, || {
                    format!("its version is at offset {}, the log ends at {end}", entity.next)
                });
                continue;
            }
            let (shown, asked) = &entity.seen;
            self.look(lane, &key, entity.expected.as_ref(), shown, asked, i64::MAX);
        }
        Ok(())
    }

    fn writes(&self, key: &EntityKey, state: &P::State) -> Vec<HotWrite> {
        let mut writes = Vec::new();
        self.projector.writes(key, state, &mut writes);
        writes
    }

    /// Looks at an entity. `to` is how far the log was folded; `asked` are the places in `shown`, in their order.
    fn look(
        &mut self,
        lane: &Lane,
        key: &EntityKey,
        expected: Option<&Expected<P::State>>,
        shown: &Shown,
        asked: &[(String, String)],
        to: i64,
    ) -> Look {
        let home = self.projector.home(key);
        let writes = expected.map(|expected| self.writes(key, &expected.state)).unwrap_or_default();
        if shown.kind == "none" {
            let Some(_) = expected else { return Look::Done };
            let expired = expires_at(&writes).is_some_and(|at| at <= self.settings.now);
            let stale = asked.iter().zip(&shown.places).find(|(_, place)| place.is_some());
            match stale {
                Some(((list, _), _)) if expired => {
                    self.report.differ(Kind::Extra, home, || format!("it expired, but is still in `{list}`"));
                }
                _ if expired => self.report.expired += 1,
                _ => {
                    self.report.compared += 1;
                    self.report.differ(Kind::Missing, home, || "there is no such key".to_owned());
                }
            }
            self.remember_places(&writes, asked, shown);
            return Look::Done;
        }
        let stored = match Stored::read(shown) {
            Ok(stored) => stored,
            Err(what) => {
                self.remember_places(&writes, asked, shown);
                self.report.compared += 1;
                self.report.differ(Kind::Different, home, || what);
                return Look::Done;
            }
        };
        if stored.is_of(self.topic.log, lane.id.partition) && stored.next > to {
            return Look::Ahead(stored.next);
        }
        let Some(expected) = expected else {
            if lane.low > 0 && stored.next <= lane.low {
                self.report.untold += 1;
            } else {
                let next = stored.next;
                self.report.differ(Kind::Extra, home, || {
                    format!("the log has no such entity (its version: {next})")
                });
            }
            return Look::Done;
        };
        self.remember_places(&writes, asked, shown);
        if stored.next < expected.next && lane.is_cut_near(expected.next - 1, self.topic) {
            self.report.untold += 1;
            return Look::Done;
        }
        self.report.compared += 1;
        if let Some((kind, what)) = compare(lane, self.topic, expected, &writes, &stored, shown, asked) {
            self.report.differ(kind, home, || what);
        }
        Look::Done
    }

    fn remember_places(&mut self, writes: &[HotWrite], asked: &[(String, String)], shown: &Shown) {
        for write in writes {
            let HotWrite::Ranked { list, member, score } = write else { continue };
            let members = self.judged.entry(list.clone()).or_default();
            let is_there = asked
                .iter()
                .zip(&shown.places)
                .any(|((l, m), place)| l == list && m == member && place.is_some());
            if score.is_some() || is_there {
                members.insert(member.clone());
            }
        }
    }

    /// Members of lists that no compared entity accounts for. An entity may have come since it was looked for, so
    /// each is judged by its own state at this moment.
    async fn stray_members(&mut self) -> Result<(), VerifyError> {
        for (list, judged) in std::mem::take(&mut self.judged) {
            let members = self.store.members(&list).await?;
            let strays: BTreeSet<&String> =
                members.keys().filter(|member| !judged.contains(*member)).collect();
            for member in strays {
                let key = EntityKey::from(member.as_str());
                let wanted =
                    Wanted { home: self.projector.home(&key), places: vec![(list.clone(), member.clone())] };
                let shown = self.store.entities(std::slice::from_ref(&wanted)).await?.remove(0);
                if shown.places == [None] || self.accounts_for(&key, &shown, &list) {
                    continue;
                }
                self.report.differ(Kind::Extra, list.clone(), || {
                    format!("member `{member}`: `{}` does not say that it belongs there", wanted.home)
                });
            }
        }
        Ok(())
    }

    fn accounts_for(&self, key: &EntityKey, shown: &Shown, list: &str) -> bool {
        let state = shown.fields.get("_state").and_then(|json| serde_json::from_str::<P::State>(json).ok());
        state.is_some_and(|state| {
            self.writes(key, &state).iter().any(|write| {
                matches!(write, HotWrite::Ranked { list: l, member, score: Some(_) } if l == list && member == key.as_str())
            })
        })
    }
}
