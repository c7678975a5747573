//! `fleetlog run` with webhooks: real brokers, a real endpoint, and the binary that is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fleetlog_event::robot::DoorState;
use fleetlog_kafka::Offsets;
use fleetlog_producer::{Author, EventProducer};
use fleetlog_testkit::Running;
use serde_json::Value;

use fleetlog_tests::{Endpoint, LIMIT, World, address_of, get, until};

const GROUP: &str = "fleetlog-webhook-w";
/// Partitions of the topics that a webhook reads, and that its events wait on.
const PARTITIONS: usize = 6;

/// A fleet with a webhook, whose topics are there.
struct Rig {
    world: World,
    endpoint: Endpoint,
    producer: EventProducer,
}

impl Rig {
    async fn new(label: &str, settings: &[(&str, &str)]) -> Self {
        let mut world = World::bare(label).await;
        let endpoint = Endpoint::start().await;
        let fixed = [("URL", endpoint.url.as_str()), ("ALLOW_PRIVATE", "true"), ("START_AT", "begin")];
        let unsigned = [("ALLOW_UNSIGNED", "true")];
        for (name, value) in fixed.iter().chain(&unsigned).chain(settings) {
            world.fleetlog = world.fleetlog.env(&format!("FLEETLOG_WEBHOOKS__W__{name}"), value);
        }
        world.ok(&["topics", "apply"]).await;
        let producer = EventProducer::connect(&world.kafka()).unwrap();
        Self { world, endpoint, producer }
    }

    fn spawn(&self) -> Running {
        self.world.fleetlog.spawn(&["run", "--handlers", "webhook-w"]).unwrap()
    }

    /// So many events, of 40 units in turn; their ids in that order.
    async fn send(&self, events: usize) -> Vec<String> {
        let author = Author::new("504", "door-service", "1.4.0");
        let mut ids = Vec::new();
        for n in 0..events {
            let event = author.unit(format!("lift-{}", n % 40)).door_changed("front", DoorState::Open);
            ids.push(event.meta.event_id.0.to_string());
            self.producer.send(event).await.unwrap();
        }
        assert_eq!(self.producer.flush(LIMIT).await.undelivered.len(), 0);
        ids
    }

    async fn until_all_told(&self, ids: &[String]) {
        until("every event is told", async || {
            let times = self.endpoint.times();
            ids.iter().all(|id| times.contains_key(id))
        })
        .await;
    }

