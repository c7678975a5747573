//! A release that rejects what it should take, and the way back. `docs/stories/dead-letters.md` tells it to people.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::robot::DoorState;
use fleetlog_kafka::OwnedRecord;
use fleetlog_producer::{Author, Delivered, EventProducer, ProducerMetrics, ProducerSettings, RawProducer};
use fleetlog_testkit::{Running, redis_connection, workspace_root};
use fleetlog_tests::{LIMIT, World, until};
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::{
    poison::{KINDS, poison},
    teller::Teller,
};

/// Poison by topic.
const POISON: [(&str, u64); 3] = [("telemetry", 400), ("robot", 300), ("task", 300)];
const GATES: u64 = 50;
const GATES_SITE: &str = "509";
const DOOR_EVENTS: u64 = 500;
/// Who reads what.
const READERS: [(&str, &str); 7] = [
    ("unit-consensus", "telemetry"),
    ("telemetry-history", "telemetry"),
    ("unit-status", "robot"),
    ("event-history", "robot"),
    ("task-state", "task"),
    ("task-ledger", "task"),
    ("event-history", "task"),
];
/// Who has the bug.
const WRONG: [&str; 2] = ["unit-status", "event-history"];
const WHY: &str = "release 2.4.1 takes door events again";
const IN_VAIN: &str = "perhaps it helps";

/// Where a record lies: topic (stem), partition, offset.
type Origin = (String, i32, i64);
/// What is to be set aside: by projection and origin, why.
type Asides = BTreeMap<(String, Origin), String>;

struct Story {
    world: World,
    teller: Teller,
    events: EventProducer,
    raw: RawProducer,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a story: make story NAME=dead-letters"]
async fn story() {
    let mut story = Story::begin().await;
    let (asides, poisons) = story.a_fleet_and_its_poison().await;
    let wrong = story.the_wrong_release().await;
    story.exactly_these_are_set_aside(&asides).await;
    let fixed = story.the_fix(wrong).await;
    let load = story.live_load().await;
    story.dry_run().await;
    story.redrive().await;
    story.poison_is_caught_by_the_canary().await;
    story.quiet(load).await;
    story.everything_is_in_its_place(poisons).await;
    story.the_trail().await;
    fixed.signal("TERM").unwrap();
    assert_eq!(fixed.wait(LIMIT).await.unwrap().code(), Some(0));
    story.teller.end();
}

impl Story {
    async fn begin() -> Self {
        let world = World::bare("story").await;
        let mut teller = Teller::new(world.fleetlog.clone());
        teller.chapter("Topics and tables");
        teller.run(&["topics", "apply"]).await;
        teller.run(&["migrate"]).await;
        let metrics = ProducerMetrics::unregistered().unwrap();
        Self {
            events: EventProducer::connect(&world.kafka()).unwrap(),
            raw: RawProducer::connect(&world.kafka(), &ProducerSettings::default(), metrics).unwrap(),
            world,
            teller,
        }
    }

    /// 100,000 records, among them 500 events of gates' doors and 1,000 that nobody can take. What is to be set aside, and how
    /// many of these are poison.
    async fn a_fleet_and_its_poison(&mut self) -> (Asides, usize) {
        self.teller
            .chapter("100,000 records: a fleet, 500 events of gates' doors, 1,000 that nobody can take");
        let fleet = ["simulate", "--units", "200", "--rate", "max", "--events"];
        self.teller.run(&[&fleet[..], &["50000", "--seed", "1"]].concat()).await;
        let mut asides = Asides::new();
        let poisoned = self.send_poison().await;
        for (origin, reason) in &poisoned {
            for (projection, _) in READERS.iter().filter(|(_, topic)| *topic == origin.0) {
                asides.insert(((*projection).to_owned(), origin.clone()), (*reason).to_owned());
            }
        }
        let poisons = asides.len();
        for number in 0..DOOR_EVENTS {
            let state = if (number / GATES).is_multiple_of(2) { DoorState::Open } else { DoorState::Closed };
            let at = self.door(number % GATES, state).await;
            for projection in WRONG {
                asides.insert((projection.to_owned(), at.clone()), "out_of_range".to_owned());
            }
        }
        self.teller.run(&[&fleet[..], &["48500", "--seed", "2"]].concat()).await;
        self.teller.holds("100,000 records lie on robot, telemetry and task", self.ends().await, 100_000);
        (asides, poisons)
    }

