//! A webhook runs beside the projections. Processes are killed, stopped, frozen, joined and taken away, and its endpoint fails some
//! of its calls, takes its time or, in every other run, is down for a while, so that the circuit opens.
//!
//! What is checked, against the log and what the endpoint remembers (DESIGN §3): every record is told, or is a dead letter with a
//! reason; and in runs without a circuit no call is earlier than its tier allows, and a kill repeats at most `in_flight_max` calls
//! of a partition.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fleetlog_kafka::OwnedRecord;
use fleetlog_tests::{Asked, Endpoint, until};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    faults::{Faults, Ground, process},
    fleet::Fleet,
    load::{EVENT_ID_BYTES, EXPECTED, FRAME_BYTES},
    outcome::Check,
};

/// Topics whose events the webhook is told of.
const TOPICS: [&str; 2] = ["robot", "task"];
const TIERS_MS: [u64; 3] = [200, 400, 800];
const IN_FLIGHT_MAX: u64 = 8;
/// More failures in a row than any run has: no circuit.
const NEVER: u32 = 1_000;

/// Where processes are made to die: at each step of what a handler does, beside those of projections.
const FAIL_POINTS: [&str; 8] = [
    "handler.called",
    "handler.called",
    "handler.sent",
    "handler.sent",
    "handler.committed",
    "dead-letters.after",
    "sql.committed",
    "lane.start.sought",
];

/// How the endpoint answers now.
#[derive(Clone, Copy, Debug, Default)]
struct Mood {
    /// How many calls of a hundred fail.
    fails_percent: u64,
    /// How long answers take at most.
    takes_ms: u64,
    is_down: bool,
}

impl Mood {
    /// The answer to a call: drawn of the call itself, so that it hangs on nothing else.
    fn reply(self, asked: &Asked, before: usize) -> (u16, Duration) {
        let mut hasher = DefaultHasher::new();
        (&asked.id, before).hash(&mut hasher);
        let drawn = hasher.finish();
        let takes = Duration::from_millis(if self.takes_ms == 0 { 0 } else { drawn / 100 % self.takes_ms });
        let status = if self.is_down || drawn % 100 < self.fails_percent { 503 } else { 204 };
        (status, takes)
    }
}

/// A webhook and its endpoint.
pub(super) struct Handlers {
    endpoint: Endpoint,
    mood: Arc<Mutex<Mood>>,
    has_circuit: bool,
}

impl Handlers {
    pub(super) async fn draw(random: &mut StdRng) -> Self {
        let (endpoint, mood) = (Endpoint::start().await, Arc::<Mutex<Mood>>::default());
        let answering = Arc::clone(&mood);
        endpoint.answers(move |asked, before| answering.lock().unwrap().reply(asked, before));
        Self { endpoint, mood, has_circuit: random.random_bool(0.5) }
    }

