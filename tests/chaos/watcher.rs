//! A reader that polls hot state all the while, as a dashboard would, and remembers what it saw.
//!
//! An entity must never be older than at the read before, and its parts must belong together: `_state` and `_version`
//! (exact) with the readable fields and with its place in the site's list, all read in one transaction. A store that
//! lost its tail is the exception: reads that go back around a [`crate::faults::Scene::store_may_lose`] are counted apart.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::outcome::Reads;

/// Between two rounds over all entities.
const ROUND_INTERVAL: Duration = Duration::from_millis(40);
/// How long one question may take before the connection is made anew.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Entities read in one go.
const CHUNK: usize = 50;
/// Tasks come and go; so many of the latest are followed.
const TASKS_MAX: usize = 100;
/// How long after a read that went back a store's loss may still be told of that explains it: whoever causes the loss
/// tells before and after, and the read may come in between.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(3);
/// What is described in words.
const EXAMPLES_MAX: usize = 5;

/// What to watch.
pub(crate) struct Watched {
    /// The Redis itself, by no proxy.
    pub(crate) redis_url: String,
    /// Before every key.
    pub(crate) prefix: String,
    /// How often a store may have lost something.
    pub(crate) store_losses: Arc<AtomicU64>,
}

/// How an entity was seen.
#[derive(Clone, Debug)]
struct Seen {
    /// log and partition
    scope: String,
    next: i64,
    revision: i64,
    losses: u64,
}

/// An entity to read: its home, and the list that has its place under this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entity {
    home: String,
    list: Option<(String, String)>,
}

/// Polls until it is stopped.
pub(crate) async fn watch(watched: Watched, stop: CancellationToken) -> Reads {
    let mut watcher = Watcher::new(watched);
    let mut connection = None;
    while !stop.is_cancelled() {
        if connection.is_none() {
            connection = watcher.connect().await;
        }
        if let Some(open) = &mut connection {
            let round = tokio::time::timeout(TIMEOUT, watcher.round(open)).await;
            // Redis is away or was restarted: what was seen before stays.
            if !matches!(round, Ok(Ok(()))) {
                connection = None;
            }
        }
        watcher.resolve(EXPLAINED_WITHIN);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(ROUND_INTERVAL) => {}
        }
    }
    watcher.resolve(Duration::ZERO);
    watcher.reads
}

struct Watcher {
    watched: Watched,
    seen: HashMap<String, Seen>,
    reads: Reads,
    tasks: Vec<Entity>,
    suspects: Vec<Suspect>,
}

/// A read that went back, with no loss to explain it so far.
struct Suspect {
    at: Instant,
    losses: u64,
    what: String,
}

impl Watcher {
    fn new(watched: Watched) -> Self {
        let (seen, reads) = (HashMap::new(), Reads::default());
        Self { watched, seen, reads, tasks: Vec::new(), suspects: Vec::new() }
    }

    fn losses(&self) -> u64 {
        self.watched.store_losses.load(Ordering::SeqCst)
    }

    async fn connect(&self) -> Option<MultiplexedConnection> {
        let client = redis::Client::open(self.watched.redis_url.as_str()).ok()?;
        let connecting = client.get_multiplexed_async_connection();
        tokio::time::timeout(TIMEOUT, connecting).await.ok()?.ok()
    }

    async fn round(&mut self, redis: &mut MultiplexedConnection) -> redis::RedisResult<()> {
        let entities = self.entities(redis).await?;
        for chunk in entities.chunks(CHUNK) {
            // Counted before the question: a loss in between belongs to the next read.
            let losses = self.losses();
            let mut pipe = redis::pipe();
            pipe.atomic();
            for entity in chunk {
                pipe.hgetall(&entity.home);
                let (list, member) = entity.list.clone().unwrap_or_default();
                pipe.zscore(list, member);
            }
            let answers: Vec<redis::Value> = pipe.query_async(redis).await?;
            for (entity, answer) in chunk.iter().zip(answers.chunks(2)) {
                let fields: HashMap<String, String> = redis::from_redis_value_ref(&answer[0])?;
                let score: Option<f64> = redis::from_redis_value_ref(&answer[1])?;
                self.look(entity, &fields, score, losses);
            }
        }
        Ok(())
    }

