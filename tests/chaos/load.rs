//! What a run sends: a simulated fleet, and poison in between.
//!
//! Poison is made of records that lie on the log: their bytes are changed so that they have to be set aside, or sent
//! again as they are so that they have to be dropped. Each carries the header `chaos` that says what is expected of
//! it, which the recount compares with its own judgement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use fleetlog_event::{EventId, EventSet as _, TimestampMs, partition_of};
use fleetlog_kafka::{KafkaSettings, LogReader, Offsets, OwnedRecord, PartitionRange, ReadError};
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer, RawRecord};
use fleetlog_simulate::Fleet;
use fleetlog_testkit::{Fleetlog, Running};
use fleetlog_tests::{LIMIT, World};
use futures_util::future::try_join_all;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{faults::Ground, plan::Plan};

/// The header that says what is expected of a record.
pub(crate) const EXPECTED: &str = "chaos";
const TOPICS: [&str; 3] = ["robot", "telemetry", "task"];
const PARTITIONS: i32 = 6;
/// Bytes before the datum: `C3 01` and the schema's fingerprint.
pub(crate) const FRAME_BYTES: usize = 10;
/// The event's id, with which the datum begins.
pub(crate) const EVENT_ID_BYTES: usize = 16;

/// A fleet that sends until it is told to stop.
pub(crate) struct Load {
    simulate: Running,
}

/// What was sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Events whose outcome was an acknowledgement.
    pub(crate) acknowledged: u64,
    /// Every event by its id, in the order in which they were sent.
    pub(crate) events: Vec<EventId>,
}

impl Sent {
    /// From what `fleetlog simulate` reports: the same fleet makes the same events once more.
    pub(crate) fn read(report: &Value) -> Result<Self> {
        let number = |name: &str| report[name].as_u64().with_context(|| format!("{name} in {report}"));
        let start_ms = report["start_ms"].as_i64().context("start_ms")?;
        let fleet = Fleet::new(u32::try_from(number("units")?)?, number("seed")?, start_ms);
        let events = fleet.take(usize::try_from(number("sent")?)?);
        Ok(Self {
            acknowledged: number("acknowledged")?,
            events: events.map(|(_, event)| event.meta().event_id).collect(),
        })
    }
}

impl Load {
    pub(crate) fn start(world: &World, ground: &Ground, plan: &Plan) -> Result<Self> {
        let mut fleetlog: Fleetlog = world.fleetlog.clone();
        for (name, value) in &ground.load {
            fleetlog = fleetlog.env(name, value);
        }
        let [units, rate, seed] = [plan.units.to_string(), plan.rate.to_string(), plan.seed.to_string()];
        let args = ["simulate", "--units", &units, "--rate", &rate, "--events", "100000000", "--seed", &seed];
        Ok(Self { simulate: fleetlog.spawn(&[&args[..], &["--format", "json"]].concat())? })
    }

    /// Stops it, and waits for the last acknowledgements.
    pub(crate) async fn stop(self) -> Result<Sent> {
        self.simulate.signal("INT")?;
        let ended = self.simulate.wait(LIMIT).await?;
        let report: Value = serde_json::from_str(&ended.stdout)
            .with_context(|| format!("simulate told nothing: {}", ended.stderr))?;
        Sent::read(&report)
    }
}

/// Sends poison, and counts what was acknowledged. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Poisoner {
    settings: KafkaSettings,
    offsets: Offsets,
    producer: RawProducer,
    acknowledged: Arc<AtomicU64>,
}

impl Poisoner {
    pub(crate) fn new(settings: KafkaSettings) -> Result<Self> {
        let metrics = ProducerMetrics::unregistered()?;
        let producer = RawProducer::connect(&settings, &ProducerSettings::default(), metrics)?;
        let offsets = Offsets::new(&settings)?;
        Ok(Self { settings, offsets, producer, acknowledged: Arc::default() })
    }

