//! A cluster in memory, an endpoint by script, and time that is made.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use fleetlog_event::Reason;

use super::*;
use crate::Origin;

const SOURCE: usize = 0;
/// Tiers are topics 1, 2 and 3.
const HELD: usize = 4;
const TOPICS: usize = 5;

/// How the endpoint behaves.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// Everything works.
    Works,
    /// One never works.
    Fails(u64),
    /// Nothing works before that moment, in ms.
    DownUntil(u64),
    /// The same, and one never works.
    DownUntilAndFails(u64, u64),
    /// The handler stops at one.
    Stops(u64),
    /// Each call as the dice fall.
    Random,
    /// For one it is not time before that moment, in ms; all others fail till then.
    NotBefore(u64, u64),
}

/// A record on a topic.
#[derive(Clone, Debug)]
struct Lying {
    event: u64,
    key: u64,
    appended_ms: u64,
    rest: Duration,
    failed_calls: u32,
    is_time: bool,
}

/// What ends at some moment.
#[derive(Clone, Debug)]
enum Later {
    Prepared(At, u64),
    Called(At, u64),
    Sent(At, Destination),
    Time(LaneId),
    Commit(Vec<(LaneId, i64)>),
}

pub(super) struct World {
    settings: DispatcherSettings,
    dispatcher: Dispatcher<u64, u64>,
    script: Script,
    start: Instant,
    now_ms: u64,
    dice: u64,
    topics: Vec<Vec<Lying>>,
    committed: BTreeMap<LaneId, i64>,
    read: BTreeMap<LaneId, i64>,
    paused: BTreeSet<LaneId>,
    later: BTreeMap<(u64, u64), Later>,
    serial: u64,
    /// When each event was called for, in ms.
    calls: HashMap<u64, Vec<u64>>,
    /// Calls under way, by lane and key.
    open: HashMap<(LaneId, u64), i64>,
    /// Offsets called for since the process began, by lane.
    begun: BTreeMap<LaneId, BTreeSet<i64>>,
    /// The last offset of a key that was called for on the source.
    last: HashMap<u64, i64>,
    handled: BTreeMap<u64, u32>,
    letters: BTreeSet<u64>,
    sent: u64,
    stopped: Option<String>,
    complaints: Vec<String>,
}

fn lanes() -> impl Iterator<Item = LaneId> {
    (0..TOPICS).map(|topic| LaneId { topic, partition: 0 })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}

fn stamp(ms: u64) -> TimestampMs {
    TimestampMs(i64::try_from(ms).expect("small"))
}

