//! Who redrives in a run: sends commands for what the dead-letter topics hold, some of it twice, some again later, poison
//! among it; and at the end until nothing is left that could be taken.
//!
//! What it knows of a letter it reads off its headers, as any tool would.

use fleetlog_testkit::redis_connection;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fleetlog_event::{EntityKey, LogId, TimestampMs, partition_of};
use fleetlog_kafka::{KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionRange, ReadError};
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use fleetlog_projection::{Act, Command, Headers, Record, inbox_name};
use fleetlog_tests::World;
use rand::{Rng as _, rngs::StdRng, seq::IteratorRandom as _};
use redis::AsyncCommands as _;
use serde_json::Value;
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;

/// What is read, by which projections, and what they are.
const TOPICS: [&str; 3] = ["robot", "telemetry", "task"];
const HOT: [(&str, &str); 3] =
    [("unit-consensus", "telemetry"), ("unit-status", "robot"), ("task-state", "task")];
const FOLDS: [&str; 4] = ["unit-consensus", "unit-status", "task-state", "task-ledger"];
const PARTITIONS: i32 = 6;

/// After how many rejections an event is parked, at the end; before, one to so many.
const REPLAYS_MAX: u32 = 3;

/// Who did not take an event, and where it lies. In this order commands are sent: that of the log for each inbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    projection: String,
    stem: String,
    partition: i32,
    offset: i64,
}

/// A dead letter, as far as a command needs it.
struct Letter {
    group: String,
    log: LogId,
    record: Record,
}

/// A command and where it goes.
struct Order {
    lane: String,
    inbox: String,
    partition: i32,
    command: Command,
}

/// Sends commands.
pub(crate) struct Redriver {
    settings: KafkaSettings,
    offsets: Offsets,
    producer: RawProducer,
    letters: BTreeMap<Place, Letter>,
    /// Of these no command was sent yet.
    unsent: BTreeSet<Place>,
    /// How far the dead-letter topics are read.
    read: BTreeMap<(String, i32), i64>,
    /// Past the last command that was sent, by lane.
    sent: BTreeMap<String, i64>,
    /// What was open when all of that was sent last.
    open: Option<BTreeSet<Place>>,
}

impl Redriver {
    pub(crate) fn new(settings: KafkaSettings) -> Result<Self> {
        let metrics = ProducerMetrics::unregistered()?;
        let producer = RawProducer::connect(&settings, &ProducerSettings::default(), metrics)?;
        Ok(Self {
            offsets: Offsets::new(&settings)?,
            settings,
            producer,
            letters: BTreeMap::new(),
            unsent: BTreeSet::new(),
            read: BTreeMap::new(),
            sent: BTreeMap::new(),
            open: None,
        })
    }

    /// Sends some of what there is, again and again, until it is stopped.
    pub(crate) async fn run(mut self, mut random: StdRng, stop: CancellationToken) -> Result<Self> {
        while !stop.is_cancelled() {
            let pause = Duration::from_millis(random.random_range(20..900));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.read_letters().await.context("reading dead letters")?;
            let orders = self.some(&mut random);
            self.send(orders).await.context("sending commands")?;
        }
        Ok(self)
    }

    /// Sends all that is not taken, when what was sent before is carried out; false if that is what it was the last time, so
    /// that nothing would change any more.
    pub(crate) async fn send_all_open(&mut self, world: &World) -> Result<bool> {
        self.read_letters().await?;
        let open = open_entries(world).await?;
        if self.open.as_ref() == Some(&open) {
            return Ok(false);
        }
        // One without a letter is for the recount to find.
        let orders = open.iter().filter_map(|place| self.redrive(place, REPLAYS_MAX)).collect();
        self.send(orders).await?;
        self.open = Some(open);
        Ok(true)
    }