    async fn send_poison(&self) -> Vec<(Origin, &'static str)> {
        let mut poisoned = Vec::new();
        for (topic, count) in POISON {
            let well = self.log(topic).await;
            let step = well.len() / usize::try_from(count).unwrap();
            let kinds = KINDS.iter().cycle();
            let spoilt: Vec<_> = (0_u64..count).zip(kinds).zip(well.iter().step_by(step)).collect();
            let records = spoilt.iter().map(|((number, (kind, _)), well)| poison(*kind, well, *number));
            let delivered = self.raw.send_all(records).await.all().await.unwrap();
            let reasons = spoilt.iter().map(|((_, (_, reason)), _)| *reason);
            poisoned.extend(delivered.iter().map(|at| self.origin(at)).zip(reasons));
        }
        assert_eq!(poisoned.len() as u64, POISON.iter().map(|(_, count)| count).sum::<u64>());
        poisoned
    }

    async fn door(&self, gate: u64, state: DoorState) -> Origin {
        let event = Author::new(GATES_SITE, "gates", "2.4.0")
            .unit(format!("gate-{gate}"))
            .door_changed("front", state);
        self.origin(&self.events.send(event).await.unwrap().await.unwrap())
    }

    fn origin(&self, at: &Delivered) -> Origin {
        let stem = at.topic.strip_prefix(self.world.prefix.as_str()).unwrap().to_owned();
        (stem, at.partition, at.offset)
    }

    /// A release whose projectors take an event of a gate's door for out of range.
    async fn the_wrong_release(&mut self) -> Running {
        self.teller
            .chapter("Release 2.4.0 runs: unit-status and event-history reject every event of a gate's door");
        let binary = workspace_root().join("target/fault-injection/fleetlog");
        assert!(binary.is_file(), "there is no {}: run scripts/build_fault_injection.sh", binary.display());
        let wrong = self.world.fleetlog.clone().program(binary);
        let wrong =
            wrong.env("FLEETLOG_TEST_REJECTS", &format!("{}:DoorChanged:{GATES_SITE}", WRONG.join(",")));
        let running = wrong.spawn(&["run"]).unwrap();
        self.teller.run(&["status", "--wait", "120"]).await;
        running
    }

    async fn exactly_these_are_set_aside(&mut self, asides: &Asides) {
        self.teller.chapter("Exactly these are set aside, bytes untouched; everything else is there");
        self.no_lag().await;
        self.teller.run(&["dlq", "stats"]).await;
        let letters = self.letters().await;
        let counts = |of: &dyn Fn(&str) -> usize| READERS.map(|(projection, _)| (projection, of(projection)));
        let expected = counts(&|name| asides.keys().filter(|(projection, _)| projection == name).count());
        let found = counts(&|name| letters.keys().filter(|(projection, _)| projection == name).count());
        self.teller.holds("as many dead letters for each group as it had to set aside", found, expected);
        let reasons: Asides =
            letters.iter().map(|(at, letter)| (at.clone(), header(letter, "reason"))).collect();
        self.teller.holds("each of these records, for its reason, and no other", reasons, asides.clone());
        let differing = self.not_byte_for_byte(&letters).await;
        self.teller.holds("key, value and headers of each are those of its record", differing, Vec::new());
        self.teller.say("and what was not set aside is right:");
        self.teller.run(&["verify"]).await;
    }

    /// Letters whose bytes are not those of the record.
    async fn not_byte_for_byte(&self, letters: &BTreeMap<(String, Origin), OwnedRecord>) -> Vec<Origin> {
        let mut differing = Vec::new();
        for (topic, _) in POISON {
            let log: BTreeMap<(i32, i64), OwnedRecord> = self
                .log(topic)
                .await
                .into_iter()
                .map(|record| ((record.partition, record.offset), record))
                .collect();
            for ((_, origin), letter) in letters.iter().filter(|((_, origin), _)| origin.0 == topic) {
                let record = &log[&(origin.1, origin.2)];
                let kept = letter.headers.get(..record.headers.len());
                let same = (&letter.key, &letter.value) == (&record.key, &record.value);
                if !same || kept != Some(&record.headers[..]) {
                    differing.push(origin.clone());
                }
            }
        }
        differing
    }

    async fn the_fix(&mut self, wrong: Running) -> Running {
        self.teller.chapter("The fix is released: 2.4.1 takes over");
        self.teller.say("SIGTERM for the process of 2.4.0; another without the bug is started");
        wrong.signal("TERM").unwrap();
        assert_eq!(wrong.wait(LIMIT).await.unwrap().code(), Some(0));
        let fixed = self.world.fleetlog.spawn(&["run"]).unwrap();
        until("a member in every group", async || {
            let rows = self.world.json(&["status"]).await;
            rows.as_array().unwrap().iter().all(|row| row["members"] == 1)
        })
        .await;
        self.teller.say("every gate opens once more: these events are newer than all that were set aside");
        for gate in 0..GATES {
            self.door(gate, DoorState::Open).await;
        }
        until("the gates' own events", async || self.doors().await.len() as u64 == GATES).await;
        fixed
    }

