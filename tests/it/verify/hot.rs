//! Hot state.

use fleetlog_event::{
    TimestampMs,
    robot::{Connected, DisconnectReason, Disconnected, ModeChanged, OperatingMode, RobotEvent},
    task::{Assigned, Completed, Created, TaskEvent},
    telemetry::{Telemetry, TelemetryEvent},
};
use fleetlog_projection::{Fold, FoldProjector, HotWrite, given, given::MemoryLog};
use fleetlog_projections::{TaskStateProjector, UnitConsensus, UnitStatus};
use fleetlog_sink_redis::{RedisSink, RedisSinkSettings};
use fleetlog_testkit::{RedisServer, redis_connection};
use fleetlog_verify::{HotStore, HotStoreSettings, Report, verify_fold};
use redis::{AsyncCommands, aio::MultiplexedConnection};

use super::{TestLog, append, assert_one, counts, fill, settings};

const LANE: &str = "k/fleetlog:p-unit-status@1:v-topic:0";

/// Three units: 1 is online, 2 offline, 3 online in manual mode. One duplicate, one event under a wrong key.
fn units() -> TestLog {
    let mut log = MemoryLog::default();
    let connected = |meta| RobotEvent::from(Connected { meta, protocol: Some("vda5050/2.1".to_owned()) });
    let mode = |mode| move |meta| RobotEvent::from(ModeChanged { meta, mode });
    for unit in ["1", "2", "3"] {
        append(&mut log, connected, unit);
        append(&mut log, mode(OperatingMode::Automatic), unit);
    }
    let gone = |meta| RobotEvent::from(Disconnected { meta, reason: DisconnectReason::Broken });
    append(&mut log, gone, "2");
    // The same event once more.
    let again = RobotEvent::from(Connected {
        meta: fleetlog_event::EventMeta {
            event_id: fleetlog_event::EventId::derived("verify", 0),
            ..given::unit_meta("504", "1")
        },
        protocol: None,
    });
    log.append(again.clone());
    log.append_under(mode(OperatingMode::Manual)(given::unit_meta("504", "1")), "s504.u3");
    append(&mut log, mode(OperatingMode::Manual), "3");
    TestLog::new(log)
}

pub(super) struct Stage {
    _server: RedisServer,
    redis: MultiplexedConnection,
    pub(super) sink: RedisSink,
    pub(super) store: HotStore,
}

pub(super) async fn stage() -> Stage {
    let server = RedisServer::start().await.unwrap();
    let redis = redis_connection(&server.url()).await.unwrap();
    let sink = RedisSink::open(RedisSinkSettings {
        key_prefix: "k/".to_owned(),
        lane_prefix: "p-".to_owned(),
        ..RedisSinkSettings::new(server.url())
    });
    let store = HotStore::connect(HotStoreSettings {
        ca_pem: None,
        url: server.url(),
        key_prefix: "k/".to_owned(),
        lane_prefix: "p-".to_owned(),
        suffix: String::new(),
        timeout_ms: 5000,
    });
    Stage { redis, sink: sink.unwrap(), store: store.await.unwrap(), _server: server }
}

impl Stage {
    async fn verify<P: FoldProjector<Write = HotWrite>>(&self, projector: P, log: &TestLog) -> Report {
        verify_fold(&projector, log, &self.store, &settings()).await.unwrap()
    }

    pub(super) async fn run(&mut self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let _: redis::Value = command.query_async(&mut self.redis).await.unwrap();
    }
}

/// A stage with the three units.
async fn filled() -> (Stage, TestLog) {
    let (stage, log) = (stage().await, units());
    fill(&Fold::new(UnitStatus), &log, &stage.sink, log.end()).await;
    (stage, log)
}

#[tokio::test]
async fn hot_state_that_is_the_fold_of_its_log_is_clean() {
    let (stage, log) = filled().await;
    let report = stage.verify(UnitStatus, &log).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.compared, report.set_aside, report.duplicates), (3, 1, 1));
    assert_eq!((report.lanes[0].from, report.lanes[0].to), (0, log.end()));
}

/// The damage, (missing, extra, different), parts of what is told.
type Damage = (&'static [&'static str], (u64, u64, u64), &'static [&'static str]);

