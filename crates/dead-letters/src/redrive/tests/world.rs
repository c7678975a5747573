//! A fleet made of maps: ledgers, inboxes, topic `ops`. Lanes work when they are looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use fleetlog_event::{EntityKey, LogId, Reason, Reject, TimestampMs, ops::OpsEvent};
use fleetlog_kafka::OwnedRecord;
use fleetlog_producer::RawRecord;
use fleetlog_projection::{
    Act, Command, EntryState, Fault, InboxRecord, LedgerEntry, Progress, Record, SetAside, Version,
};
use tokio::time::Instant;

use crate::{
    Actions, Found, Letter, Place, ReadLetter, Selector,
    orders::Orders,
    redrive::{
        Awaited, InboxOffsets, LaneRef, Lanes, Leases, LogFacts, Message, Plan, Reader, RedriveError,
        RedriveRequest, Redriven, Rehearsal, Road, Stop, Told, Trouble, execute, plan::of_found,
    },
};

pub(super) const TOPIC: &str = "p-robot";
pub(super) const PARTITIONS: i32 = 3;

pub(super) struct Inner {
    letters: BTreeMap<Place, OwnedRecord>,
    pub(super) ledgers: BTreeMap<(LaneRef, i64), LedgerEntry>,
    /// Next position of every lane.
    pub(super) main: i64,
    pub(super) inboxes: BTreeMap<(String, i32), Vec<RawRecord>>,
    answered: BTreeMap<(String, i32), i64>,
    /// Events on the source topic that were emitted anew.
    pub(super) emitted: Vec<RawRecord>,
    /// Positions that are rejected whatever one does.
    pub(super) rejects: BTreeSet<i64>,
    /// Entities by who knows them.
    pub(super) versions: BTreeMap<(LaneRef, EntityKey), Version>,
    pub(super) members: usize,
    pub(super) ops: Vec<OpsEvent>,
    owners: BTreeMap<String, u64>,
    began: Instant,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) inner: Arc<Mutex<Inner>>,
    readers: Vec<Reader>,
    log: LogId,
}