    /// How many were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Sends `plan.poisons` poison records over the time that load runs, or until it is stopped.
    pub(crate) async fn trickle(self, plan: Plan, mut random: StdRng, stop: CancellationToken) -> Result<()> {
        let between_ms = plan.load_ms / plan.poisons.max(1) as u64 * 2;
        for _ in 0..plan.poisons {
            let pause = Duration::from_millis(random.random_range(0..between_ms.max(1)));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.send(Draw::of(&mut random)).await?;
        }
        Ok(())
    }

    /// Sends so many at once.
    pub(crate) async fn burst(&self, random: &mut StdRng, count: usize) -> Result<()> {
        let draws: Vec<Draw> = (0..count).map(|_| Draw::of(random)).collect();
        self.send_all(draws).await
    }

    /// Sends one event like another to every partition of every topic that has one.
    pub(crate) async fn touch_every_lane(&self, random: &mut StdRng) -> Result<()> {
        self.to_every_lane(Kind::Again, random).await
    }

    /// Sends one record that nobody can read to every partition of every topic that has one.
    pub(crate) async fn spoil_every_lane(&self, random: &mut StdRng) -> Result<()> {
        self.to_every_lane(Kind::NoFraming, random).await
    }

    async fn to_every_lane(&self, kind: Kind, random: &mut StdRng) -> Result<()> {
        let places =
            TOPICS.iter().flat_map(|topic| (0..PARTITIONS).map(move |partition| (*topic, partition)));
        let draw = |(topic, partition)| Draw { kind, topic, partition, at: 1.0, event_id: random.random() };
        self.send_all(places.map(draw).collect()).await
    }

    async fn send_all(&self, draws: Vec<Draw>) -> Result<()> {
        try_join_all(draws.into_iter().map(|draw| self.send(draw))).await?;
        Ok(())
    }

    /// Whatever is drawn is drawn before the log is asked, so that a seed stays the same run.
    async fn send(&self, draw: Draw) -> Result<()> {
        // Nothing to make poison of yet, or the brokers are away: this one is left out.
        let Ok(Some(record)) = some_record(&self.settings, &self.offsets, &draw).await else { return Ok(()) };
        let sent = self.producer.send(draw.poison(&record)).await?;
        self.acknowledged.fetch_add(u64::from(sent.await.is_ok()), Ordering::SeqCst);
        Ok(())
    }
}

/// What one poison record will be.
struct Draw {
    kind: Kind,
    topic: &'static str,
    partition: i32,
    /// Which record of the partition it is made of, as a part of its length.
    at: f64,
    event_id: [u8; EVENT_ID_BYTES],
}

/// How a record is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Repeat,
    NoValue,
    EmptyValue,
    NoFraming,
    UnknownSchema,
    Undecodable,
    WrongKey,
    WrongPartition,
    NoKey,
    Again,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Repeat,
        Self::Repeat,
        Self::Repeat,
        Self::Repeat,
        Self::NoValue,
        Self::EmptyValue,
        Self::NoFraming,
        Self::UnknownSchema,
        Self::Undecodable,
        Self::WrongKey,
        Self::WrongPartition,
        Self::NoKey,
        Self::Again,
        Self::Again,
    ];

    fn expected(self) -> &'static str {
        match self {
            Self::Repeat => "duplicate",
            Self::NoValue | Self::EmptyValue => "empty_payload",
            Self::NoFraming => "unknown_framing",
            Self::UnknownSchema => "unknown_schema",
            Self::Undecodable => "undecodable",
            Self::WrongKey => "wrong_key",
            Self::WrongPartition => "wrong_partition",
            Self::NoKey => "no_key",
            // An event like another, with an id of its own: what is expected depends on the state that it meets.
            Self::Again => "",
        }
    }
}