impl World {
    pub(super) fn new(settings: DispatcherSettings, script: Script, seed: u64) -> Self {
        let mut world = Self {
            dispatcher: Dispatcher::new(settings.clone()),
            settings,
            script,
            start: Instant::now(),
            now_ms: 0,
            dice: seed.max(1),
            topics: vec![Vec::new(); TOPICS],
            committed: lanes().map(|lane| (lane, 0)).collect(),
            read: BTreeMap::new(),
            paused: BTreeSet::new(),
            later: BTreeMap::new(),
            serial: 0,
            calls: HashMap::new(),
            open: HashMap::new(),
            begun: BTreeMap::new(),
            last: HashMap::new(),
            handled: BTreeMap::new(),
            letters: BTreeSet::new(),
            sent: 0,
            stopped: None,
            complaints: Vec::new(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for (lane, committed) in self.committed.clone() {
            let kind = match lane.topic {
                SOURCE => LaneKind::Source,
                HELD => LaneKind::Held,
                tier => LaneKind::Tier(self.settings.policy.delays()[tier - 1]),
            };
            self.dispatcher.assigned(lane, kind, committed);
            self.read.insert(lane, committed);
        }
    }

    /// The process dies, and another begins. What was handed to the client may still get through.
    pub(super) fn kill(&mut self) {
        for (_, later) in std::mem::take(&mut self.later) {
            if let Later::Sent(at, destination) = later
                && self.roll(2) == 0
            {
                self.append(at, &destination);
            }
        }
        for (lane, begun) in std::mem::take(&mut self.begun) {
            let again = begun.range(self.committed[&lane]..).count();
            if again > self.settings.in_flight_max {
                self.complaints.push(format!("a kill repeats {again} of {lane:?}"));
            }
        }
        self.open.clear();
        self.paused.clear();
        self.last.clear();
        self.dispatcher = Dispatcher::new(self.settings.clone());
        self.begin();
    }

    /// Asks the process to stop, and waits until it may end.
    pub(super) fn end(&mut self) {
        self.dispatcher.stop();
        let mut turns = 0;
        while self.dispatcher.in_flight_len() > 0 || !self.later.is_empty() {
            self.run_for(Duration::from_millis(10));
            turns += 1;
            assert!(turns < 1_000, "it does not come to an end");
        }
    }

    /// From now on everything works.
    pub(super) fn heal(&mut self) {
        self.script = Script::Works;
    }

    /// So many events, of so many keys in turn.
    pub(super) fn send(&mut self, count: u64, keys: u64) {
        for event in self.sent..self.sent + count {
            self.put(SOURCE, event, event % keys, Duration::ZERO, 0);
        }
        self.sent += count;
    }

    fn put(&mut self, topic: usize, event: u64, key: u64, rest: Duration, failed_calls: u32) {
        let appended_ms = self.now_ms;
        self.topics[topic].push(Lying { event, key, appended_ms, rest, failed_calls, is_time: false });
    }

    /// xorshift64*: the same seed, the same run.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        (self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn soon(&mut self, later: Later) {
        let at_ms = self.now_ms + 1 + self.roll(20);
        self.serial += 1;
        self.later.insert((at_ms, self.serial), later);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now_ms + ms(time);
        while self.now_ms < end {
            self.turn();
            let next = self.later.keys().next().map_or(end, |(at, _)| *at);
            let wake = self.dispatcher.wakes_in(self.now()).map_or(end, |wake| self.now_ms + ms(wake));
            self.now_ms = next.min(wake).min(end).max(self.now_ms + 1);
        }
    }

    fn turn(&mut self) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let later = entry.remove();
            self.happens(later);
        }
        // Until nothing comes of it any more: what is resumed is read at once.
        loop {
            self.reads();
            let actions = self.dispatcher.act(self.now());
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.does(action));
        }
    }

    fn reads(&mut self) {
        for lane in lanes().filter(|lane| !self.paused.contains(lane)) {
            let lying = &self.topics[lane.topic];
            let from = usize::try_from(self.read[&lane]).expect("positive");
            for (offset, lying) in (self.read[&lane]..).zip(&lying[from..]) {
                self.dispatcher.read(
                    lane,
                    Incoming {
                        offset,
                        origin: Origin { topic: SOURCE, offset: i64::try_from(lying.event).expect("few") },
                        key: Some(Bytes::copy_from_slice(&lying.key.to_be_bytes())),
                        appended_at: stamp(lying.appended_ms),
                        rest: lying.rest,
                        failed_calls: lying.failed_calls,
                        bytes: 1,
                        record: (!lying.is_time).then_some(lying.event),
                    },
                );
            }
            let end = i64::try_from(lying.len()).expect("few");
            self.read.insert(lane, end);
            self.dispatcher.read_to_end(lane, end);
        }
    }

    fn does(&mut self, action: Action<u64, u64>) {
        match action {
            Action::Prepare(at, event) => self.soon(Later::Prepared(at, event)),
            Action::Call { at, event, failed_calls, newest_offset } => {
                self.called(at, event, failed_calls);
                if newest_offset < i64::try_from(event).expect("few") {
                    self.complaints.push(format!("the newest of {event} is {newest_offset}"));
                }
                self.soon(Later::Called(at, event));
            }
            Action::Send(at, destination) => self.soon(Later::Sent(at, destination)),
            Action::AskTime(lane) => self.soon(Later::Time(lane)),
            Action::Pause(lane) => drop(self.paused.insert(lane)),
            Action::Resume(lane, from) => {
                self.paused.remove(&lane);
                self.read.insert(lane, from);
            }
            Action::Commit(offsets) => self.soon(Later::Commit(offsets)),
            Action::Changed(_) => {}
            Action::Stop(why) => self.stopped = Some(why),
        }
    }

    /// Whether a call may be made now.
    fn called(&mut self, at: At, event: u64, failed_calls: u32) {
        let lying = self.lying(at);
        let seen = format!("the call for {event} at {at:?}, {} ms", self.now_ms);
        if let Some(other) = self.open.insert((at.lane, lying.key), at.offset) {
            self.complaints.push(format!("{seen} came beside {other}"));
        }
        if at.lane.topic == SOURCE
            && self.last.insert(lying.key, at.offset).is_some_and(|last| last > at.offset)
        {
            self.complaints.push(format!("{seen} came behind a later one of its key"));
        }
        if (lying.event, lying.failed_calls) != (event, failed_calls) {
            self.complaints.push(format!("{seen} is of another record"));
        }
        let delays = self.settings.policy.delays();
        if let Some(delay) = at.lane.topic.checked_sub(1).and_then(|tier| delays.get(tier)) {
            let due = lying.appended_ms + ms(*delay + lying.rest);
            if self.now_ms < due {
                self.complaints.push(format!("{seen} came before {due}"));
            }
        }
        self.begun.entry(at.lane).or_default().insert(at.offset);
        self.calls.entry(event).or_default().push(self.now_ms);
    }

    fn happens(&mut self, later: Later) {
        let now = self.now();
        match later {
            Later::Prepared(at, event) => self.dispatcher.prepared(at, Prepared::Wanted(event)),
            Later::Called(at, event) => {
                self.open.remove(&(at.lane, self.lying(at).key));
                let result = self.answer(event);
                if result.is_ok() {
                    *self.handled.entry(event).or_default() += 1;
                }
                self.dispatcher.ended(at, result, now);
            }
            Later::Sent(at, destination) => {
                if let Some(lane) = self.append(at, &destination) {
                    self.dispatcher.heard(lane, stamp(self.now_ms), now);
                }
                self.dispatcher.sent(at);
            }
            Later::Time(lane) => {
                self.put(lane.topic, 0, 0, Duration::ZERO, 0);
                self.topics[lane.topic].last_mut().expect("just put").is_time = true;
                self.dispatcher.heard(lane, stamp(self.now_ms), now);
            }
            Later::Commit(offsets) => {
                let is_refused = matches!(self.script, Script::Random) && self.roll(4) == 0;
                let taken = if is_refused { Vec::new() } else { offsets };
                self.committed.extend(taken.iter().copied());
                self.dispatcher.committed(&taken);
            }
        }
    }

    fn append(&mut self, at: At, destination: &Destination) -> Option<LaneId> {
        let Lying { event, key, .. } = self.lying(at);
        let topic = match destination {
            Destination::Tier { place, failed_calls, .. } => {
                self.put(place.tier + 1, event, key, place.rest, *failed_calls);
                place.tier + 1
            }
            Destination::Held { failed_calls, .. } => {
                self.put(HELD, event, key, Duration::ZERO, *failed_calls);
                HELD
            }
            Destination::DeadLetter { .. } => {
                self.letters.insert(event);
                return None;
            }
        };
        Some(LaneId { topic, partition: 0 })
    }

    fn lying(&self, at: At) -> Lying {
        self.topics[at.lane.topic][usize::try_from(at.offset).expect("positive")].clone()
    }

    fn answer(&mut self, event: u64) -> Result<(), HandlerError> {
        let fails = match self.script {
            Script::Works => false,
            Script::Fails(one) => event == one,
            Script::DownUntil(until) => self.now_ms < until,
            Script::DownUntilAndFails(until, one) => self.now_ms < until || event == one,
            Script::Stops(one) if event == one => return Err(HandlerError::Stop("stop".to_owned())),
            Script::Stops(_) => false,
            Script::NotBefore(one, until) if event == one && self.now_ms < until => {
                let after = Duration::from_millis(until - self.now_ms);
                return Err(HandlerError::NotYet { after, why: "it is early".to_owned() });
            }
            Script::NotBefore(_, until) => self.now_ms < until,
            Script::Random => match self.roll(10) {
                0 => return Err(Reject::new(Reason::RefusedByEndpoint, "no").into()),
                1 => {
                    let after = Duration::from_millis(self.roll(9_000));
                    return Err(HandlerError::RetryAfter { after, detail: "busy".to_owned() });
                }
                2 => {
                    let after = Duration::from_millis(self.roll(9_000));
                    return Err(HandlerError::NotYet { after, why: "it is early".to_owned() });
                }
                side => side < 6,
            },
        };
        if fails { Err(HandlerError::Retry("down".to_owned())) } else { Ok(()) }
    }

    /// How often each event was handled.
    pub(super) fn handled(&self) -> Vec<u32> {
        (0..self.sent).map(|event| self.handled.get(&event).copied().unwrap_or(0)).collect()
    }

    pub(super) fn dead_letters(&self) -> Vec<u64> {
        self.letters.iter().copied().collect()
    }

    /// Neither handled nor a dead letter.
    pub(super) fn missing(&self) -> Vec<u64> {
        let is_known = |event: &u64| self.handled.contains_key(event) || self.letters.contains(event);
        (0..self.sent).filter(|event| !is_known(event)).collect()
    }

    pub(super) fn calls_of(&self, event: u64) -> &[u64] {
        &self.calls[&event]
    }

    pub(super) fn calls_len(&self) -> usize {
        self.calls.values().map(Vec::len).sum()
    }

    pub(super) fn source_lag(&self) -> i64 {
        self.lag(LaneId { topic: SOURCE, partition: 0 })
    }

    pub(super) fn lags(&self) -> i64 {
        lanes().map(|lane| self.lag(lane)).sum()
    }

    fn lag(&self, lane: LaneId) -> i64 {
        i64::try_from(self.topics[lane.topic].len()).expect("few") - self.committed[&lane]
    }

    pub(super) fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    pub(super) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}