impl World {
    pub(super) fn new() -> Self {
        let reader = |group: &str| Reader {
            group: group.to_owned(),
            topic: TOPIC.to_owned(),
            inbox: format!("{group}-robot-inbox"),
        };
        let inner = Inner {
            letters: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            main: 1_000_000,
            inboxes: BTreeMap::new(),
            answered: BTreeMap::new(),
            emitted: Vec::new(),
            rejects: BTreeSet::new(),
            versions: BTreeMap::new(),
            members: 1,
            ops: Vec::new(),
            owners: BTreeMap::new(),
            began: Instant::now(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            readers: ["a", "b"].map(reader).to_vec(),
            log: LogId(uuid::Uuid::from_u128(9)),
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A group set a position aside: its letter, and the entry in its ledger.
    pub(super) fn set_aside(&self, group: &str, partition: i32, offset: i64, reason: Reason) {
        let mut inner = self.inner();
        let place = Place {
            topic: "robot-dlq".into(),
            partition: 0,
            offset: i64::try_from(inner.letters.len()).unwrap(),
        };
        let text = |name: &str, value: String| {
            (format!("fleetlog-dlq-{name}").as_str().into(), Some(Bytes::from(value)))
        };
        let mut headers = vec![
            text("group", group.to_owned()),
            text("reason", reason.to_string()),
            text("topic", TOPIC.to_owned()),
            text("partition", partition.to_string()),
            text("offset", offset.to_string()),
            text("log", self.log.to_string()),
            text("timestamp", "77".to_owned()),
        ];
        headers.insert(0, ("ce_subject".into(), Some(Bytes::from_static(b"wrong"))));
        let letter = OwnedRecord {
            topic: "p-robot-dlq".into(),
            partition: 0,
            offset: place.offset,
            timestamp: TimestampMs(place.offset),
            key: Some(Bytes::from_static(b"wrong")),
            value: Some(Bytes::from(offset.to_string())),
            headers,
        };
        inner.letters.insert(place, letter);
        let record = Record {
            offset,
            timestamp: TimestampMs(77),
            key: None,
            value: None,
            headers: fleetlog_projection::Headers::default(),
        };
        let aside = SetAside { record, reject: Reject::new(reason, ""), event_type: None };
        let lane = LaneRef { group: group.into(), topic: TOPIC.into(), partition };
        inner.ledgers.insert((lane, offset), LedgerEntry::new(&aside, TimestampMs(0)));
    }

    pub(super) fn found(&self) -> Found {
        let inner = self.inner();
        let mut actions = Actions::default();
        inner.ops.iter().for_each(|event| actions.take(event.clone()));
        let letters: Vec<_> = inner
            .letters
            .values()
            .map(|record| {
                let letter = Letter::read(record, "robot-dlq");
                let state = actions.state(&letter);
                (letter, state)
            })
            .collect();
        Found {
            matched: letters.len(),
            seen: letters.len() as u64,
            letters,
            is_all_open: true,
            in_other_states: 0,
            missing_topics: Vec::new(),
            unreadable_actions: 0,
        }
    }

    pub(super) async fn plan(&self, request: &RedriveRequest) -> Plan {
        of_found(self.found(), request, self, &self.operator()).await.unwrap()
    }

    pub(super) fn operator(&self) -> Operator {
        Operator { world: self.clone(), generations: BTreeMap::new() }
    }

    pub(super) async fn run(&self, request: &RedriveRequest) -> Result<Redriven, RedriveError> {
        self.run_by(&mut self.operator(), request, &Stop::default(), |_| {}).await
    }

    pub(super) async fn run_by(
        &self,
        operator: &mut Operator,
        request: &RedriveRequest,
        stop: &Stop,
        mut tell: impl FnMut(Told<'_>) + Send,
    ) -> Result<Redriven, RedriveError> {
        let plan = self.plan(request).await;
        execute(&plan, request, self, operator, stop, &mut tell).await
    }

    pub(super) fn state(&self, group: &str, partition: i32, offset: i64) -> (EntryState, u32) {
        let lane = LaneRef { group: group.into(), topic: TOPIC.into(), partition };
        let entry = &self.inner().ledgers[&(lane, offset)];
        (entry.state, entry.replays)
    }

    pub(super) fn commands(&self) -> usize {
        self.inner().inboxes.values().map(Vec::len).sum()
    }

    /// The lane carries out what lies in its inbox.
    fn work(inner: &mut Inner, lane: &LaneRef, inbox: &str) {
        if inner.members == 0 {
            return;
        }
        let at = (inbox.to_owned(), lane.partition);
        let lying = inner.inboxes.get(&at).cloned().unwrap_or_default();
        let next = usize::try_from(inner.answered.get(&at).copied().unwrap_or(0)).unwrap();
        for raw in &lying[next.min(lying.len())..] {
            let command = Command::read(&as_record(raw)).unwrap();
            let Some(offset) = command.offset() else {
                let Act::FoldAnew { key } = command.act else { continue };
                if let Some(version) = inner.versions.get_mut(&(lane.clone(), key)) {
                    version.revision += 1;
                }
                continue;
            };
            let rejects = inner.rejects.clone();
            if let Act::Skip { record, why } = command.act {
                // A lane that stands elsewhere does nothing about it.
                if offset == inner.main {
                    let reject = Reject::new(Reason::Skipped, why);
                    let aside = SetAside { record, reject, event_type: None };
                    inner.ledgers.insert((lane.clone(), offset), LedgerEntry::new(&aside, TimestampMs(1)));
                }
                continue;
            }
            let Some(entry) = inner.ledgers.get_mut(&(lane.clone(), offset)) else {
                continue;
            };
            if !entry.state.is_open() {
                continue;
            }
            let now = TimestampMs(1);
            *entry = match command.act {
                Act::EmittedAnew { .. } => entry.clone().closed(EntryState::EmittedAnew, now),
                Act::Redrive { record, replays_max } if rejects.contains(&record.offset) => {
                    let reject = Reject::new(Reason::UnknownTask, "again");
                    let aside = SetAside { record, reject, event_type: None };
                    entry.clone().rejected_again(&aside, replays_max, now)
                }
                _ => entry.clone().closed(EntryState::Redriven, now),
            };
        }
        inner.answered.insert(at, i64::try_from(lying.len()).unwrap());
    }
}

fn as_record(raw: &RawRecord) -> Record {
    let headers = raw.headers.iter();
    let written = InboxRecord {
        key: raw.key.clone(),
        value: raw.value.clone(),
        headers: headers
            .map(|(name, value)| (Bytes::copy_from_slice(name.as_ref()), value.clone()))
            .collect(),
    };
    written.at(0, TimestampMs(0))
}

impl Lanes for World {
    fn readers(&self) -> &[Reader] {
        &self.readers
    }

    async fn progress(&self, lane: &LaneRef) -> Result<Option<Progress>, Trouble> {
        let inbox = format!("{}-robot-inbox", lane.group);
        let mut inner = self.inner();
        Self::work(&mut inner, lane, &inbox);
        let answered = inner.answered.get(&(inbox, lane.partition)).copied().unwrap_or(0);
        Ok(Some(Progress { log: self.log, main: inner.main, inbox: answered, last: None }))
    }

    async fn entries(
        &self,
        lane: &LaneRef,
        _: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, Trouble> {
        let inner = self.inner();
        let entry = |offset: &i64| Some((*offset, inner.ledgers.get(&(lane.clone(), *offset))?.clone()));
        Ok(offsets.iter().filter_map(entry).collect())
    }

    async fn versions(&self, lane: &LaneRef, keys: &[EntityKey]) -> Result<Vec<Option<Version>>, Trouble> {
        let inner = self.inner();
        let version = |key: &EntityKey| inner.versions.get(&(lane.clone(), key.clone())).copied();
        Ok(keys.iter().map(version).collect())
    }

    async fn members(&self, _: &str) -> Result<usize, Trouble> {
        Ok(self.inner().members)
    }

    async fn rehearse(&self, _: &LaneRef, records: Vec<Record>) -> Result<Rehearsal, Trouble> {
        let inner = self.inner();
        let outcome = |record: Record| {
            let is_rejected = inner.rejects.contains(&record.offset);
            let reject = Reject::new(Reason::UnknownTask, "again");
            (record.offset, if is_rejected { Err(reject) } else { Ok(()) })
        };
        Ok(Rehearsal { outcomes: records.into_iter().map(outcome).collect(), also_rejected: Vec::new() })
    }
}

/// Somebody at a keyboard.
pub(super) struct Operator {
    world: World,
    generations: BTreeMap<String, u64>,
}

impl Operator {
    /// Takes over the group's transactional id.
    pub(super) fn seize(&mut self, group: &str) {
        let mut inner = self.world.inner();
        let owner = inner.owners.entry(group.to_owned()).or_default();
        *owner += 1;
        self.generations.insert(group.to_owned(), *owner);
    }
}

impl Orders for World {
    async fn logs(&self, topics: &BTreeSet<&str>) -> Result<BTreeMap<String, LogFacts>, Trouble> {
        let facts = LogFacts { log: self.log, partitions: PARTITIONS };
        let is_there = |topic: &&&str| !topic.starts_with("gone");
        Ok(topics.iter().filter(is_there).map(|topic| ((*topic).to_owned(), facts)).collect())
    }

    async fn send(&self, messages: &[Message]) -> Result<BTreeMap<LaneRef, Awaited>, Trouble> {
        let mut inner = self.inner();
        let mut awaited = BTreeMap::new();
        for message in messages {
            let inbox = inner.inboxes.entry((message.inbox.clone(), message.lane.partition)).or_default();
            let command = i64::try_from(inbox.len()).unwrap();
            inbox.push(message.record());
            awaited.insert(message.lane.clone(), Awaited { command, position: message.command.offset() });
        }
        Ok(awaited)
    }
}

impl Road for Operator {
    fn now(&self) -> TimestampMs {
        let since: Duration = self.world.inner().began.elapsed();
        TimestampMs(i64::try_from(since.as_millis()).unwrap())
    }

    async fn logs(&self, _: &[String]) -> Result<BTreeMap<String, LogFacts>, Trouble> {
        Ok([(TOPIC.to_owned(), LogFacts { log: self.world.log, partitions: PARTITIONS })].into())
    }

    async fn fetch(&self, places: &[Place]) -> Result<BTreeMap<Place, OwnedRecord>, Trouble> {
        let inner = self.world.inner();
        Ok(places
            .iter()
            .filter_map(|place| Some((place.clone(), inner.letters.get(place)?.clone())))
            .collect())
    }

    async fn entity_of(&self, _: &str, record: &OwnedRecord) -> Result<Result<EntityKey, String>, Trouble> {
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap()).into_owned();
        Ok(if value == "13" { Err("they cannot be read".into()) } else { Ok(format!("s1.u{value}").into()) })
    }

    async fn leases(&self) -> Result<Leases, Trouble> {
        let mut leases = Leases::default();
        self.world.inner().ops.iter().for_each(|event| leases.take(event));
        Ok(leases)
    }

    async fn write_down(&self, events: Vec<OpsEvent>) -> Result<(), Trouble> {
        self.world.inner().ops.extend(events);
        Ok(())
    }

    async fn take_over(&mut self, group: &str) -> Result<(), Trouble> {
        self.seize(group);
        Ok(())
    }

    async fn send(&mut self, group: &str, records: Vec<RawRecord>) -> Result<InboxOffsets, Trouble> {
        let mut inner = self.world.inner();
        if self.generations.get(group) != inner.owners.get(group) {
            return Err(Trouble { fault: Fault::Fenced, what: "fenced".into() });
        }
        let mut last = InboxOffsets::new();
        for record in records {
            if record.topic == TOPIC {
                inner.emitted.push(record);
                continue;
            }
            let at = (record.topic.clone(), record.partition.unwrap());
            let inbox = inner.inboxes.entry(at.clone()).or_default();
            last.insert(at, i64::try_from(inbox.len()).unwrap());
            inbox.push(record);
        }
        Ok(last)
    }

    async fn last_commands(&self, from: &InboxOffsets) -> Result<InboxOffsets, Trouble> {
        let inner = self.world.inner();
        let last = |(at, from): (&(String, i32), &i64)| {
            let end = i64::try_from(inner.inboxes.get(at)?.len()).unwrap();
            (end > *from).then(|| (at.clone(), end - 1))
        };
        Ok(from.iter().filter_map(last).collect())
    }
}

pub(super) fn request() -> RedriveRequest {
    RedriveRequest {
        action_id: uuid::Uuid::new_v4().to_string(),
        selector: Selector::default(),
        parked: false,
        canary: None,
        rate_per_s: None,
        replays_max: 3,
        batch: 500,
        sample: 20,
        patience: Duration::from_secs(60),
        operator: "anna@control-1".into(),
        why: "fixed".into(),
        source: "test/0".into(),
        all_is_meant: true,
    }
}