    /// Records of topics that the group has not committed past.
    async fn lag(&self, stems: &[&str]) -> i64 {
        let kafka = self.world.kafka();
        let offsets = Offsets::new(&kafka).unwrap();
        let names: Vec<String> = stems.iter().map(|stem| kafka.topic(stem)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let committed = offsets.committed(&kafka.topic(GROUP), &names).await.unwrap();
        let ranges = offsets.ranges(&names).await.unwrap();
        ranges.iter().map(|(at, range)| range.end - committed.get(at).unwrap_or(&range.low)).sum()
    }

    /// What `status` says of the handler; of its first topic.
    async fn status(&self) -> Value {
        let rows = self.world.json(&["status"]).await;
        let row = rows.as_array().unwrap().iter().find(|row| row["handler"] == "webhook-w");
        row.unwrap_or_else(|| panic!("{rows:#}")).clone()
    }

    /// State and detail of each change of a circuit that topic `ops` tells of.
    async fn circuit_changes(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let events = self.world.ok(&["events", "--topic", "ops"]).await;
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let changes = events.filter(|event| event["type"] == "fleetlog.ops.CircuitChanged");
        changes.map(|change| (text(&change["event"]["state"]), text(&change["event"]["detail"]))).collect()
    }

    async fn until_drained(&self) {
        let waiting = ["retry-100ms", "retry-300ms", "held"].map(|name| format!("{GROUP}-{name}"));
        let mut stems: Vec<&str> = waiting.iter().map(String::as_str).collect();
        stems.push("robot");
        until("nothing waits any more", async || self.lag(&stems).await == 0).await;
    }

    async fn end(&self, running: Running) {
        running.signal("TERM").unwrap();
        let ended = running.wait(LIMIT).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
}

/// Tiers that a test need not wait for.
const TIERS: (&str, &str) = ("RETRY_DELAYS_MS", "100,300");

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_told_once_signed_and_committed() {
    let secret = ("SECRET", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    let rig = Rig::new("hook-once", &[TIERS, secret, ("SITES", "504")]).await;
    let ids = rig.send(500).await;
    let running = rig.spawn();
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    assert!(rig.endpoint.times().values().all(|times| *times == 1));
    for asked in rig.endpoint.asked() {
        assert_eq!(asked.body["id"], asked.id);
        assert_eq!(asked.body["type"], "fleetlog.robot.DoorChanged");
        assert!(asked.headers["webhook-signature"].starts_with("v1,"), "{:?}", asked.headers);
    }
    // Of one unit in the order of the log.
    let units = |n: usize| {
        rig.endpoint
            .asked()
            .into_iter()
            .filter(|asked| ids[n..].iter().step_by(40).any(|id| *id == asked.id))
            .map(|asked| asked.id)
            .collect::<Vec<_>>()
    };
    for n in 0..40 {
        let sent: Vec<String> = ids[n..].iter().step_by(40).cloned().collect();
        assert_eq!(units(n), sent, "unit {n}");
    }
    rig.end(running).await;
}

/// Everything is refused: that is no handful of poison. Few dead letters are made of it, and the rest waits where it is, over
/// restarts, until somebody says that it may go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_everything_halts_its_handler_until_it_is_resumed() {
    const IN_A_ROW_MAX: usize = 20;
    let mut rig = Rig::new("hook-flood", &[TIERS]).await;
    rig.world.fleetlog =
        rig.world.fleetlog.env("FLEETLOG_RUN__SET_ASIDE_IN_A_ROW_MAX", &IN_A_ROW_MAX.to_string());
    rig.world.ok(&["migrate"]).await;
    rig.endpoint.answers(|_, _| (401, Duration::ZERO));
    let ids = rig.send(400).await;
    let mut running = rig.spawn();
    let address = address_of(&mut running).await;
    until("halted", async || rig.status().await["halt"].is_object()).await;
    let halt = rig.status().await["halt"].clone();
    assert_eq!(halt["cause"], "set_asides_in_a_row", "{halt:#}");
    let detail = halt["detail"].as_str().unwrap();
    assert!(detail.contains("(refused_by_endpoint") && detail.contains("secret"), "{detail}");
    let shown = rig.world.ok(&["status"]).await;
    assert!(
        shown.contains("webhook-w is halted since") && shown.contains("progress resume webhook-w"),
        "{shown}"
    );
    let halted = "fleetlog_handler_halted{cause=\"set_asides_in_a_row\",handler=\"webhook-w\"} 1";
    until("the metric says so", async || get(&address, "/metrics").await.1.contains(halted)).await;
    rig.end(running).await;

    // Begun anew it knows, and calls nobody.
    let asked = rig.endpoint.asked().len();
    let mut running = rig.spawn();
    running.line_with("halted: ", LIMIT).await.unwrap();
    rig.world.fails(2, &["progress", "resume", "webhook-x", "--why", "no such handler"]).await;
    assert_eq!(rig.endpoint.asked().len(), asked);
    let letters = rig.world.records(&rig.world.kafka().topic("robot-dlq")).await.len();
    assert_eq!(letters, IN_A_ROW_MAX);

    rig.endpoint.answers(|_, _| (204, Duration::ZERO));
    let resume = ["progress", "resume", "webhook-w", "--why", "the secret is the new one"];
    rig.world.ok(&resume).await;
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    assert!(rig.status().await["halt"].is_null());
    let letters = rig.world.records(&rig.world.kafka().topic("robot-dlq")).await.len();
    assert_eq!(letters, IN_A_ROW_MAX, "what was judged a flood is no dead letter");
    rig.end(running).await;
}

/// Topic `ops` says from when to when an endpoint was left alone, also where the process is killed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_circuit_is_on_topic_ops_and_in_status() {
    let rig = Rig::new("hook-circuit", &[TIERS, ("CIRCUIT_OPEN_MS", "500")]).await;
    rig.world.ok(&["migrate"]).await;
    rig.endpoint.answers(|_, _| (503, Duration::ZERO));
    let ids = rig.send(50).await;
    let mut running = rig.spawn();
    until("open in status", async || rig.status().await["open_circuits"][0].is_object()).await;
    let open = rig.status().await["open_circuits"][0].clone();
    assert!(open["detail"].as_str().unwrap().contains("503"), "{open:#}");
    assert!(rig.world.ok(&["status"]).await.contains("webhook-w: its circuit is open in "));
    running.kill().await.unwrap();

    let running = rig.spawn();
    until("told that it begins closed, and opens", async || rig.circuit_changes().await.len() >= 3).await;
    rig.endpoint.answers(|_, _| (204, Duration::ZERO));
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    until("closed in status", async || rig.status().await["open_circuits"] == serde_json::json!([])).await;
    rig.end(running).await;
    let changes = rig.circuit_changes().await;
    let states: Vec<&str> = changes.iter().map(|(state, _)| &**state).collect();
    assert_eq!(states, ["open", "closed", "open", "closed"], "{changes:?}");
    assert!(changes[1].1.contains("begun anew") && changes[3].1.contains("trials"), "{changes:?}");
}

/// Down for a while: it is left alone, the source is read on, and nothing is used up by it.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_is_left_alone_and_told_of_everything_afterwards() {
    let rig = Rig::new("hook-down", &[TIERS, ("CIRCUIT_OPEN_MS", "2000"), ("IN_FLIGHT_MAX", "8")]).await;
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    rig.endpoint.answers(move |_, _| (if down.load(Ordering::SeqCst) { 503 } else { 204 }, Duration::ZERO));
    let mut running = rig.spawn();
    let address = address_of(&mut running).await;
    let ids = rig.send(400).await;
    running.line_with("the circuit is open", LIMIT).await.unwrap();
    until("the source is read on", async || rig.lag(&["robot"]).await == 0).await;
    let held = rig.lag(&[&format!("{GROUP}-held")]).await;
    assert!(held > 300, "{held} are held");
    let (_, metrics) = get(&address, "/metrics").await;
    assert!(metrics.contains("fleetlog_handler_circuit_open{handler=\"webhook-w\"} 1"), "{metrics}");
    // What was in flight when it opened, and some trials.
    let asked = rig.endpoint.asked().len();
    assert!(asked < 8 * PARTITIONS + 20, "{asked} calls of an endpoint that is down");