    /// Every unit that is known, and the latest tasks.
    async fn entities(&mut self, redis: &mut MultiplexedConnection) -> redis::RedisResult<Vec<Entity>> {
        let prefix = self.watched.prefix.clone();
        let mut all = BTreeSet::new();
        for site in 501..=502 {
            let (seen, online, active) = (
                format!("{prefix}seen:{site}"),
                format!("{prefix}online:{site}"),
                format!("{prefix}tasks:active:{site}"),
            );
            let (units, tasks): (Vec<String>, Vec<String>) =
                redis::pipe().zrange(&seen, 0, -1).zrange(&active, 0, -1).query_async(redis).await?;
            for unit in units {
                let home = format!("{prefix}UnitConsensus@{unit}");
                all.insert(Entity { home, list: Some((seen.clone(), unit.clone())) });
                let home = format!("{prefix}unit:{unit}");
                all.insert(Entity { home, list: Some((online.clone(), unit)) });
            }
            for task in tasks {
                let home = format!("{prefix}task:{task}");
                let entity = Entity { home, list: Some((active.clone(), task)) };
                if !self.tasks.contains(&entity) {
                    self.tasks.push(entity);
                }
            }
        }
        let old = self.tasks.len().saturating_sub(TASKS_MAX);
        self.tasks.drain(..old);
        // One that was seen is looked for again, even if no list has it any more.
        let known: Vec<Entity> = all.into_iter().chain(self.tasks.iter().cloned()).collect();
        Ok(known)
    }

    fn look(&mut self, entity: &Entity, fields: &HashMap<String, String>, score: Option<f64>, losses: u64) {
        let home = &entity.home;
        let before = self.seen.get(home).cloned();
        self.reads.reads += 1;
        let Some((version, state)) = fields.get("_version").zip(fields.get("_state")) else {
            if !fields.is_empty() {
                self.half_written(home, "it has fields and no version");
            } else if let Some(before) = before {
                self.went_back(home, &before, losses, "is gone");
                self.seen.remove(home);
            }
            return;
        };
        if let Err(what) = belong_together(home, state, fields, score) {
            self.half_written(home, &what);
        }
        let mut parts = version.rsplitn(3, ':');
        let mut number = || parts.next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
        let (revision, next) = (number(), number());
        let scope = parts.next().unwrap_or_default().to_owned();
        let now = Seen { scope, next, revision, losses };
        if let Some(before) = before {
            if before.scope == now.scope && (now.next, now.revision) < (before.next, before.revision) {
                self.went_back(home, &before, losses, &format!("is at {version}"));
            } else if now.next > before.next {
                self.reads.moves += 1;
            }
        }
        self.seen.insert(home.clone(), now);
    }

    fn went_back(&mut self, home: &str, before: &Seen, losses: u64, what: &str) {
        // Counted at this read and at the one before: a loss between them explains it.
        if losses > before.losses || self.losses() > before.losses {
            self.reads.backward_after_loss += 1;
            return;
        }
        let what = format!("{home} was at next {} and {what}", before.next);
        self.suspects.push(Suspect { at: Instant::now(), losses: before.losses, what });
    }

    /// Judges the suspects that are older than this.
    fn resolve(&mut self, age: Duration) {
        let losses = self.losses();
        for suspect in std::mem::take(&mut self.suspects) {
            if losses > suspect.losses {
                self.reads.backward_after_loss += 1;
            } else if suspect.at.elapsed() >= age {
                self.reads.backward += 1;
                self.example(suspect.what);
            } else {
                self.suspects.push(suspect);
            }
        }
    }

    fn half_written(&mut self, home: &str, what: &str) {
        self.reads.half_written += 1;
        self.example(format!("{home}: {what}"));
    }

    fn example(&mut self, text: String) {
        if self.reads.examples.len() < EXAMPLES_MAX {
            self.reads.examples.push(text);
        }
    }
}

