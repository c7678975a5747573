//! The platform's figures on `/metrics` of two processes: their sum is what a count of its own over history says, whatever
//! is killed; and on the way there it never goes back and never counts twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fleetlog_testkit::{FaultProxy, Fleetlog, Running, Way, python, redis_connection};
use serde::Deserialize;
use sqlx::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::import_rig::{file, tool_text};
use fleetlog_tests::{LIMIT, World, address_of, get, until};

/// How long figures stay with a process that is not asked: longer than a busy machine takes for a round of questions.
const HOLD: Duration = Duration::from_secs(15);
/// Bounds of the durations' buckets, in seconds, as the platform names them.
const BUCKETS_S: [u32; 8] = [10, 30, 60, 120, 300, 600, 1800, 3600];
const DURATION: &str = "app_delivery_task_duration_seconds";

/// Name, labels.
type Series = (String, BTreeMap<String, String>);
type Samples = BTreeMap<Series, f64>;

fn series(name: &str, labels: &[(&str, &str)]) -> Series {
    (
        name.to_owned(),
        labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
    )
}

/// Whether it is one of the platform's.
fn is_platforms(name: &str) -> bool {
    name.starts_with("app_delivery_") || name.starts_with("jarvis_iot_")
}

fn only_grows(name: &str) -> bool {
    name.starts_with("app_delivery_")
}

/// What one process said, if it answered.
async fn scrape(address: &str) -> Option<String> {
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        (head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"))
            .then(|| body.to_owned())
    };
    tokio::time::timeout(LIMIT, asked).await.ok()?
}

