//! An endpoint that is down for two minutes, and a few events that it stumbles over. `docs/stories/retries.md` tells it
//! to people.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant, SystemTime},
};

use fleetlog_engine::handler_group;
use fleetlog_event::catalogue::{Catalogue, held_name, retry_name};
use fleetlog_kafka::Offsets;
use fleetlog_testkit::Running;
use fleetlog_tests::{LIMIT, World, address_of, get, until};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    receiver::{Received, Receiver, stumbles_over},
    teller::Teller,
};

const HANDLER: &str = "webhook-dispatch";
const SOURCES: [&str; 3] = ["robot", "telemetry", "task"];
const TIERS_MS: [u64; 3] = [1000, 2000, 4000];
const CALLS_MAX: u64 = 4;
const RATE: u64 = 500;
const EVENTS: u64 = 100_000;
/// How long all is well before.
const WELL: Duration = Duration::from_secs(20);
const OUTAGE: Duration = Duration::from_secs(120);
/// How far the group may be behind on its sources: what comes in five seconds. Whoever waited for the endpoint would be behind by
/// twenty-four times that.
const LAG_MAX: i64 = 5 * RATE.cast_signed();
/// How many calls may meet an endpoint that is down: those under way when the circuit opens, and the trials.
const CALLS_DOWN_MAX: usize = 1000;
/// How long what waits may take until it is delivered.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const TOLD_INTERVAL: Duration = Duration::from_secs(10);
/// Where the event's id lies in a record: behind `C3 01` and the schema's fingerprint.
const EVENT_ID: std::ops::Range<usize> = 10..26;

struct Story {
    world: World,
    teller: Teller,
    receiver: Receiver,
    /// Topics of the log, physical names; then those on which events wait.
    sources: Vec<String>,
    waiting: Vec<String>,
    offsets: Offsets,
    config: tempfile::TempDir,
}

/// How it stood at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// Offsets that the group is behind on its sources, and on tiers and what is held.
    behind: i64,
    waiting: i64,
    /// Events held so far.
    held: u64,
    openings: u64,
    is_open: bool,
}

/// What was seen since it began.
struct Watch {
    begun: Instant,
    /// When a look is told again.
    next: Duration,
    behind_max: i64,
}

/// An event of the log.
struct Logged {
    id: Uuid,
    key: Vec<u8>,
}

/// When the endpoint was down, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Outage {
    from: f64,
    to: f64,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a story: make story NAME=retries"]
async fn story() {
    let mut story = Story::begin().await;
    story.an_endpoint().await;
    let (handler, metrics) = story.the_handler().await;
    let load = story.the_fleet(&metrics).await;
    let outage = story.two_minutes_down(&metrics).await;
    story.it_is_back(&metrics, load).await;
    let (log, calls) = story.everything_was_delivered(outage).await;
    story.in_which_order(&log, &calls, outage);
    story.the_few_that_gave_up(&log).await;
    story.redrive_to_the_handler(&log).await;
    story.the_end(handler).await;
}

