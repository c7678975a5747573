//! `fleetlog run` with the watch for tasks that stand still, on real servers: whose time is judged by the log itself.

use std::{collections::BTreeMap, time::Duration};

use fleetlog_event::{Event, task::StepStatus};
use fleetlog_producer::{
    Author, Delivery, EventProducer,
    author::{About, Task},
};
use fleetlog_testkit::Running;
use fleetlog_tests::{LIMIT, World, until};
use serde_json::Value;

const GROUP: &str = "fleetlog-task-watch";
/// Of tasks that are to stand still.
const SWIFT_MS: i64 = 3_000;
/// Of tasks that move, or to which something happens first: longer than a busy machine holds up a broker.
const STEADY_MS: i64 = 15_000;
/// How often those are moved.
const BEAT: Duration = Duration::from_millis(300);

/// A fleet with a watch, whose topics are there.
struct Rig {
    world: World,
    producer: EventProducer,
    author: Author,
}

/// An event on topic `task`, as `fleetlog events` shows it.
#[derive(Clone, Debug)]
struct Seen {
    event_type: String,
    recorded_at: i64,
    is_of_watch: bool,
    event: Value,
}

impl Seen {
    fn occurred_at(&self) -> i64 {
        self.event["meta"]["occurred_at"].as_i64().unwrap()
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Rig {
    async fn new(label: &str, settings: &[(&str, &str)]) -> Self {
        let mut world = World::bare(label).await;
        let timeouts = format!("swift={SWIFT_MS},steady={STEADY_MS}");
        let fixed = [("TIMEOUTS_MS", timeouts.as_str()), ("RETRY_DELAYS_MS", "100,300,1000")];
        for (name, value) in fixed.iter().chain(settings) {
            world.fleetlog = world.fleetlog.env(&format!("FLEETLOG_TASK_WATCH__{name}"), value);
        }
        world.ok(&["topics", "apply"]).await;
        // `status` asks all stores.
        world.ok(&["migrate"]).await;
        let producer = EventProducer::connect(&world.kafka()).unwrap();
        Self { world, producer, author: Author::new("504", "dispatch", "2.1.0") }
    }

    fn spawn(&self) -> Running {
        let run = ["run", "--projections", "task-state", "--handlers", GROUP.trim_start_matches("fleetlog-")];
        self.world.fleetlog.spawn(&run).unwrap()
    }

    async fn say(&self, event: impl Event) {
        self.sent(event).await.await.unwrap();
    }

    /// On its way, and not waited for.
    async fn sent(&self, event: impl Event) -> Delivery {
        self.producer.send(event).await.unwrap()
    }

    fn task(&self, id: &str) -> About<'_, Task> {
        self.author.task(id).of_unit("7")
    }

    /// A task that is under way, told in one piece: it does not stand still in between, however slow the machine is.
    async fn started(&self, id: &str, task_type: &str) {
        self.started_and(id, task_type, async || Vec::new()).await;
    }

    /// The same, and what else is told in the same piece.
    async fn started_and(&self, id: &str, task_type: &str, more: impl AsyncFnOnce() -> Vec<Delivery>) {
        let task = self.task(id);
        let mut sent = vec![
            self.sent(task.created(task_type)).await,
            self.sent(task.assigned("7")).await,
            self.sent(task.started()).await,
        ];
        sent.extend(more().await);
        for sent in sent {
            sent.await.unwrap();
        }
    }

    /// Everything on topic `task`, by task, in the order of the log.
    async fn seen(&self) -> BTreeMap<String, Vec<Seen>> {
        let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        for line in self.world.ok(&["events", "--topic", "task"]).await.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let source = line["event"]["meta"]["source"].as_str().unwrap();
            let recorded_at: jiff::Timestamp = line["recorded_at"].as_str().unwrap().parse().unwrap();
            seen.entry(line["key"].as_str().unwrap().to_owned()).or_default().push(Seen {
                event_type: line["type"].as_str().unwrap().trim_start_matches("fleetlog.task.").to_owned(),
                recorded_at: recorded_at.as_millisecond(),
                is_of_watch: source.starts_with("fleetlog-task-watch/"),
                event: line["event"].clone(),
            });
        }
        seen
    }

    /// What the watch said of a task.
    async fn said(&self, id: &str) -> Vec<Seen> {
        let mut seen = self.seen().await.remove(id).unwrap_or_default();
        seen.retain(|event| event.is_of_watch);
        seen
    }

    async fn until_said(&self, id: &str, times: usize) {
        until(&format!("the watch said something of {id}"), async || self.said(id).await.len() >= times)
            .await;
    }

    /// How often a task came to wait in a tier: it was looked at as often.
    async fn looks(&self, id: &str) -> usize {
        let mut looks = 0;
        for tier in ["100ms", "300ms", "1s"] {
            let records =
                self.world.records(&self.world.kafka().topic(&format!("{GROUP}-retry-{tier}"))).await;
            looks += records.iter().filter(|record| record.key.as_deref() == Some(id.as_bytes())).count();
        }
        looks
    }