    async fn hit(&mut self, fleet: &mut Fleet, random: &mut StdRng) -> Result<&'static str> {
        // Nothing strikes before some call was made again: a handler that starts late would find an endpoint that fails none.
        let is_again = |asked: &Asked| asked.attempt() > 1;
        until("a call is made again", async || self.endpoint.asked().iter().any(is_again)).await;
        let set = |mood: Mood| *self.mood.lock().unwrap() = mood;
        match random.random_range(0..6) {
            0 => {
                let fails_percent = random.random_range(5..30);
                set(Mood { fails_percent, takes_ms: random.random_range(0..100), is_down: false });
                Ok("endpoint fails some calls")
            }
            1 => {
                set(Mood { takes_ms: random.random_range(100..400), ..Mood::default() });
                Ok("endpoint is slow")
            }
            2 if self.has_circuit => {
                let before = std::mem::take(&mut *self.mood.lock().unwrap());
                set(Mood { is_down: true, ..before });
                process::pause(random, 300..2_000).await;
                set(before);
                Ok("endpoint is down")
            }
            _ => process::strike(fleet, random).await,
        }
    }

    /// Holds what was told against the log, and says what is wrong.
    async fn judge(&self, fleet: &mut Fleet) -> Result<()> {
        let told = Told::new(&self.endpoint.asked());
        let letters = Letters::of(fleet).await?;
        let mut partitions: HashMap<String, Vec<(&str, i32)>> = HashMap::new();
        let (mut wanted, mut poisoned) = (HashMap::<String, usize>::new(), BTreeSet::new());
        for topic in TOPICS {
            for record in fleet.world.records(&fleet.world.kafka().topic(topic)).await {
                let place = (topic.to_owned(), record.partition, record.offset);
                if record.headers.iter().any(|(name, _)| *name == EXPECTED) {
                    poisoned.insert(place.clone());
                }
                match id_of(&record) {
                    _ if letters.of.contains_key(&place) => {}
                    Some(id) => {
                        *wanted.entry(id.clone()).or_default() += 1;
                        partitions.entry(id).or_default().push((topic, record.partition));
                    }
                    None => fleet.found(Check::Lost, format!("{place:?}: neither told nor a dead letter")),
                }
            }
        }
        for (id, times) in &wanted {
            let done = told.done.get(id).copied().unwrap_or_default();
            if done < *times {
                let lies = &partitions[id];
                fleet.found(Check::Lost, format!("{id}, in {lies:?}: {done} calls went through, of {times}"));
            }
        }
        for (place, reason) in &letters.of {
            if reason != "gave_up" && !poisoned.contains(place) {
                fleet.found(Check::DeadLetters, format!("{place:?} was not to be one: {reason}"));
            }
        }
        if !self.has_circuit {
            told.early().into_iter().for_each(|early| fleet.found(Check::Early, early));
            self.judge_repeats(&told, &wanted, &partitions, fleet);
        }
        let retried = told.calls.keys().filter(|(_, attempt)| *attempt > 1).count();
        if retried == 0 || wanted.is_empty() || letters.of.is_empty() {
            let detail =
                format!("{} events wanted, {retried} retried, {} letters", wanted.len(), letters.of.len());
            fleet.found(Check::Vacuous, detail);
        }
        Ok(())
    }

    /// Calls of one attempt beyond the first, for each partition: no more than were under way when something struck.
    fn judge_repeats(
        &self,
        told: &Told,
        wanted: &HashMap<String, usize>,
        partitions: &HashMap<String, Vec<(&str, i32)>>,
        fleet: &mut Fleet,
    ) {
        // A process that another kept from draining in time is as good as killed.
        let strikes =
            u64::from(fleet.kills) + fleet.struck.values().map(|times| u64::from(*times)).sum::<u64>();
        let mut repeats: BTreeMap<(String, i32, u32), u64> = BTreeMap::new();
        for ((id, attempt), calls) in &told.calls {
            let (Some(times), Some(lies)) = (wanted.get(id), partitions.get(id)) else { continue };
            let (topic, partition) = lies[0];
            // What comes back from a tier is of both topics there.
            let lane = if *attempt == 1 { topic } else { "tier" };
            *repeats.entry((lane.to_owned(), partition, *attempt)).or_default() +=
                (calls.len().saturating_sub(*times)) as u64;
        }
        for (lane, repeats) in repeats {
            if repeats > strikes * IN_FLIGHT_MAX {
                fleet.found(
                    Check::Repeated,
                    format!("{lane:?}: {repeats} calls again after {strikes} strikes"),
                );
            }
        }
    }
}

/// The calls of an endpoint.
struct Told {
    /// How often each event went through.
    done: HashMap<String, usize>,
    /// By event and attempt, in the order in which they came.
    calls: HashMap<(String, u32), Vec<Asked>>,
}

impl Told {
    fn new(asked: &[Asked]) -> Self {
        let (mut done, mut calls) = (HashMap::new(), HashMap::<_, Vec<Asked>>::new());
        for call in asked {
            *done.entry(call.id.clone()).or_default() += usize::from(call.is_done());
            calls.entry((call.id.clone(), call.attempt())).or_default().push(call.clone());
        }
        Self { done, calls }
    }