    is_down.store(false, Ordering::SeqCst);
    rig.until_all_told(&ids).await;
    running.line_with("the circuit is closed", LIMIT).await.unwrap();
    rig.until_drained().await;
    assert_eq!(rig.world.records(&rig.world.kafka().topic("robot-dlq")).await.len(), 0);
    rig.end(running).await;
}

/// What a handler could not do goes back to it alone, which is told so; what fails once more is another letter.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_goes_to_the_handler_alone_and_says_so() {
    let rig = Rig::new("hook-redrive", &[TIERS]).await;
    let ids = rig.send(30).await;
    let bad: BTreeSet<String> = [&ids[3], &ids[4]].into_iter().cloned().collect();
    let (refused, still) = (bad.clone(), ids[4].clone());
    rig.endpoint
        .answers(move |asked, _| (if refused.contains(&asked.id) { 400 } else { 204 }, Duration::ZERO));
    let running = rig.spawn();
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    let before = rig.endpoint.asked().len();

    rig.endpoint.answers(move |asked, _| (if asked.id == still { 400 } else { 204 }, Duration::ZERO));
    let redrive = ["dlq", "redrive", "--reason", "refused_by_endpoint", "--all"];
    let tried = rig.world.ok(&redrive).await;
    assert!(tried.contains("to its handler"), "{tried}");
    let execute = ["--execute", "--yes", "--why", "the endpoint is mended"];
    rig.world.ok(&[&redrive[..], &execute].concat()).await;
    until("both are told once more", async || rig.endpoint.asked().len() >= before + 2).await;
    rig.until_drained().await;
    assert_eq!(rig.endpoint.asked().len(), before + 2, "{:#?}", &rig.endpoint.asked()[before..]);
    for asked in &rig.endpoint.asked()[before..] {
        assert!(bad.contains(&asked.id));
        assert_eq!((&*asked.headers["fleetlog-redrive"], &*asked.headers["fleetlog-attempt"]), ("true", "1"));
    }
    let open = rig.world.json(&["dlq", "list"]).await;
    assert_eq!(open.as_array().unwrap().len(), 1, "the one that failed once more: {open:#}");
    let all = rig.world.json(&["dlq", "stats"]).await;
    assert_eq!(all["states"], serde_json::json!({ "open": 1, "redriven": 1 }), "{all:#}");
    let letters = rig.world.records(&rig.world.kafka().topic("robot-dlq")).await;
    let replays: Vec<_> = letters
        .iter()
        .filter_map(|letter| {
            let (_, value) = letter.headers.iter().find(|(name, _)| *name == "fleetlog-dlq-replay-count")?;
            value.as_deref()
        })
        .collect();
    assert_eq!(replays.iter().filter(|count| **count == b"1").count(), 1, "{replays:?}");
    rig.end(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gives_up_or_is_refused_is_a_dead_letter_with_its_calls_and_none_is_early() {
    let rig = Rig::new("hook-dead", &[TIERS]).await;
    let ids = rig.send(60).await;
    let (fails, refused, once) = (ids[7].clone(), ids[8].clone(), ids[9].clone());
    let (never, not, first) = (fails.clone(), refused.clone(), once.clone());
    rig.endpoint.answers(move |asked, before| match &asked.id {
        id if *id == never => (500, Duration::ZERO),
        id if *id == not => (422, Duration::ZERO),
        id if *id == first && before == 0 => (429, Duration::ZERO),
        _ => (200, Duration::ZERO),
    });
    let running = rig.spawn();
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    let letters = rig.world.records(&rig.world.kafka().topic("robot-dlq")).await;
    let text = |n: usize, name: &str| {
        let value =
            letters[n].headers.iter().rfind(|(known, _)| *known == name).and_then(|(_, value)| value.clone());
        String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
    };
    let told: BTreeSet<[String; 3]> = (0..letters.len())
        .map(|n| ["fleetlog-dlq-reason", "fleetlog-dlq-attempts", "retry-count"].map(|name| text(n, name)))
        .collect();
    let expected = [["gave_up", "3", "2"], ["refused_by_endpoint", "1", "0"]];
    assert_eq!(told, expected.map(|row| row.map(str::to_owned)).into());
    let gave_up = (0..2).find(|n| text(*n, "fleetlog-dlq-reason") == "gave_up").unwrap();
    let time = |name: &str| text(gave_up, name).parse::<i64>().unwrap();
    assert!(time("fleetlog-dlq-last-failure") - time("fleetlog-dlq-first-failure") >= 400);
    assert!(
        letters.iter().all(|letter| letter
            .headers
            .iter()
            .all(|(name, _)| !name.as_ref().starts_with(b"fleetlog-retry-")))
    );

    let calls = |id: &str| {
        rig.endpoint
            .asked()
            .into_iter()
            .filter(|asked| asked.id == id)
            .map(|asked| asked.at)
            .collect::<Vec<Instant>>()
    };
    let of = calls(&fails);
    assert_eq!((of.len(), calls(&refused).len(), calls(&once).len()), (3, 1, 2));
    assert!(of[1] - of[0] >= Duration::from_millis(100) && of[2] - of[1] >= Duration::from_millis(300));
    let listed = rig.world.json(&["dlq", "list"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed:#}");
    rig.end(running).await;
}

/// Killed again and again: each event is told, and a kill repeats no more than may be in flight on each partition.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_midst_nothing_is_lost_and_little_is_told_twice() {
    const IN_FLIGHT_MAX: usize = 8;
    const KILLS: usize = 4;
    let rig = Rig::new("hook-kill", &[TIERS, ("IN_FLIGHT_MAX", "8")]).await;
    // Each call takes its time, and every tenth event fails at first.
    rig.endpoint.answers(|asked, before| {
        let fails = before == 0 && asked.id.ends_with(['0', '7']);
        (if fails { 503 } else { 204 }, Duration::from_millis(20))
    });
    let ids = rig.send(2_000).await;
    let mut running = rig.spawn();
    for kill in 1..=KILLS {
        until("a part is told", async || rig.endpoint.times().len() >= kill * 300).await;
        running.kill().await.unwrap();
        running = rig.spawn();
    }
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    let times = rig.endpoint.times();
    let failed = times.keys().filter(|id| id.ends_with(['0', '7'])).count();
    let repeats: usize = times.values().sum::<usize>() - times.len() - failed;
    // Of the source, and of what waits.
    let lanes = PARTITIONS * 4;
    println!(
        "{} events, {failed} of them failed once, {repeats} calls were repeated by {KILLS} kills",
        ids.len()
    );
    assert!(repeats <= KILLS * lanes * IN_FLIGHT_MAX, "{repeats} repeats");
    assert_eq!(rig.world.records(&rig.world.kafka().topic("robot-dlq")).await.len(), 0);
    rig.end(running).await;
}

/// A stop with calls in flight lets them end, and commits them: nothing is told twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_calls_end_and_repeats_none() {
    let rig = Rig::new("hook-stop", &[TIERS]).await;
    rig.endpoint.answers(|_, _| (204, Duration::from_millis(300)));
    let ids = rig.send(400).await;
    let running = rig.spawn();
    until("calls are in flight", async || !rig.endpoint.asked().is_empty()).await;
    running.signal("TERM").unwrap();
    let ended = running.wait(LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let told = rig.endpoint.times();
    assert!(told.len() < ids.len(), "in the midst of it");
    let running = rig.spawn();
    rig.until_all_told(&ids).await;
    rig.until_drained().await;
    let times: BTreeMap<String, usize> = rig.endpoint.times();
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    rig.end(running).await;
}

/// Two processes share the partitions; one leaves, and the other has all of them.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_work_and_one_takes_over() {
    let rig = Rig::new("hook-two", &[TIERS]).await;
    let (first, second) = (rig.spawn(), rig.spawn());
    let before = rig.send(300).await;
    rig.until_all_told(&before).await;
    first.signal("TERM").unwrap();
    let ended = first.wait(LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let after = rig.send(300).await;
    rig.until_all_told(&after).await;
    rig.until_drained().await;
    let repeats = rig.endpoint.asked().len() - 600;
    assert_eq!(repeats, 0, "{}{}", ended.stdout, ended.stderr);
    rig.end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topics_it_says_which_are_missing_and_what_makes_them() {
    let world = World::new("hook-bare").await;
    let fleetlog = (world.fleetlog.clone())
        .env("FLEETLOG_WEBHOOKS__W__URL", "https://example.com/")
        .env("FLEETLOG_WEBHOOKS__W__ALLOW_UNSIGNED", "true");
    let ended = fleetlog.run(&["run", "--handlers", "webhook-w"], LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let missing = format!("{}{GROUP}-held", world.prefix);
    assert!(ended.stderr.contains(&missing) && ended.stderr.contains("topics plan"), "{}", ended.stderr);
    let ended = fleetlog.run(&["run", "--handlers", "webhook-x"], LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("webhook-w"), "{}", ended.stderr);
}