impl Story {
    async fn begin() -> Self {
        let mut world = World::bare("retries").await;
        let secret = format!("whsec_{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple());
        let config = tempfile::tempdir().unwrap();
        world.fleetlog = world
            .fleetlog
            .env("FLEETLOG_CONFIG", &config.path().join("fleetlog.toml").display().to_string())
            .env("FLEETLOG_WEBHOOKS__DISPATCH__SECRET", &secret);
        let group = handler_group(&world.prefix, HANDLER);
        let tiers = TIERS_MS.iter().map(|delay_ms| retry_name(&group, *delay_ms));
        Self {
            receiver: Receiver::start(&secret).await,
            sources: SOURCES.iter().map(|stem| world.kafka().topic(stem)).collect(),
            waiting: tiers.chain([held_name(&group)]).collect(),
            offsets: Offsets::new(&world.kafka()).unwrap(),
            teller: Teller::new(world.fleetlog.clone()),
            world,
            config,
        }
    }

    async fn an_endpoint(&mut self) {
        self.teller.chapter("An endpoint that verifies each call with a library of the scheme");
        let catalogue = Catalogue::builtin();
        let topics = catalogue.sources().filter(|topic| SOURCES.contains(&topic.stem.as_str()));
        let types: Vec<&str> = topics.flat_map(|topic| &topic.events).map(String::as_str).collect();
        let settings = |types: &str| {
            let url = self.receiver.url();
            format!(
                "[webhooks.dispatch]\nurl = \"{url}\"\nallow_private = true\nstart_at = \"begin\"\nevent_types = [{types}]\n"
            )
        };
        let all = types.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        std::fs::write(self.config.path().join("fleetlog.toml"), settings(&all)).unwrap();
        println!("$ cat fleetlog.toml");
        println!("{}", settings(&format!("… all {} types of robot, telemetry and task …", types.len())));
        self.teller.say("its secret stands in FLEETLOG_WEBHOOKS__DISPATCH__SECRET");
        self.teller.run(&["config", "check"]).await;
        self.teller.run(&["topics", "apply"]).await;
    }

    /// The handler, and where its metrics are.
    async fn the_handler(&mut self) -> (Running, String) {
        self.teller.chapter("The handler runs");
        let run = ["run", "--handlers", HANDLER];
        println!("$ fleetlog {} &\n", run.join(" "));
        let mut running = self.world.fleetlog.spawn(&run).unwrap();
        let metrics = address_of(&mut running).await;
        (running, metrics)
    }

    async fn the_fleet(&mut self, metrics: &str) -> Running {
        self.teller.chapter("500 events a second, each of them a call");
        let (rate, events) = (RATE.to_string(), EVENTS.to_string());
        let load = ["simulate", "--units", "200", "--rate", &rate, "--events", &events, "--seed", "1"];
        println!("$ fleetlog {} &\n", load.join(" "));
        let load = self.world.fleetlog.spawn(&load).unwrap();
        let (watch, last) = self.watch(metrics, WELL).await;
        self.teller.say(&format!("at most {} offsets behind on the log", watch.behind_max));
        self.teller.holds("nothing is held while all is well", (last.held, last.is_open), (0, false));
        load
    }

    async fn two_minutes_down(&mut self, metrics: &str) -> Outage {
        self.teller.chapter("The endpoint answers 503, for two minutes");
        let from = now();
        self.receiver.is_down(true).await;
        let (watch, last) = self.watch(metrics, OUTAGE).await;
        self.receiver.is_down(false).await;
        let outage = Outage { from, to: now() };
        self.teller.say(&format!("at most {} offsets behind on robot, telemetry and task", watch.behind_max));
        self.teller.holds("the group kept up with the log all the time", watch.behind_max <= LAG_MAX, true);
        self.teller.holds("the circuit opened, and opened again after its trials", last.openings > 1, true);
        let calls = self.receiver.calls().await;
        let down = calls.iter().filter(|call| call.at >= outage.from && call.at < outage.to).count();
        self.teller.say(&format!(
            "{down} calls met the endpoint while it was down, {} events are held, the circuit opened {} times",
            last.held, last.openings
        ));
        self.teller.holds("the endpoint was left alone", down <= CALLS_DOWN_MAX, true);
        outage
    }

    async fn it_is_back(&mut self, metrics: &str, load: Running) {
        self.teller.chapter("The endpoint answers again");
        let (mut watch, mut load, mut is_open) = (Watch::begin(), Some(load), true);
        let last = loop {
            let look = self.look(metrics).await;
            watch.saw(look);
            if is_open && !look.is_open {
                let after = watch.seconds();
                self.teller
                    .say(&format!("after {after} s all trials were answered, and the circuit is closed"));
            }
            is_open = look.is_open;
            if load.as_mut().is_some_and(|load| load.ended().unwrap().is_some()) {
                let said = load.take().unwrap().wait(LIMIT).await.unwrap().success().unwrap();
                self.teller.say(&format!("the fleet is done: {}", said.trim()));
            }
            if load.is_none() && look.behind == 0 && look.waiting == 0 {
                break look;
            }
            assert!(watch.begun.elapsed() < DRAIN_LIMIT, "not delivered after {DRAIN_LIMIT:?}: {look:?}");
            sleep(LOOK_INTERVAL).await;
        };
        self.teller.say(&format!("nothing waits any more after {} s", watch.seconds()));
        self.teller.say(&format!("at most {} offsets behind on the log meanwhile", watch.behind_max));
        self.teller.holds("the circuit is closed", last.is_open, false);
        self.teller.holds(
            "tiers and what was held are empty, and the log is done",
            (last.waiting, last.behind),
            (0, 0),
        );
    }

    /// The log, and the calls.
    async fn everything_was_delivered(&mut self, outage: Outage) -> (Vec<Logged>, Vec<Received>) {
        self.teller.chapter("What the endpoint got, against the log");
        let (log, calls) = (self.log().await, self.receiver.calls().await);
        self.teller.holds("100,000 events lie on the log", log.len() as u64, EVENTS);
        let invalid = calls.iter().filter(|call| !call.valid).count();
        self.teller.say(&format!("{} calls in all", calls.len()));
        self.teller.holds("standardwebhooks took the signature of each", invalid, 0);
        let mut taken: BTreeMap<Uuid, usize> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.status == 204) {
            *taken.entry(call.id).or_default() += 1;
        }
        let expected: BTreeSet<Uuid> =
            log.iter().map(|event| event.id).filter(|id| !stumbles_over(*id)).collect();
        let found: BTreeSet<Uuid> = taken.keys().copied().collect();
        self.teller.holds("nothing came that is not on the log", found.difference(&expected).count(), 0);
        self.teller.holds(
            "every event was delivered, but for those over which it stumbles",
            expected.difference(&found).count(),
            0,
        );
        let repeats: usize = taken.values().map(|times| times - 1).sum();
        self.teller.say(&format!("{repeats} deliveries were repeats"));
        let delivered = calls.iter().filter(|call| call.status == 204);
        let again = delivered.clone().filter(|call| call.at >= outage.to).map(|call| call.at);
        let first = again.clone().fold(f64::INFINITY, f64::min) - outage.to;
        let last = again.fold(0.0, f64::max) - outage.to;
        self.teller.say(&format!(
            "the first delivery after the outage {first:.1} s after its end, the last {last:.1} s"
        ));
        let retried = delivered.filter(|call| call.attempt > 1).count();
        self.teller.say(&format!("{retried} deliveries were not the first call that counted"));
        (log, calls)
    }