    /// The lanes that have not carried out yet what was sent to them.
    pub(crate) async fn behind(&self, world: &World) -> Result<Vec<String>> {
        let shown = world.json(&["progress", "show"]).await;
        let lanes = shown.as_array().context("a list of lanes")?;
        let inboxes: BTreeMap<&str, i64> =
            lanes.iter().filter_map(|lane| Some((lane["lane"].as_str()?, lane["inbox"].as_i64()?))).collect();
        let behind =
            self.sent.iter().filter(|(lane, past)| inboxes.get(lane.as_str()).is_none_or(|at| at < past));
        Ok(behind.map(|(lane, _)| lane.clone()).collect())
    }

    /// What a projection did not take at some time, in log order for each partition.
    pub(crate) fn letters_of(&self, projection: &str) -> impl Iterator<Item = (&Place, &Record)> {
        let of_projection = self.letters.iter().filter(move |(place, _)| place.projection == projection);
        of_projection.map(|(place, letter)| (place, &letter.record))
    }

    /// So many of those that were not sent yet, and of all; each by itself in any order, but the commands in that of the log.
    fn some(&mut self, random: &mut StdRng) -> Vec<Order> {
        let (fresh, again) = (random.random_range(0..=80), random.random_range(0..=40));
        let mut places = self.unsent.iter().cloned().choose_multiple(random, fresh);
        places.extend(self.letters.keys().cloned().choose_multiple(random, again));
        places.sort();
        let mut orders = Vec::new();
        for place in places {
            self.unsent.remove(&place);
            let times = if random.random_bool(0.15) { 2 } else { 1 };
            let replays_max = random.random_range(1..=REPLAYS_MAX);
            orders.extend((0..times).filter_map(|_| self.redrive(&place, replays_max)));
        }
        if random.random_bool(0.4) {
            let entities =
                self.letters.iter().filter(|(place, _)| FOLDS.contains(&place.projection.as_str()));
            let some = entities.choose_multiple(random, 3);
            orders.extend(some.into_iter().filter_map(|(place, letter)| self.fold_anew(place, letter)));
        }
        orders
    }

    fn redrive(&self, place: &Place, replays_max: u32) -> Option<Order> {
        let letter = self.letters.get(place)?;
        let act = Act::Redrive { record: letter.record.clone(), replays_max };
        Some(self.order(place, place.partition, letter, act))
    }

    fn fold_anew(&self, place: &Place, letter: &Letter) -> Option<Order> {
        let key = EntityKey::from(letter.record.key_text()?);
        let partition = partition_of(key.as_str().as_bytes(), PARTITIONS);
        Some(self.order(place, partition, letter, Act::FoldAnew { key }))
    }

    fn order(&self, place: &Place, partition: i32, letter: &Letter, act: Act) -> Order {
        let topic = self.settings.topic(&place.stem);
        Order {
            lane: format!("{}@1:{topic}:{partition}", place.projection),
            inbox: inbox_name(&letter.group, &place.stem),
            partition,
            command: Command { job: "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11".to_owned(), log: letter.log, act },
        }
    }

    async fn send(&mut self, orders: Vec<Order>) -> Result<()> {
        // Made at once: an iterator that borrows cannot be held while this waits.
        let record = |order: &Order| {
            let written = order.command.write();
            RawRecord {
                topic: order.inbox.clone(),
                partition: Some(order.partition),
                key: written.key,
                value: written.value,
                timestamp: None,
                headers: written
                    .headers
                    .into_iter()
                    .map(|(name, value)| ((&name[..]).into(), value))
                    .collect(),
            }
        };
        let records: Vec<RawRecord> = orders.iter().map(record).collect();
        let delivered = self.producer.send_all(records).await.all().await?;
        for (order, delivered) in orders.into_iter().zip(delivered) {
            let past = self.sent.entry(order.lane).or_default();
            *past = (*past).max(delivered.offset + 1);
        }
        Ok(())
    }