/// Fields that readers use, against the exact state, and the place in the list against both.
fn belong_together(
    home: &str,
    state: &str,
    fields: &HashMap<String, String>,
    score: Option<f64>,
) -> Result<(), String> {
    let state: BTreeMap<String, Value> =
        serde_json::from_str(state).map_err(|error| format!("_state is no JSON: {error}"))?;
    let text = |name: &str| fields.get(name).map(String::as_str);
    let shown = |name: &str| match &state[name] {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    };
    let same = |field: &str, of_state: &str| -> Result<(), String> {
        let expected = shown(of_state);
        if text(field) != expected.as_deref() {
            return Err(format!("{field} is {:?}, the state's is {expected:?}", text(field)));
        }
        Ok(())
    };
    if home.contains("UnitConsensus@") {
        same("recorded_at_ms", "recorded_at")?;
        same("last_node_id", "last_node_id")?;
        let expected = state["recorded_at"].as_f64();
        if score != expected {
            return Err(format!("its place is {score:?}, the state's is {expected:?}"));
        }
    } else if home.contains("unit:") {
        same("connection", "connection")?;
        same("connects", "connects")?;
        let is_online = text("connection") == Some("online");
        if score.is_some() != is_online {
            return Err(format!("online is {is_online}, its place is {score:?}"));
        }
    } else {
        same("state", "status")?;
        same("assignments", "assignments")?;
        let ends = ["completed", "failed", "cancelled", "rejected"];
        let is_active = !ends.contains(&text("state").unwrap_or_default());
        if score.is_some() != is_active {
            return Err(format!("active is {is_active}, its place is {score:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher() -> Watcher {
        let watched =
            Watched { redis_url: String::new(), prefix: String::new(), store_losses: Arc::default() };
        Watcher::new(watched)
    }

    fn fields(next: i64, recorded_at: i64) -> HashMap<String, String> {
        let state = format!("{{\"recorded_at\":{recorded_at},\"last_node_id\":null}}");
        [
            ("_version", format!("log:0:{next}:0")),
            ("_state", state),
            ("recorded_at_ms", recorded_at.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn entity() -> Entity {
        Entity { home: "UnitConsensus@s1.u1".to_owned(), list: None }
    }

    #[test]
    fn an_older_version_is_seen_and_counted_by_whether_the_store_lost_something() {
        let mut watcher = watcher();
        watcher.look(&entity(), &fields(7, 70), Some(70.0), 0);
        watcher.look(&entity(), &fields(8, 80), Some(80.0), 0);
        watcher.look(&entity(), &fields(6, 60), Some(60.0), 0);
        watcher.resolve(Duration::ZERO);
        assert_eq!((watcher.reads.moves, watcher.reads.backward), (1, 1), "{:?}", watcher.reads);
        watcher.look(&entity(), &fields(5, 50), Some(50.0), 0);
        watcher.resolve(EXPLAINED_WITHIN);
        watcher.watched.store_losses.store(1, Ordering::SeqCst);
        watcher.look(&entity(), &fields(4, 40), Some(40.0), 1);
        watcher.resolve(Duration::ZERO);
        assert_eq!(
            (watcher.reads.backward_after_loss, watcher.reads.backward),
            (2, 1),
            "told before or after"
        );
        watcher.look(&entity(), &HashMap::new(), None, 1);
        watcher.resolve(Duration::ZERO);
        assert_eq!(watcher.reads.backward, 2, "gone is back, too");
        assert_eq!(watcher.reads.half_written, 0);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_seen() {
        let mut watcher = watcher();
        let mut torn = fields(7, 70);
        torn.insert("recorded_at_ms".to_owned(), "60".to_owned());
        watcher.look(&entity(), &torn, Some(70.0), 0);
        watcher.look(&entity(), &fields(7, 70), Some(60.0), 0);
        torn.remove("_version");
        watcher.look(&entity(), &torn, Some(70.0), 0);
        assert_eq!(watcher.reads.half_written, 3, "{:?}", watcher.reads);
    }
}