    /// Which events overtook an older one of their key. `log` is in the order of each partition.
    fn in_which_order(&mut self, log: &[Logged], calls: &[Received], outage: Outage) {
        self.teller.chapter("In which order");
        let mut first: HashMap<Uuid, usize> = HashMap::new();
        for (place, call) in calls.iter().enumerate().filter(|(_, call)| call.status == 204) {
            first.entry(call.id).or_insert(place);
        }
        let mut latest: HashMap<&[u8], usize> = HashMap::new();
        let (mut early, mut all) = (0, 0);
        for event in log {
            let Some(place) = first.get(&event.id) else { continue };
            let latest = latest.entry(&event.key).or_default();
            if place < latest {
                all += 1;
                early += usize::from(calls[*latest].at < outage.from);
            }
            *latest = (*latest).max(*place);
        }
        self.teller.holds("until the outage the events of each unit and task came in their order", early, 0);
        self.teller.say(&format!("{all} events in all came before an older one of their unit or task, which was held or waited for a retry"));
    }

    async fn the_few_that_gave_up(&mut self, log: &[Logged]) {
        self.teller.chapter("The few that gave up");
        let group = handler_group(&self.world.prefix, HANDLER);
        let list = ["dlq", "list", "--source", "topic", "--group", &group];
        self.teller.run(&[&list[..], &["--limit", "5"]].concat()).await;
        let letters = self.world.json(&[&list[..], &["--limit", "100000"]].concat()).await;
        let letters = letters.as_array().unwrap();
        self.teller.run(&["dlq", "show", letters[0]["place"].as_str().unwrap()]).await;
        let mut found = BTreeSet::new();
        for source in SOURCES {
            let records = self.world.records(&self.world.kafka().topic(&format!("{source}-dlq"))).await;
            found.extend(records.iter().map(|record| id_of(record.value.as_deref().unwrap())));
        }
        let expected: BTreeSet<Uuid> =
            log.iter().map(|event| event.id).filter(|id| stumbles_over(*id)).collect();
        self.teller.say(&format!("the endpoint stumbles over {} events", expected.len()));
        self.teller.holds("each of these is a dead letter, and no other", &found, &expected);
        self.teller.holds("once", letters.len(), expected.len());
        let is_tried =
            |letter: &&Value| letter["attempts"] == CALLS_MAX && letter["first_failure"].is_string();
        let tried = letters.iter().filter(is_tried).count();
        self.teller.holds("after four calls, with the time of the first", tried, expected.len());
    }