    /// Calls that came before their tier allowed it. What it waited for is the first failure of the attempt before: that of a
    /// process that was killed is not known to anybody, and then the wait is longer.
    fn early(&self) -> Vec<String> {
        let early = self.calls.iter().filter_map(|((id, attempt), calls)| {
            let before = self.calls.get(&(id.clone(), attempt.checked_sub(1)?))?;
            let failed = before.iter().find(|call| !call.is_done())?;
            let delay = Duration::from_millis(*TIERS_MS.get(*attempt as usize - 2)?);
            let waited = calls[0].at.saturating_duration_since(failed.at + failed.reply.1);
            (waited < delay).then(|| format!("{id}: call {attempt} after {waited:?}, not {delay:?}"))
        });
        early.collect()
    }
}

/// The dead letters of the webhook: where each record lay, and why it is one.
struct Letters {
    of: BTreeMap<(String, i32, i64), String>,
}

impl Letters {
    async fn of(fleet: &Fleet) -> Result<Self> {
        let (prefix, group) = (fleet.world.prefix.clone(), fleet.world.kafka().topic("fleetlog-webhook-w"));
        let mut of = BTreeMap::new();
        for topic in TOPICS {
            for letter in fleet.world.records(&fleet.world.kafka().topic(&format!("{topic}-dlq"))).await {
                if text(&letter, "fleetlog-dlq-group").as_deref() != Some(&*group) {
                    continue;
                }
                let get = |name: &str| text(&letter, name).with_context(|| format!("no header {name}"));
                let origin = get("fleetlog-dlq-topic")?;
                let stem = origin.strip_prefix(&*prefix).context("of this run")?.to_owned();
                let place =
                    (stem, get("fleetlog-dlq-partition")?.parse()?, get("fleetlog-dlq-offset")?.parse()?);
                of.insert(place, get("fleetlog-dlq-reason")?);
            }
        }
        Ok(Self { of })
    }
}

fn text(record: &OwnedRecord, name: &str) -> Option<String> {
    let (_, value) = record.headers.iter().rfind(|(known, _)| *known == name)?;
    Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
}

/// The event's id as the endpoint is told it; none where there cannot be one.
fn id_of(record: &OwnedRecord) -> Option<String> {
    let id = record.value.as_deref()?.get(FRAME_BYTES..FRAME_BYTES + EVENT_ID_BYTES)?;
    Some(uuid::Uuid::from_slice(id).ok()?.to_string())
}

impl Faults for Handlers {
    fn ground(&self) -> Ground {
        let failures_max = if self.has_circuit { 3 } else { NEVER };
        let tiers = TIERS_MS.map(|delay_ms| delay_ms.to_string()).join(",");
        let settings = [
            ("URL", self.endpoint.url.clone()),
            ("ALLOW_PRIVATE", "true".to_owned()),
            ("ALLOW_UNSIGNED", "true".to_owned()),
            ("START_AT", "begin".to_owned()),
            ("IN_FLIGHT_MAX", IN_FLIGHT_MAX.to_string()),
            ("RETRY_DELAYS_MS", tiers),
            ("CIRCUIT_FAILURES_MAX", failures_max.to_string()),
            ("CIRCUIT_OPEN_MS", "500".to_owned()),
        ];
        let everywhere = settings.map(|(name, value)| (format!("FLEETLOG_WEBHOOKS__W__{name}"), value));
        Ground { everywhere: everywhere.into(), ..Ground::shared() }
    }

    fn begin(&mut self, fleet: &mut Fleet, _random: &mut StdRng) -> Result<()> {
        if !fleet.only_fail_points {
            fleet.fail_points = &FAIL_POINTS;
        }
        *self.mood.lock().unwrap() = Mood { fails_percent: 10, takes_ms: 50, is_down: false };
        Ok(())
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        self.hit(fleet, random).boxed_local()
    }

    fn strikes_min(&self) -> u32 {
        4
    }

    fn heal<'a>(&'a mut self, fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async {
            *self.mood.lock().unwrap() = Mood::default();
            // Poison goes to any topic, and few calls fail often enough to be given up: without this a run may have no dead letter.
            // Its draws are not the run's, whose seed says what came before.
            fleet.poisoner.spoil_every_lane(&mut StdRng::seed_from_u64(0)).await
        }
        .boxed_local()
    }

    fn check<'a>(&'a mut self, fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async { self.judge(fleet).await }.boxed_local()
    }
}