/// Each damage, what it counts as (missing, extra, different), and what is told.
const DAMAGES: [Damage; 15] = [
    (&["DEL", "k/unit:s504.u1"], (1, 0, 0), &["missing unit:s504.u1", "no such key"]),
    (&["HSET", "k/unit:s504.u3", "mode", "x"], (0, 0, 1), &["field `mode` is `x`, the log says `manual`"]),
    (&["HDEL", "k/unit:s504.u3", "mode"], (0, 0, 1), &["field `mode` is absent, the log says `manual`"]),
    (&["HSET", "k/unit:s504.u3", "more", "x"], (0, 0, 1), &["the projection has no such field"]),
    (
        &["HSET", "k/unit:s504.u3", "_state", "{\"a\":1}"],
        (0, 0, 1),
        &["`_state` is {\"a\":1}, the log says {"],
    ),
    (&["HSET", "k/unit:s504.u3", "_state", "{"], (0, 0, 1), &["`_state` is no JSON"]),
    (&["HDEL", "k/unit:s504.u3", "_version"], (0, 0, 1), &["has no `_version`"]),
    (&["ZADD", "k/online:504", "5", "s504.u2"], (0, 0, 1), &["`online:504` is 5, the log says absent"]),
    (&["ZREM", "k/online:504", "s504.u1"], (0, 0, 1), &["`online:504` is absent, the log says 17"]),
    (&["ZADD", "k/online:504", "5", "s504.u1"], (0, 0, 1), &["`online:504` is 5, the log says 17"]),
    (&["ZADD", "k/online:504", "5", "s504.u9"], (0, 1, 0), &["extra online:504", "member `s504.u9`"]),
    (&["COPY", "k/unit:s504.u1", "k/unit:s504.u7"], (0, 1, 0), &["extra unit:s504.u7", "no such entity"]),
    (
        &["HDEL", "k/fleetlog:p-unit-status@1:v-topic:0:set_aside", "8"],
        (1, 0, 0),
        &["offset 8", "not set aside"],
    ),
    (
        &["HSET", "k/fleetlog:p-unit-status@1:v-topic:0:set_aside", "7", "{}"],
        (0, 1, 0),
        &["offset 7", "a duplicate"],
    ),
    (&["RENAME", "k/online:504", "k/unit:s504.u5"], (0, 0, 3), &["the log says 17"]),
];

#[tokio::test]
async fn every_damage_to_hot_state_is_found() {
    for (damage, expected, texts) in DAMAGES {
        let (mut stage, log) = filled().await;
        stage.run(damage).await;
        let report = stage.verify(UnitStatus, &log).await;
        assert_one(&report, expected, texts);
    }
}

#[tokio::test]
async fn an_event_that_is_neither_taken_nor_set_aside_is_missing() {
    let (mut stage, log) = (stage().await, units());
    fill(&Fold::new(UnitStatus), &log, &stage.sink, 9).await;
    stage.run(&["HSET", LANE, "main", "10"]).await;
    let report = stage.verify(UnitStatus, &log).await;
    assert_one(&report, (1, 0, 0), &["missing unit:s504.u3", "offset 9 is neither taken nor set aside"]);
}

#[tokio::test]
async fn a_lane_that_is_behind_is_told_and_compared_as_far_as_it_came() {
    let (stage, log) = (stage().await, units());
    let report = stage.verify(UnitStatus, &log).await;
    assert_eq!((report.behind, report.compared, report.is_clean()), (10, 0, false));
    fill(&Fold::new(UnitStatus), &log, &stage.sink, 8).await;
    let report = stage.verify(UnitStatus, &log).await;
    assert_eq!((report.behind, report.compared, counts(&report)), (2, 3, (0, 0, 0)), "{report:#?}");
    assert!(!report.is_clean());
}

#[tokio::test]
async fn a_recount_of_nothing_proves_nothing() {
    let stage = stage().await;
    let report = stage.verify(UnitStatus, &TestLog::new(MemoryLog::default())).await;
    assert_eq!((report.behind, counts(&report)), (0, (0, 0, 0)));
    assert!(!report.is_clean());
}

#[tokio::test]
async fn entities_that_went_on_meanwhile_are_compared_at_their_own_version() {
    let (mut stage, log) = filled().await;
    for end in [1, 3, 5, 9] {
        let report = stage.verify(UnitStatus, &log.growing_from(end)).await;
        assert!(report.is_clean(), "from {end}: {report:#?}");
        assert_eq!(report.compared, 3);
    }
    stage.run(&["HSET", "k/unit:s504.u3", "mode", "x"]).await;
    stage.run(&["COPY", "k/unit:s504.u2", "k/unit:s504.u7"]).await;
    let report = stage.verify(UnitStatus, &log.growing_from(5)).await;
    assert_eq!(counts(&report), (0, 1, 1), "{report:#?}");
    let stored: String = stage.redis.hget("k/unit:s504.u3", "_version").await.unwrap();
    stage.run(&["HSET", "k/unit:s504.u3", "_version", &stored.replace(":10:", ":99:")]).await;
    let report = stage.verify(UnitStatus, &log.growing_from(5)).await;
    assert_eq!(counts(&report), (0, 1, 1), "{report:#?}");
    assert!(report.differences.iter().any(|d| d.detail.contains("the log ends at 10")), "{report:#?}");
}