    async fn live_load(&mut self) -> Running {
        let load = ["simulate", "--units", "200", "--rate", "300", "--events", "100000000", "--seed", "3"];
        self.teller.say("and the fleet goes on meanwhile:");
        println!("$ fleetlog {} &\n", load.join(" "));
        let before = self.ends().await;
        let load = self.world.fleetlog.spawn(&load).unwrap();
        until("the load", async || self.ends().await > before + 300).await;
        load
    }

    async fn dry_run(&mut self) {
        self.teller.chapter("What would come of a redrive: nothing is changed yet");
        let select = ["dlq", "redrive", "--reason", "out_of_range"];
        self.teller.run(&select).await;
        let dry = self.world.json(&select).await;
        let expected = json!(2 * DOOR_EVENTS);
        self.teller.holds(
            "the dry run names all of the gates' events, of both groups",
            dry["letters"].clone(),
            expected,
        );
        let all_taken = dry["tried"]["taken"] == dry["tried"]["letters"] && dry["tried"]["taken"] != json!(0);
        self.teller.holds("all that it tried against today's projectors would be taken", all_taken, true);
        self.teller.say("the same for what is really broken:");
        let dry = self.teller.run(&["dlq", "redrive", "--reason", "undecodable"]).await;
        self.teller.holds("it would be rejected again", dry.contains(": 0 would be taken"), true);
    }

    async fn redrive(&mut self) {
        self.teller.chapter("Redriven under load, 50 of each group first");
        let redrive = [
            &["dlq", "redrive", "--reason", "out_of_range", "--execute", "--yes"][..],
            &["--canary", "50", "--rate", "200", "--why", WHY],
        ]
        .concat();
        let said = self.teller.run(&redrive).await;
        let taken = format!("{} taken, 0 rejected again, 0 parked, 0 as they were", 2 * DOOR_EVENTS);
        self.teller.holds(&taken, said.contains(&taken), true);
        let again = self.teller.run(&redrive).await;
        self.teller.holds("once more there is nothing to do", again.contains("nothing to send back"), true);
    }

    async fn poison_is_caught_by_the_canary(&mut self) {
        self.teller.chapter("Somebody tries the same with what is really broken");
        let redrive = [
            &["dlq", "redrive", "--reason", "undecodable", "--execute", "--yes"][..],
            &["--canary", "10", "--why", IN_VAIN],
        ]
        .concat();
        let said = self.teller.run_to(1, &redrive).await;
        let stopped = said.stderr.contains("only 0 were taken: the others were not sent");
        self.teller.holds("the canary was rejected, the rest was not sent", stopped, true);
    }

    async fn quiet(&mut self, load: Running) {
        self.teller.chapter("The load ends; the proof");
        load.signal("INT").unwrap();
        load.wait(LIMIT).await.unwrap();
        self.teller.run(&["status", "--wait", "120"]).await;
        self.no_lag().await;
        let verified = self.teller.run(&["verify"]).await;
        self.teller.holds("verify finds no difference", verified.contains("verify: 0 differences"), true);
    }