/// The lines about the platform's metrics: an exposition of its own.
fn platforms_part(text: &str) -> String {
    let lines = text.lines().filter(|line| {
        let line = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        is_platforms(line)
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// All processes asked one after the other.
struct Round {
    took: Duration,
    texts: Vec<String>,
}

/// Asks all processes again and again, as Prometheus does.
#[derive(Clone, Default)]
struct Poll {
    addresses: Arc<Mutex<Vec<String>>>,
    rounds: Arc<Mutex<Vec<Round>>>,
}

impl Poll {
    fn begin(&self) -> tokio::task::JoinHandle<()> {
        let poll = self.clone();
        tokio::spawn(async move {
            loop {
                let addresses = poll.addresses.lock().unwrap().clone();
                let begun = Instant::now();
                let mut texts = Vec::new();
                for address in addresses {
                    texts.extend(scrape(&address).await);
                }
                let texts = texts.iter().map(|text| platforms_part(text)).collect();
                poll.rounds.lock().unwrap().push(Round { took: begun.elapsed(), texts });
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }

    async fn start(&self, fleetlog: &Fleetlog) -> (Running, String) {
        let mut running = fleetlog.spawn(&["run"]).unwrap();
        let address = address_of(&mut running).await;
        self.addresses.lock().unwrap().push(address.clone());
        (running, address)
    }

    /// Waits until a process shows figures; says which.
    async fn holder(&self) -> String {
        let mut holder = None;
        until("somebody shows the figures of tasks and of units", async || {
            let addresses = self.addresses.lock().unwrap().clone();
            let (mut tasks, mut units) = (None, None);
            for address in addresses {
                let text = scrape(&address).await.unwrap_or_default();
                tasks = tasks.or(text.contains("\napp_delivery_").then(|| address.clone()));
                units = units.or(text.contains("\njarvis_iot_").then(|| address.clone()));
            }
            holder = tasks.filter(|_| units.is_some());
            holder.is_some()
        })
        .await;
        holder.unwrap()
    }
}

/// What Prometheus' parser makes of a text.
#[derive(Deserialize)]
struct Parsed {
    types: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

async fn parse(texts: &[String]) -> Vec<Parsed> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("texts.json");
    std::fs::write(&path, serde_json::to_vec(texts).unwrap()).unwrap();
    let script = file("tests/it/exposition.py").display().to_string();
    let told = tool_text(&python(), &[&script, &path.display().to_string()]).await;
    serde_json::from_str(&told).unwrap()
}

/// The platform's samples of several processes, added up.
fn sum<'a>(parsed: impl IntoIterator<Item = &'a Parsed>) -> Samples {
    let mut sum = Samples::new();
    for (name, labels, value) in parsed.into_iter().flat_map(|parsed| &parsed.samples) {
        assert!(value.is_finite(), "{name} {labels:?} is {value}");
        if is_platforms(name) {
            *sum.entry((name.clone(), labels.clone())).or_default() += value;
        }
    }
    sum
}

/// Of history: task, event, site, type, device time in ms.
type TaskRow = (String, String, String, Option<String>, i64);

/// The figures of tasks, counted event by event.
async fn recount_tasks(postgres: &mut PgConnection, expected: &mut Samples) {
    let sql =
        "SELECT task_id, event_type, site_uid, task_type, (extract(epoch FROM occurred_at) * 1000)::bigint
               FROM task_event ORDER BY log_partition, log_offset";
    let rows: Vec<TaskRow> = sqlx::query_as(sql).fetch_all(postgres).await.unwrap();
    let mut tasks: BTreeMap<String, (String, String, Option<i64>)> = BTreeMap::new();
    for (task, event, site, task_type, at_ms) in rows {
        if event == "Created" {
            let task_type = task_type.unwrap();
            let labels = [("site_uid", site.as_str()), ("task_type", task_type.as_str())];
            for outcome in ["created", "completed", "failed"] {
                expected.entry(series(&format!("app_delivery_tasks_{outcome}_total"), &labels)).or_default();
            }
            observe(expected, &labels, None);
            *expected.get_mut(&series("app_delivery_tasks_created_total", &labels)).unwrap() += 1.0;
            tasks.insert(task, (site, task_type, None));
            continue;
        }
        let (site, task_type, started) = tasks.get_mut(&task).unwrap();
        let labels = [("site_uid", site.as_str()), ("task_type", task_type.as_str())];
        match event.as_str() {
            "Started" => *started = started.or(Some(at_ms)),
            "Completed" => {
                *expected.get_mut(&series("app_delivery_tasks_completed_total", &labels)).unwrap() += 1.0;
                if let Some(ms) = started.map(|started| at_ms - started).filter(|ms| *ms >= 0) {
                    observe(expected, &labels, Some(ms));
                }
            }
            "Failed" => {
                *expected.get_mut(&series("app_delivery_tasks_failed_total", &labels)).unwrap() += 1.0
            }
            _ => {}
        }
    }
}

/// Counts a duration; none makes its series, at 0.
fn observe(expected: &mut Samples, labels: &[(&str, &str); 2], ms: Option<i64>) {
    let bounds = BUCKETS_S.map(|s| (s.to_string(), i64::from(s) * 1000));
    for (le, bound_ms) in bounds.iter().map(|(le, ms)| (le.as_str(), *ms)).chain([("+Inf", i64::MAX)]) {
        let bucket = series(&format!("{DURATION}_bucket"), &[labels[0], labels[1], ("le", le)]);
        *expected.entry(bucket).or_default() += f64::from(ms.is_some_and(|ms| ms <= bound_ms));
    }
    *expected.entry(series(&format!("{DURATION}_count"), labels)).or_default() += f64::from(ms.is_some());
    *expected.entry(series(&format!("{DURATION}_sum"), labels)).or_default() +=
        ms.unwrap_or(0) as f64 / 1000.0;
}

/// The figures of units, counted event by event.
async fn recount_units(postgres: &mut PgConnection, expected: &mut Samples) {
    let sql = "SELECT site_uid || '.' || unit_uid, event_type, payload ->> 'unit_type'
               FROM unit_event ORDER BY log_partition, log_offset";
    let rows: Vec<(String, String, Option<String>)> = sqlx::query_as(sql).fetch_all(postgres).await.unwrap();
    let mut units: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for (unit, event, unit_type) in rows {
        let unit = units.entry(unit).or_insert_with(|| ("unknown".to_owned(), false));
        match event.as_str() {
            "Registered" => unit.0 = unit_type.unwrap(),
            "Connected" => unit.1 = true,
            "Disconnected" => unit.1 = false,
            "Decommissioned" => panic!("the simulated fleet has none"),
            _ => {}
        }
    }
    let online =
        |of: &str| units.values().filter(|(unit_type, online)| unit_type == of && *online).count() as f64;
    for unit_type in ["robot", "station", "unknown"] {
        expected.insert(series("jarvis_iot_units_online_total", &[("type", unit_type)]), online(unit_type));
    }
    expected.insert(series("jarvis_iot_robot_online_count", &[]), online("robot"));
    expected.insert(series("jarvis_iot_units_total", &[]), units.len() as f64);
}

/// At quiet: the sum over all processes is the count. How many tasks were counted.
async fn agree(world: &World, poll: &Poll) -> f64 {
    world.ok(&["status", "--wait", "240"]).await;
    poll.holder().await;
    let mut texts = Vec::new();
    let addresses = poll.addresses.lock().unwrap().clone();
    for address in addresses {
        texts.extend(scrape(&address).await);
    }
    let parsed = parse(&texts).await;
    let types: BTreeMap<_, _> = parsed.iter().flat_map(|parsed| &parsed.types).collect();
    for name in ["jarvis_iot_robot_online_count", "jarvis_iot_units_online_total", "jarvis_iot_units_total"] {
        assert_eq!(types[&name.to_owned()], "gauge", "{name}");
    }
    assert_eq!(types[&DURATION.to_owned()], "histogram");
    let (found, mut expected) = (sum(&parsed), Samples::new());
    let mut postgres = world.postgres().await;
    recount_tasks(&mut postgres, &mut expected).await;
    recount_units(&mut postgres, &mut expected).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (series, value) in &found {
        // Sums of seconds: added up in another order.
        assert!(
            (value - expected[series]).abs() < 1e-6,
            "{series:?} is {value}, counted {}",
            expected[series]
        );
    }
    found
        .iter()
        .filter(|((name, _), _)| name == "app_delivery_tasks_completed_total")
        .map(|(_, value)| value)
        .sum()
}

/// No answer of any round counts something twice, and from round to round nothing goes back.
async fn never_back_never_twice(rounds: Vec<Round>) {
    let texts: Vec<String> = rounds.iter().flat_map(|round| round.texts.clone()).collect();
    let mut parsed = parse(&texts).await.into_iter();
    let mut highest = Samples::new();
    let (mut with, mut gaps) = (0, 0);
    for round in rounds {
        let parsed: Vec<Parsed> = parsed.by_ref().take(round.texts.len()).collect();
        // Figures may rightly have moved on while a round took that long, on a machine that is busy elsewhere.
        if round.took > HOLD / 2 {
            continue;
        }
        let tell =
            |name: &str| parsed.iter().filter(|parsed| parsed.samples.iter().any(|s| s.0 == name)).count();
        for name in ["app_delivery_tasks_created_total", "jarvis_iot_units_total"] {
            assert!(tell(name) <= 1, "{name} is told by {} processes", tell(name));
        }
        let sum = sum(&parsed);
        if sum.keys().any(|(name, _)| only_grows(name)) {
            with += 1
        } else {
            gaps += 1
        }
        for (series, value) in sum.into_iter().filter(|((name, _), _)| only_grows(name)) {
            let before = highest.insert(series.clone(), value).unwrap_or_default();
            assert!(before <= value, "{series:?} went from {before} to {value}");
        }
    }
    println!("{with} rounds with figures, {gaps} without");
    assert!(with > 10, "only {with} rounds had figures, {gaps} had none");
}

/// A burst of a fleet on two sites; goes on while the test does.
fn burst(world: &World, seed: &str) -> Running {
    let args = [
        "simulate", "--units", "60", "--rate", "max", "--events", "20000", "--seed", seed, "--format", "json",
    ];
    world.fleetlog.spawn(&args).unwrap()
}

async fn ended(running: Running) {
    running.wait(LIMIT).await.unwrap().success().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sum_over_all_processes_is_the_truth_whatever_is_killed() {
    let world = World::new("figures").await;
    let fleetlog = world.fleetlog.clone().env("FLEETLOG_RUN__FIGURES_HOLD_MS", &HOLD.as_millis().to_string());
    let poll = Poll::default();
    let (first, first_address) = poll.start(&fleetlog).await;
    let (second, second_address) = poll.start(&fleetlog).await;
    let mut running = BTreeMap::from([(first_address, first), (second_address, second)]);
    let polling = poll.begin();
    ended(burst(&world, "1")).await;
    let before = agree(&world, &poll).await;
    assert!(before > 20.0, "only {before} tasks were completed");

    // Whoever shows them is killed in the midst of work; the other shows them once they are free, and all of them.
    let load = burst(&world, "2");
    let holder = poll.holder().await;
    let mut killed = running.remove(&holder).unwrap();
    killed.kill().await.unwrap();
    poll.addresses.lock().unwrap().retain(|address| *address != holder);
    let heir = poll.holder().await;
    assert_ne!(heir, holder);
    let (third, third_address) = poll.start(&fleetlog).await;
    running.insert(third_address.clone(), third);
    ended(load).await;
    let between = agree(&world, &poll).await;
    assert!(between > before, "{between} tasks completed after {before}");

    // The heir leaves in order, so its partitions move; one process does it all, and shows it all.
    let load = burst(&world, "3");
    let leaves = running.remove(&heir).unwrap();
    leaves.signal("TERM").unwrap();
    assert_eq!(leaves.wait(LIMIT).await.unwrap().code(), Some(0));
    poll.addresses.lock().unwrap().retain(|address| *address != heir);
    assert_eq!(poll.holder().await, third_address);
    ended(load).await;
    let after = agree(&world, &poll).await;
    assert!(after > between, "{after} tasks completed after {between}");

    polling.abort();
    let rounds = std::mem::take(&mut *poll.rounds.lock().unwrap());
    never_back_never_twice(rounds).await;
}

/// Every series that a process shows after real work has the labels that docs/metrics.md lists for its metric.
async fn labels_are_those_of_the_page(text: &str) {
    let page = std::fs::read_to_string(file("docs/metrics.md")).unwrap();
    let listed: BTreeMap<&str, BTreeSet<&str>> = page
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            let labels = rest.split('|').next()?.split(',').map(str::trim).filter(|label| !label.is_empty());
            Some((name, labels.collect()))
        })
        .collect();
    let (mut seen, parsed) = (BTreeSet::new(), parse(&[text.to_owned()]).await);
    for (name, labels, _) in &parsed[0].samples {
        let ending = ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending));
        let Some((name, listed)) =
            [name.as_str(), ending.unwrap_or(name)].iter().find_map(|n| listed.get_key_value(n))
        else {
            // Those of the process itself, which Prometheus' libraries name for all.
            assert!(name.starts_with("process_"), "{name} is not on the page");
            continue;
        };
        let shown: BTreeSet<&str> =
            labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(&shown, listed, "labels of {name}: shown (left), on the page (right)");
        seen.insert(*name);
    }
    assert!(seen.len() > 20, "only {seen:?}");
}

/// Killed and started again at once, it is the same process to the figures, and shows them at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_started_again_goes_on_showing_and_a_store_that_is_down_shows_nothing() {
    let mut redis = fleetlog_testkit::RedisServer::start().await.unwrap();
    let world = World::new("figures-again").await.on_redis(&redis);
    let fleetlog = world.fleetlog.clone().env("FLEETLOG_RUN__FIGURES_HOLD_MS", "600000");
    let poll = Poll::default();
    let (mut running, address) = poll.start(&fleetlog).await;
    let text = scrape(&address).await.unwrap();
    assert_eq!(platforms_part(&text), "", "figures of a fleet that has done nothing yet");
    ended(burst(&world, "1")).await;
    let before = agree(&world, &poll).await;
    running.kill().await.unwrap();
    poll.addresses.lock().unwrap().clear();
    let (_running, address) = poll.start(&fleetlog).await;
    assert_eq!(agree(&world, &poll).await, before);
    labels_are_those_of_the_page(&scrape(&address).await.unwrap()).await;

    redis.kill();
    let mut text = String::new();
    until("figures of units to be left out", async || {
        text = get(&address, "/metrics").await.1;
        !text.contains("jarvis_iot_")
    })
    .await;
    assert!(text.contains("\napp_delivery_tasks_created_total{"), "{text}");
}

/// How many units a process tells of.
fn units_total(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("jarvis_iot_units_total "))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Hot state is lost, under a process that runs and before another starts; Redis is slow, so that it is folded anew in many
/// parts. Until it holds all units again nothing is told of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_units_is_never_told_for_all_of_them() {
    let redis = fleetlog_testkit::RedisServer::start().await.unwrap();
    let slow = FaultProxy::start_before(&redis.url()).await.unwrap();
    let world = World::new("figures-anew").await.on_redis(&redis);
    let fleetlog = world
        .fleetlog
        .clone()
        .env("FLEETLOG_REDIS__URL", &slow.url_instead(&redis.url()).unwrap())
        .env("FLEETLOG_RUN__FIGURES_HOLD_MS", "600000");
    let poll = Poll::default();
    let (mut running, mut address) = poll.start(&fleetlog).await;
    ended(burst(&world, "1")).await;
    agree(&world, &poll).await;
    let all = units_total(&scrape(&address).await.unwrap()).unwrap();
    assert!(all >= 60.0, "{all} units");

    let mut beside = redis_connection(&redis.url()).await.unwrap();
    slow.set(Way::Delay(Duration::from_millis(100))).await;
    for is_started_again in [false, true] {
        if is_started_again {
            running.kill().await.unwrap();
        }
        redis::cmd("FLUSHALL").exec_async(&mut beside).await.unwrap();
        if is_started_again {
            (running, address) = poll.start(&fleetlog).await;
        }
        let mut without = 0;
        until("all units to be told again", async || {
            let told = units_total(&scrape(&address).await.unwrap());
            match told {
                Some(told) => assert_eq!(told, all, "after {without} answers without"),
                None => without += 1,
            }
            told.is_some()
        })
        .await;
        // A process that is started again may have folded all of it before it is asked.
        assert!(without > 0 || is_started_again, "the loss was not seen");
        println!("{without} answers without figures of units");
    }
}