#[tokio::test]
async fn a_recreated_topic_is_an_error_that_names_the_ways_out() {
    let (mut stage, log) = filled().await;
    stage.run(&["HSET", LANE, "log", "00000000000000000000000000000001"]).await;
    let error = verify_fold(&UnitStatus, &log, &stage.store, &settings()).await.unwrap_err();
    assert!(error.to_string().contains("rebuild the projection, or adopt the log"), "{error}");
}

#[tokio::test]
async fn a_version_beside_the_live_one_is_nobodys_extra() {
    let (mut stage, log) = filled().await;
    stage.run(&["COPY", "k/unit:s504.u1", "k/unit:s504.u1~2"]).await;
    assert!(stage.verify(UnitStatus, &log).await.is_clean());
}

#[tokio::test]
async fn where_retention_cut_the_log_only_what_it_tells_is_compared() {
    let measured = |x_m: Option<f64>, battery_percent: Option<f64>| {
        move |meta| {
            TelemetryEvent::from(Telemetry {
                channel: Some("state".to_owned()),
                x_m,
                y_m: x_m,
                battery_percent,
                speed_m_s: Some(1e-7),
                driving: Some(true),
                ..Telemetry::silent(meta)
            })
        }
    };
    let mut log = MemoryLog::default();
    for n in 0..200 {
        let unit = if n < 100 { "old" } else { "new" };
        append(&mut log, measured(Some(f64::from(n)), (n == 100).then_some(55.5)), unit);
    }
    let (log, mut stage) = (TestLog::new(log), stage().await);
    fill(&Fold::new(UnitConsensus), &log, &stage.sink, log.end()).await;
    let report = stage.verify(UnitConsensus, &log).await;
    assert!(report.is_clean() && report.compared == 2, "{report:#?}");
    // The battery was told at offset 100, and by no record that is left.
    let cut = log.cut(120);
    let report = stage.verify(UnitConsensus, &cut).await;
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.compared, report.untold, report.cut_lanes().count()), (1, 1, 1));
    stage.run(&["HSET", "k/UnitConsensus@s504.unew", "x_m", "7"]).await;
    let report = stage.verify(UnitConsensus, &cut).await;
    assert_one(&report, (0, 0, 1), &["field `x_m` is `7`"]);
}

#[tokio::test]
async fn tasks_that_expired_by_rule_may_be_absent() {
    let mut log = MemoryLog::default();
    for task in ["t1", "t2"] {
        let task_id = task.to_owned();
        let (id, created) = (task_id.clone(), |meta, task_id: &String| Created {
            meta,
            task_id: task_id.clone(),
            task_type: "transport".to_owned(),
            priority: 3,
            external_id: None,
            steps: Vec::new(),
            parameters: std::collections::BTreeMap::new(),
        });
        append(&mut log, move |meta| TaskEvent::from(created(meta, &id)), "1");
        if task == "t1" {
            let id = task_id.clone();
            append(&mut log, move |meta| TaskEvent::from(Assigned { meta, task_id: id.clone() }), "1");
            append(
                &mut log,
                move |meta| TaskEvent::from(Completed { meta, task_id: task_id.clone(), failed_steps: 0 }),
                "1",
            );
        }
    }
    let (log, mut stage) = (TestLog::new(log), stage().await);
    fill(&Fold::new(TaskStateProjector), &log, &stage.sink, log.end()).await;
    stage.run(&["DEL", "k/task:t1"]).await;
    let report = stage.verify(TaskStateProjector, &log).await;
    assert_one(&report, (1, 0, 0), &["missing task:t1"]);
    let mut later = settings();
    later.now = TimestampMs(given::START.0 + 9 * 24 * 3_600_000);
    let report = verify_fold(&TaskStateProjector, &log, &stage.store, &later).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.compared, report.expired), (1, 1));
    stage.run(&["ZADD", "k/tasks:active:504", "3", "t1"]).await;
    let report = verify_fold(&TaskStateProjector, &log, &stage.store, &later).await.unwrap();
    assert_one(&report, (0, 1, 0), &["it expired, but is still in `tasks:active:504`"]);
}