    /// Waits until a task was looked at some times more.
    async fn until_looked_at(&self, id: &str) {
        let before = self.looks(id).await;
        until(&format!("{id} is looked at"), async || self.looks(id).await >= before + 4).await;
    }

    async fn end(self, running: Running) {
        running.signal("TERM").unwrap();
        let ended = running.wait(LIMIT).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("did not close in time"), "{}", ended.stderr);
    }
}

/// What is said is of a task that nothing had moved for its whole time, by the log's own times, and says so.
fn assert_due(events: &[Seen], timeout_ms: i64) {
    for (n, said) in events.iter().enumerate().filter(|(_, event)| event.is_of_watch) {
        let moved = events[..n].iter().rfind(|event| !event.is_of_watch).unwrap();
        assert!(said.recorded_at >= moved.recorded_at + timeout_ms, "too early: {said:?} after {moved:?}");
        assert_eq!(said.occurred_at(), moved.recorded_at + timeout_ms, "{said:?}");
        assert_eq!(said.event["meta"]["causation_id"], events[0].event["meta"]["event_id"], "{said:?}");
    }
}

fn types(events: &[Seen]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_still_fails_once_and_who_moves_or_is_paused_is_left_alone() {
    let rig = Rig::new("watch-fail", &[]).await;
    let running = rig.spawn();
    for (id, task_type) in [("moves", "steady"), ("stands", "swift"), ("other", "parking")] {
        rig.started(id, task_type).await;
    }
    let paused = async || vec![rig.sent(rig.task("paused").paused()).await];
    rig.started_and("paused", "swift", paused).await;
    let begun = rig.seen().await["moves"].last().unwrap().recorded_at;
    // For longer than it may stand still.
    let mut beat = tokio::time::interval(BEAT);
    let is_over =
        async || rig.seen().await["moves"].last().unwrap().recorded_at > begun + STEADY_MS + SWIFT_MS;
    until("it moved for long", async || {
        for _ in 0..10 {
            beat.tick().await;
            rig.say(rig.task("moves").step_changed("drive", StepStatus::Running)).await;
        }
        is_over().await
    })
    .await;
    rig.until_said("stands", 1).await;
    rig.until_looked_at("paused").await;
    rig.say(rig.task("moves").completed()).await;

    let seen = rig.seen().await;
    assert_eq!(types(&seen["stands"]), ["Created", "Assigned", "Started", "Failed"]);
    let failed = &seen["stands"][3];
    assert_eq!(failed.event["reason"], "timeout");
    assert_eq!(failed.event["meta"]["unit_uid"], "7");
    assert_due(&seen["stands"], SWIFT_MS);
    for id in ["moves", "paused", "other"] {
        assert!(seen[id].iter().all(|event| !event.is_of_watch), "{id}: {:?}", seen[id]);
    }
    let shown = rig.world.json(&["task", "show", "stands"]).await;
    assert!(shown.to_string().contains("failed"), "{shown:#}");
    // Paused no more, it has its whole time.
    rig.say(rig.task("paused").resumed()).await;
    rig.until_said("paused", 1).await;
    let seen = rig.seen().await;
    assert_eq!(types(&seen["paused"])[3..], ["Paused", "Resumed", "Failed"]);
    assert_due(&seen["paused"], SWIFT_MS);
    assert_eq!(rig.world.records(&rig.world.kafka().topic("task-dlq")).await.len(), 0);

    let status = rig.world.json(&["status"]).await;
    let topics: Vec<&str> = (status.as_array().unwrap().iter())
        .filter(|row| row["handler"] == "task-watch")
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(topics, ["source", "tier", "tier", "tier", "held"], "{status:#}");
    rig.end(running).await;
}

/// Killed while they wait, and while they are due: each deadline is that of before, and each task fails once.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_survive_kills() {
    const TASKS: usize = 30;
    let rig = Rig::new("watch-kill", &[]).await;
    let mut running = rig.spawn();
    rig.started("first", "steady").await;
    until("it waits", async || rig.looks("first").await > 0).await;
    running.kill().await.unwrap();
    let due = rig.seen().await["first"].last().unwrap().recorded_at + STEADY_MS;
    until("its time is over", async || now_ms() > due).await;
    assert_eq!(rig.said("first").await.len(), 0, "nobody runs");
    running = rig.spawn();
    rig.until_said("first", 1).await;
    let seen = rig.seen().await;
    assert_due(&seen["first"], STEADY_MS);
    assert_eq!(seen["first"][3].occurred_at(), due, "its time did not begin anew");

    let ids: Vec<String> = (0..TASKS).map(|n| format!("task-{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        rig.started(id, "swift").await;
        if n % 10 == 9 {
            running.kill().await.unwrap();
            running = rig.spawn();
        }
    }
    // While some are said and others are about to be.
    until("some have failed", async || {
        rig.seen().await.values().flatten().filter(|event| event.is_of_watch).count() > TASKS / 3
    })
    .await;
    running.kill().await.unwrap();
    running = rig.spawn();
    let all_said = async || {
        let seen = rig.seen().await;
        ids.iter().all(|id| seen[id].iter().any(|event| event.is_of_watch))
    };
    until("each has failed", all_said).await;
    let seen = rig.seen().await;
    let first = "first".to_owned();
    for (id, timeout_ms) in ids.iter().map(|id| (id, SWIFT_MS)).chain([(&first, STEADY_MS)]) {
        assert_due(&seen[id], timeout_ms);
        let said: Vec<&Seen> = seen[id].iter().filter(|event| event.is_of_watch).collect();
        // What was on its way when the process was killed may lie there twice; it counts once.
        assert!(
            said.iter().all(|event| event.event["meta"]["event_id"] == said[0].event["meta"]["event_id"])
        );
        assert_eq!(said[0].event_type, "Failed");
    }
    rig.end(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_told_once_a_standstill_also_over_a_kill_and_the_watch_goes_on() {
    let rig = Rig::new("watch-alert", &[("POLICY", "alert")]).await;
    let mut running = rig.spawn();
    rig.started("stands", "swift").await;
    rig.until_said("stands", 1).await;
    rig.until_looked_at("stands").await;
    running.kill().await.unwrap();
    running = rig.spawn();
    rig.until_looked_at("stands").await;
    assert_eq!(types(&rig.said("stands").await), ["Stalled"]);
    let shown = rig.world.json(&["task", "show", "stands"]).await;
    assert!(shown.to_string().contains("stalled_at") && shown.to_string().contains("started"), "{shown:#}");

    rig.say(rig.task("stands").step_changed("drive", StepStatus::Running)).await;
    rig.until_said("stands", 2).await;
    rig.until_looked_at("stands").await;
    let seen = rig.seen().await;
    assert_eq!(types(&seen["stands"])[3..], ["Stalled", "StepChanged", "Stalled"]);
    assert_due(&seen["stands"], SWIFT_MS);
    let said = rig.said("stands").await;
    assert_eq!(said[1].event["status"], "started");
    assert_eq!(said[1].event["timeout_ms"], SWIFT_MS);
    assert_eq!(said[1].event["since"], serde_json::json!(seen["stands"][4].recorded_at));
    assert_ne!(said[0].event["meta"]["event_id"], said[1].event["meta"]["event_id"]);
    rig.say(rig.task("stands").completed()).await;
    let waits = async || {
        let shown = rig.world.json(&["status"]).await;
        let rows = shown.as_array().unwrap().iter().filter(|row| row["handler"] == "task-watch");
        rows.map(|row| row["lag_offsets"].as_i64().unwrap()).sum::<i64>()
    };
    until("it is watched no more", async || waits().await == 0).await;
    rig.end(running).await;
}

/// Nobody is called silent because hot state lags: it is not folded at all for longer than the task may stand still.
#[tokio::test(flavor = "multi_thread")]
async fn hot_state_that_lags_makes_nobody_silent() {
    let rig = Rig::new("watch-lag", &[]).await;
    let projector = rig.world.fleetlog.spawn(&["run", "--projections", "task-state"]).unwrap();
    let mut watch = rig.world.fleetlog.spawn(&["run", "--handlers", "task-watch"]).unwrap();
    rig.started("moves", "steady").await;
    until("it is folded", async || {
        let shown = rig.world.fleetlog.run(&["task", "show", "moves"], LIMIT).await.unwrap();
        shown.stdout.contains("started")
    })
    .await;
    projector.signal("STOP").unwrap();
    let since = rig.seen().await["moves"].last().unwrap().recorded_at;
    rig.say(rig.task("moves").step_changed("drive", StepStatus::Running)).await;
    // By what hot state shows it is due now; by the log it is not, or was judged too early.
    let told = watch.line_with("no task is judged meanwhile", LIMIT).await.unwrap();
    assert!(told.contains("hot state is behind the log"), "{told}");
    assert!(now_ms() >= since + STEADY_MS);
    rig.until_looked_at("moves").await;
    assert_eq!(rig.said("moves").await.len(), 0);
    rig.say(rig.task("moves").completed()).await;
    projector.signal("CONT").unwrap();
    watch.line_with("tasks are judged again", LIMIT).await.unwrap();
    assert_eq!(types(&rig.seen().await["moves"])[3..], ["StepChanged", "Completed"]);
    projector.signal("TERM").unwrap();
    assert_eq!(projector.wait(LIMIT).await.unwrap().code(), Some(0));
    rig.end(watch).await;
}