impl Draw {
    fn of(random: &mut StdRng) -> Self {
        Self {
            kind: *Kind::ALL.choose(random).unwrap_or(&Kind::Repeat),
            topic: TOPICS.choose(random).copied().unwrap_or("robot"),
            partition: random.random_range(0..PARTITIONS),
            at: random.random(),
            event_id: random.random(),
        }
    }

    /// The record to send, made of one that is well.
    fn poison(&self, well: &OwnedRecord) -> RawRecord {
        let value = well.value.as_deref().unwrap_or_default();
        let datum = value.get(FRAME_BYTES + EVENT_ID_BYTES..).unwrap_or_default();
        // With an id of its own: the same key and id again would be dropped before anybody looks at it.
        let anew = || [&value[..FRAME_BYTES.min(value.len())], &self.event_id, datum].concat();
        let (mut key, mut partition) = (well.key.clone(), well.partition);
        let value = match self.kind {
            Kind::Repeat => Some(value.to_vec()),
            Kind::NoValue => None,
            Kind::EmptyValue => Some(Vec::new()),
            Kind::NoFraming => Some(b"{\"json\": true}".to_vec()),
            Kind::UnknownSchema => Some([&[0xC3, 0x01][..], &[7; 8], &self.event_id, datum].concat()),
            Kind::Undecodable => Some([&value[..FRAME_BYTES], &self.event_id, &[0xff; 24]].concat()),
            Kind::WrongKey => {
                let other = format!("schaos.u{}", u32::from(self.event_id[0]));
                partition = partition_of(other.as_bytes(), PARTITIONS);
                key = Some(Bytes::from(other));
                Some(anew())
            }
            Kind::WrongPartition => {
                partition = (partition + 1 + i32::from(self.event_id[0]) % (PARTITIONS - 1)) % PARTITIONS;
                Some(anew())
            }
            Kind::NoKey => {
                key = None;
                Some(anew())
            }
            Kind::Again => Some(anew()),
        };
        let mut headers = well.headers.clone();
        headers.push((EXPECTED.into(), Some(Bytes::from_static(self.kind.expected().as_bytes()))));
        headers.push(("kept".into(), Some(Bytes::from_static(b"\xff\x00"))));
        headers.push(("kept".into(), None));
        RawRecord {
            topic: well.topic.to_string(),
            partition: Some(partition),
            key,
            value: value.map(Bytes::from),
            // A repeat is the same record again; everything else happens now.
            timestamp: (self.kind == Kind::Repeat).then_some(TimestampMs(well.timestamp.0)),
            headers,
        }
    }
}

/// A record of the fleet's own, near the drawn place; none if the partition has none there.
async fn some_record(
    settings: &KafkaSettings,
    offsets: &Offsets,
    draw: &Draw,
) -> Result<Option<OwnedRecord>> {
    let topic = settings.topic(draw.topic);
    let ranges = offsets.ranges(&[&topic]).await?;
    let range = ranges.get(&(topic.clone(), draw.partition)).context("the partition is there")?;
    if range.end <= range.low {
        return Ok(None);
    }
    let length = range.end - range.low;
    let from = range.low + ((length as f64 * draw.at) as i64).min(length - 1);
    // Some of what lies there may be poison itself.
    let from = from.min((range.end - 20).max(range.low));
    let (settings, partition, to) = (settings.clone(), draw.partition, range.end.min(from + 20));
    let read = move || {
        let ranges = [PartitionRange { partition, from, to: Some(to) }];
        let mut found = None;
        LogReader::open(&settings, &topic, &ranges)?.for_each(|record| {
            if found.is_none() && record.header(EXPECTED).is_none() {
                found = Some(record.to_owned_record());
            }
            Ok::<_, ReadError>(())
        })?;
        Ok::<_, ReadError>(found)
    };
    match tokio::time::timeout(Duration::from_secs(5), tokio::task::spawn_blocking(read)).await {
        Ok(read) => Ok(read??),
        Err(_) => bail!("the log was not read in time"),
    }
}
