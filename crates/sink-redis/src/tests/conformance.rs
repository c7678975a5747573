//! The one suite that every sink passes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use fleetlog_projection::{HotWrite, LaneId, UnitOfWork, conformance::Harness};
use redis::{AsyncCommands, Pipeline};
use tokio::sync::Mutex;

use super::server::Server;
use crate::{RedisSink, calls::Plan, lane_key, ledger_key};

struct RedisHarness {
    server: Mutex<Server>,
    sink: RedisSink,
    lanes: AtomicU32,
}

impl RedisHarness {
    async fn start() -> Self {
        let server = Server::start(&[]).await;
        let sink = server.sink();
        Self { server: Mutex::new(server), sink, lanes: AtomicU32::new(0) }
    }

    async fn connect(&self) -> redis::aio::MultiplexedConnection {
        self.server.lock().await.connect().await
    }
}

impl Harness for RedisHarness {
    type Sink = RedisSink;
    const STORES_ENTITIES: bool = true;
    const STORES_ROWS: bool = false;

    async fn open(&self) -> RedisSink {
        self.server.lock().await.sink()
    }

    fn lane(&self) -> LaneId {
        let n = self.lanes.fetch_add(1, Ordering::Relaxed);
        LaneId { projection: "conformance".into(), version: 1, topic: format!("p-topic-{n}"), partition: 0 }
    }

    fn entity_writes(&self, home: &str, value: i64) -> Vec<HotWrite> {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let score = value as f64;
        vec![
            HotWrite::field("value", value.to_string()),
            HotWrite::field("kind", "conformance"),
            HotWrite::maybe("odd", (value % 2 == 1).then_some(value)),
            HotWrite::Ranked { list: "list:a".into(), member: home.into(), score: Some(score) },
            HotWrite::Ranked {
                list: "list:odd".into(),
                member: home.into(),
                score: (value % 2 == 1).then_some(score),
            },
        ]
    }

    async fn shown(&self, home: &str) -> Option<i64> {
        let mut connection = self.connect().await;
        let fields: BTreeMap<String, String> = connection.hgetall(format!("test/{home}")).await.unwrap();
        let value: i64 = fields.get("value")?.parse().unwrap();
        assert_eq!(
            fields.contains_key("odd"),
            value % 2 == 1,
            "a field that is absent is removed: {fields:?}"
        );
        assert_eq!(
            fields.get("kind").map(String::as_str),
            Some("conformance"),
            "what never changes: {fields:?}"
        );
        let rank: Option<i64> = connection.zscore("test/list:a", home).await.unwrap();
        assert_eq!(rank, Some(value), "the place of `{home}` in list:a");
        let rank: Option<i64> = connection.zscore("test/list:odd", home).await.unwrap();
        assert_eq!(rank, (value % 2 == 1).then_some(value), "the place of `{home}` in list:odd");
        Some(value)
    }

    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        let key = ledger_key(&lane_key("test/", "p-", lane));
        let entries: BTreeMap<i64, String> = self.connect().await.hgetall(key).await.unwrap();
        entries
            .into_iter()
            .map(|(offset, json)| {
                let entry: serde_json::Value = serde_json::from_str(&json).unwrap();
                assert_eq!(entry["state"], "open");
                (offset, entry["reason"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    async fn interrupt(&self, unit: &UnitOfWork<HotWrite>, steps: usize) -> bool {
        let settings = self.server.lock().await.settings();
        let plan = Plan::new(unit, &settings, self.sink.commit_script_hash()).unwrap();
        let mut pipeline = Pipeline::new();
        for index in 0..steps.min(plan.parts().len()) {
            pipeline.add_command(plan.command(index, crate::calls::Extent::Needed));
        }
        if !pipeline.is_empty() {
            self.sink.run("the first steps", &pipeline).await.unwrap();
        }
        steps < plan.parts().len()
    }

    async fn snapshot(&self) {
        self.server.lock().await.snapshot().await;
    }

    async fn lose_tail(&self) {
        self.server.lock().await.lose_tail().await;
        // The harness's own sink has lost its connection: its next call says so and makes a new one.
        let _ = self.sink.run("a look", redis::pipe().cmd("PING")).await;
    }

    async fn restart(&self) {
        self.server.lock().await.restart().await;
    }

    async fn drop_scripts(&self) {
        let _: String =
            redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut self.connect().await).await.unwrap();
    }

    async fn remove(&self, home: &str) {
        let _: () = self.connect().await.del(format!("test/{home}")).await.unwrap();
    }

    async fn occupy(&self, home: &str) {
        let _: () = self.connect().await.set(format!("test/{home}"), "somebody else's").await.unwrap();
    }
}

fleetlog_projection::conformance_tests! { RedisHarness::start().await =>
    a_new_lane_is_empty, applied_once, the_same_again_is_already_applied, an_older_unit_is_fenced,
    any_other_link_is_fenced, a_zombie_with_cached_state_is_fenced, an_owner_with_other_code_is_fenced,
    lanes_are_independent, an_interrupted_commit_is_completed_by_its_retry,
    set_asides_come_before_what_they_concern, another_owner_replaces_an_interrupted_commit,
    two_interrupted_commits_do_not_mix, a_tail_lost_to_the_beginning_fences_the_owner,
    a_tail_lost_between_commits_fences_the_owner, a_tail_lost_inside_a_commit_fences_the_owner,
    an_empty_batch_moves_progress, a_large_batch_is_taken, odd_texts_come_back_unchanged, entries_are_told, an_entry_closes_with_what_it_is_about,
        what_is_closed_stays_closed,
    forgotten_scripts_are_loaded_again, a_restart_is_survived, a_foreign_value_is_permanent,
    what_was_removed_is_written_as_a_whole,
}