    async fn read_letters(&mut self) -> Result<()> {
        for stem in TOPICS {
            let topic = self.settings.topic(&format!("{stem}-dlq"));
            let ranges = self.offsets.ranges(&[&topic]).await?;
            let news: Vec<PartitionRange> = ranges
                .iter()
                .map(|((_, partition), range)| {
                    let from = self.read.get(&(topic.clone(), *partition)).copied().unwrap_or(range.low);
                    PartitionRange { partition: *partition, from, to: Some(range.end) }
                })
                .filter(|range| range.to > Some(range.from))
                .collect();
            if news.is_empty() {
                continue;
            }
            for record in read(&self.settings, &topic, news.clone()).await? {
                let (place, letter) = self
                    .letter(&record)
                    .with_context(|| format!("{topic}@{}: no letter of ours", record.offset))?;
                if self.letters.insert(place.clone(), letter).is_none() {
                    self.unsent.insert(place);
                }
            }
            let read =
                news.into_iter().filter_map(|range| Some(((topic.clone(), range.partition), range.to?)));
            self.read.extend(read);
        }
        Ok(())
    }

    fn letter(&self, record: &OwnedRecord) -> Option<(Place, Letter)> {
        let text = |name: &str| {
            let name = format!("fleetlog-dlq-{name}");
            let found = record.headers.iter().find(|(header, _)| *header == *name.as_str());
            found.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
        };
        let number = |name: &str| text(name)?.parse::<i64>().ok();
        let (prefix, group) = (&self.settings.topic_prefix, text("group")?);
        let projection =
            group.strip_prefix(prefix.as_str())?.strip_prefix("fleetlog-")?.strip_suffix("-v1")?;
        let place = Place {
            projection: projection.to_owned(),
            stem: text("topic")?.strip_prefix(prefix.as_str())?.to_owned(),
            partition: text("partition")?.parse().ok()?,
            offset: number("offset")?,
        };
        let headers = record.headers.iter().map(|(name, value)| (name, value.as_deref()));
        let event = Record {
            offset: place.offset,
            timestamp: TimestampMs(number("timestamp")?),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: Headers::pack(headers),
        };
        Some((place, Letter { group: group.to_owned(), log: text("log")?.parse().ok()?, record: event }))
    }
}

async fn read(
    settings: &KafkaSettings,
    topic: &str,
    ranges: Vec<PartitionRange>,
) -> Result<Vec<OwnedRecord>> {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        LogReader::open(&settings, &topic, &ranges)?.for_each(|record| {
            records.push(record.to_owned_record());
            Ok::<_, ReadError>(())
        })?;
        Ok::<_, ReadError>(records)
    });
    Ok(reading.await??)
}

/// The entries of all ledgers that can still be redriven.
async fn open_entries(world: &World) -> Result<BTreeSet<Place>> {
    let mut open = BTreeSet::new();
    let prefix = &world.prefix;
    let mut redis = redis_connection(&world.redis_url).await?;
    for (projection, stem) in HOT {
        for partition in 0..PARTITIONS {
            let key = format!("{prefix}fleetlog:{prefix}{projection}@1:{prefix}{stem}:{partition}:set_aside");
            let entries: HashMap<i64, String> = redis.hgetall(key).await?;
            for (offset, entry) in entries {
                let entry: Value = serde_json::from_str(&entry)?;
                if ["open", "parked"].contains(&entry["state"].as_str().unwrap_or_default()) {
                    let (projection, stem) = (projection.to_owned(), stem.to_owned());
                    open.insert(Place { projection, stem, partition, offset });
                }
            }
        }
    }
    let query = "SELECT projection, topic, partition, log_offset FROM fleetlog_set_aside \
                 WHERE status IN ('open', 'parked')";
    for row in sqlx::query(query).fetch_all(&mut world.postgres().await).await? {
        let topic: String = row.get("topic");
        open.insert(Place {
            projection: row.get("projection"),
            stem: topic.strip_prefix(prefix.as_str()).unwrap_or(&topic).to_owned(),
            partition: row.get("partition"),
            offset: row.get("log_offset"),
        });
    }
    Ok(open)
}