    /// What gave up goes to the endpoint once more, and to nobody else.
    async fn redrive_to_the_handler(&mut self, log: &[Logged]) {
        self.teller.chapter("Back to the endpoint");
        let before = self.receiver.calls().await.len();
        self.receiver.is_mended().await;
        let group = handler_group(&self.world.prefix, HANDLER);
        let redrive = ["dlq", "redrive", "--group", &group, "--all"];
        self.teller.run(&redrive).await;
        let execute = ["--execute", "--yes", "--why", "the endpoint stumbles no more"];
        self.teller.run(&[&redrive[..], &execute].concat()).await;
        let expected: BTreeSet<Uuid> =
            log.iter().map(|event| event.id).filter(|id| stumbles_over(*id)).collect();
        until("the endpoint is told once more", async || {
            self.receiver.calls().await.len() >= before + expected.len()
        })
        .await;
        let calls = self.receiver.calls().await.split_off(before);
        let told: BTreeSet<Uuid> = calls.iter().map(|call| call.id).collect();
        self.teller.holds("each of them is told once more, and nothing else is", &told, &expected);
        let is_right =
            |call: &&Received| call.redrive && call.valid && call.attempt == 1 && call.status == 204;
        let right = calls.iter().filter(is_right).count();
        self.teller.holds("signed, and as what an operator sent back", right, expected.len());
        let open = self.world.json(&["dlq", "list", "--source", "topic", "--group", &group]).await;
        self.teller.holds("no dead letter is open any more", open.as_array().unwrap().len(), 0);
    }

    async fn the_end(&mut self, handler: Running) {
        self.teller.chapter("What the handler said of its circuit");
        handler.signal("TERM").unwrap();
        let said = handler.wait(LIMIT).await.unwrap();
        let lines = said.stdout.lines().chain(said.stderr.lines());
        lines.filter(|line| line.contains("circuit")).for_each(|line| println!("{line}"));
        self.teller.holds("it ends in good order", said.code(), Some(0));
        self.teller.end();
    }

    /// Looks every second for a while; the last look.
    async fn watch(&self, metrics: &str, time: Duration) -> (Watch, Look) {
        let mut watch = Watch::begin();
        loop {
            let look = self.look(metrics).await;
            watch.saw(look);
            if watch.begun.elapsed() >= time {
                return (watch, look);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self, metrics: &str) -> Look {
        let (code, text) = get(metrics, "/metrics").await;
        assert_eq!(code, 200);
        let names: Vec<&str> = self.sources.iter().chain(&self.waiting).map(String::as_str).collect();
        let group = handler_group(&self.world.prefix, HANDLER);
        let (committed, ranges) =
            tokio::try_join!(self.offsets.committed(&group, &names), self.offsets.ranges(&names)).unwrap();
        let behind = |topics: &[String]| {
            let ranges = ranges.iter().filter(|((topic, _), _)| topics.contains(topic));
            ranges.map(|(at, range)| (range.end - committed.get(at).unwrap_or(&range.low)).max(0)).sum()
        };
        Look {
            behind: behind(&self.sources),
            waiting: behind(&self.waiting),
            held: sum(&text, "fleetlog_handler_held_total"),
            openings: sum(&text, "fleetlog_handler_circuit_openings_total"),
            is_open: sum(&text, "fleetlog_handler_circuit_open") > 0,
        }
    }

    /// Every event of the three topics, in the order of its partition.
    async fn log(&self) -> Vec<Logged> {
        let mut log = Vec::new();
        for topic in &self.sources {
            let records = self.world.records(topic).await.into_iter();
            log.extend(records.map(|record| {
                let mut key = topic.clone().into_bytes();
                key.extend_from_slice(record.key.as_deref().unwrap());
                Logged { id: id_of(record.value.as_deref().unwrap()), key }
            }));
        }
        log
    }
}

impl Watch {
    fn begin() -> Self {
        Self { begun: Instant::now(), next: Duration::ZERO, behind_max: 0 }
    }

    /// Takes a look, and tells it now and then.
    fn saw(&mut self, look: Look) {
        self.behind_max = self.behind_max.max(look.behind);
        if self.begun.elapsed() < self.next {
            return;
        }
        self.next += TOLD_INTERVAL;
        let Look { behind, waiting, held, openings, is_open } = look;
        let state = if is_open { "open" } else { "closed" };
        println!(
            "{:>7} s  behind on the log {behind:>5}  waiting {waiting:>6}  held so far {held:>6}  circuit {state}, \
             opened {openings} times",
            self.seconds()
        );
    }

    fn seconds(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }
}

fn id_of(value: &[u8]) -> Uuid {
    Uuid::from_slice(&value[EVENT_ID]).unwrap()
}

/// The sum of a metric's samples.
fn sum(text: &str, name: &str) -> u64 {
    let samples =
        text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Seconds since 1970, as the receiver writes them down.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}