    async fn everything_is_in_its_place(&mut self, poisons: usize) {
        let doors: BTreeSet<String> = self.doors().await.into_values().collect();
        let open = BTreeSet::from([r#"{"front":"open"}"#.to_owned()]);
        self.teller.holds("every gate is open: older events did not overwrite the newest", doors, open);
        let mut postgres = self.world.postgres().await;
        let count = "SELECT count(*) FROM unit_event WHERE event_type LIKE '%DoorChanged' AND site_uid = $1";
        let rows: i64 = sqlx::query_scalar(count).bind(GATES_SITE).fetch_one(&mut postgres).await.unwrap();
        let all = i64::try_from(DOOR_EVENTS + GATES).unwrap();
        self.teller.holds("history has each of the gates' events once", rows, all);
        let stats = self.world.json(&["dlq", "stats", "--state", "any"]).await;
        let expected = json!({ "open": poisons, "redriven": 2 * DOOR_EVENTS });
        self.teller.holds("what is open is what nobody can take", stats["states"].clone(), expected);
    }

    async fn the_trail(&mut self) {
        self.teller.chapter("Who did what, when and why");
        let trail = self.world.ok(&["events", "--topic", "ops"]).await;
        let lines: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        println!("$ fleetlog events --topic ops | jq -c '.event | del(.meta, .letters)'");
        for line in &lines {
            let mut event = line["event"].clone();
            let fields = event.as_object_mut().unwrap();
            fields.remove("meta");
            fields.remove("letters");
            println!("{} {event}", line["type"].as_str().unwrap().trim_start_matches("fleetlog.ops."));
        }
        println!();
        let of = |name: &str, why: &str| -> Vec<&Value> {
            let action =
                lines.iter().find(|line| line["event"]["why"] == why).unwrap()["event"]["action_id"].clone();
            let event = format!("fleetlog.ops.{name}");
            let found =
                lines.iter().filter(|line| line["type"] == event && line["event"]["action_id"] == action);
            found.map(|line| &line["event"]).collect()
        };
        let ends =
            |why: &str| of("RedriveEnded", why).iter().map(|event| event["end"].clone()).collect::<Vec<_>>();
        self.teller.holds(
            "two groups were redriven to the end",
            ends(WHY),
            vec![json!("done"), json!("done")],
        );
        let stopped = ends(IN_VAIN).contains(&json!("canary"));
        self.teller.holds("the other job was stopped by its canary", stopped, true);
        let named: BTreeSet<(String, String)> = of("DeadLettersRedriven", WHY)
            .iter()
            .flat_map(|event| event["letters"].as_array().unwrap().iter().map(move |letter| (event, letter)))
            .filter(|(_, letter)| letter["outcome"] == "taken")
            .map(|(event, letter)| (event["group"].to_string(), letter["origin"].to_string()))
            .collect();
        self.teller.holds("each letter that was taken is named", named.len() as u64, 2 * DOOR_EVENTS);
    }

    async fn no_lag(&mut self) {
        let status = self.world.json(&["status"]).await;
        let behind: Vec<&Value> =
            status.as_array().unwrap().iter().filter(|row| row["lag_events"] != 0).collect();
        self.teller.holds("no projection is behind", behind, Vec::new());
    }

    /// What hot state says of the gates' doors, by gate.
    async fn doors(&self) -> BTreeMap<String, String> {
        let mut redis = redis_connection(&self.world.redis_url).await.unwrap();
        let mut doors = BTreeMap::new();
        for gate in 0..GATES {
            let home = format!("{}unit:s{GATES_SITE}.ugate-{gate}", self.world.prefix);
            let found: Option<String> = redis.hget(&home, "doors").await.unwrap();
            doors.extend(found.map(|found| (home, found)));
        }
        doors
    }

    /// How many offsets the three topics have.
    async fn ends(&self) -> i64 {
        let offsets = fleetlog_kafka::Offsets::new(&self.world.kafka()).unwrap();
        let topics = POISON.map(|(stem, _)| self.world.kafka().topic(stem));
        let ranges = offsets.ranges(&topics.each_ref().map(String::as_str)).await.unwrap();
        ranges.values().map(|range| range.end).sum()
    }

    /// Everything on a topic (stem).
    async fn log(&self, stem: &str) -> Vec<OwnedRecord> {
        self.world.records(&self.world.kafka().topic(stem)).await
    }

    /// Every dead letter by who did not take what; none lies there twice, since nobody was killed.
    async fn letters(&self) -> BTreeMap<(String, Origin), OwnedRecord> {
        let mut letters = BTreeMap::new();
        for (topic, _) in POISON {
            for letter in self.log(&format!("{topic}-dlq")).await {
                let prefix = self.world.prefix.as_str();
                let group = header(&letter, "group");
                let projection =
                    group.strip_prefix(&format!("{prefix}fleetlog-")).unwrap().strip_suffix("-v1").unwrap();
                let stem = header(&letter, "topic").strip_prefix(prefix).unwrap().to_owned();
                let number = |name: &str| header(&letter, name).parse::<i64>().unwrap();
                let origin = (stem, i32::try_from(number("partition")).unwrap(), number("offset"));
                let before = letters.insert((projection.to_owned(), origin), letter);
                assert_eq!(before, None, "a dead letter lies there twice");
            }
        }
        letters
    }
}

fn header(letter: &OwnedRecord, name: &str) -> String {
    let name = format!("fleetlog-dlq-{name}");
    let found = letter.headers.iter().find(|(header, _)| *header == *name.as_str());
    String::from_utf8(found.unwrap().1.as_ref().unwrap().to_vec()).unwrap()
}
