//! The suite that every sink passes, on a fresh database each. With `FLEETLOG_TEST_TIMESCALE_URL` on that server too.

use std::collections::BTreeMap;

use fleetlog_projection::{HistoryRow, LaneId, Sink, UnitOfWork, conformance::Harness};
use fleetlog_sink_timescale::{Database, SqlSink};
use fleetlog_testkit::PostgresServer;
use sqlx::{PgConnection, Row};
use tokio::sync::Mutex;

use crate::{
    proxy::{Proxy, Trouble},
    support::{self, FreshDatabase, TestEntity, TestRow, address_of, open, run, with_address},
};

struct Sql {
    database: FreshDatabase,
    /// Where the test may restart the server. After the database: that is dropped first.
    server: Option<Mutex<PostgresServer>>,
}

impl Sql {
    async fn on(server: &str) -> Self {
        Self { database: FreshDatabase::migrated_on(server).await, server: None }
    }

    async fn on_its_own_server() -> Self {
        let server = PostgresServer::start().await.unwrap();
        let sql = Self::on(&server.url()).await;
        Self { server: Some(Mutex::new(server)), ..sql }
    }

    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        let sql = "SELECT log_offset, reason FROM fleetlog_set_aside
                   WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4";
        let query = sqlx::query(sql)
            .bind(&lane.projection)
            .bind(i32::try_from(lane.version).unwrap())
            .bind(&lane.topic)
            .bind(lane.partition);
        let rows = query.fetch_all(&mut self.database.connect().await).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// A commit is one step, COMMIT: everything before it is undone by the server when its client is gone.
    async fn interrupt<W: HistoryRow>(
        &self,
        sink: impl Fn(Database) -> SqlSink<W>,
        unit: &UnitOfWork<W>,
        steps: usize,
    ) -> bool {
        if steps > 0 {
            sink(self.database.open()).commit(unit).await.unwrap();
            return false;
        }
        let proxy = Proxy::to(address_of(&self.database.url)).await;
        proxy.trouble_at("COMMIT\0", Trouble::CutBefore);
        let url = with_address(&self.database.url, &proxy.address);
        let sink = sink(open(&url, std::time::Duration::from_secs(20)));
        sink.commit(unit).await.expect_err("the connection was cut");
        assert_eq!(proxy.struck(), 1);
        true
    }

    async fn restart(&self) {
        let mut server = self.server.as_ref().unwrap().lock().await;
        server.kill();
        server.restart().await.unwrap();
    }

    async fn snapshot(&self, table: &str) {
        let sql = format!(
            "DROP SCHEMA IF EXISTS earlier CASCADE; CREATE SCHEMA earlier;
             CREATE TABLE earlier.progress AS TABLE fleetlog_progress;
             CREATE TABLE earlier.set_aside AS TABLE fleetlog_set_aside;
             CREATE TABLE earlier.data AS TABLE {table}"
        );
        run(&mut self.database.connect().await, &sql).await;
    }

    async fn lose_tail(&self, table: &str) {
        let sql = format!(
            "TRUNCATE fleetlog_progress, fleetlog_set_aside, {table};
             INSERT INTO fleetlog_progress TABLE earlier.progress;
             INSERT INTO fleetlog_set_aside TABLE earlier.set_aside;
             INSERT INTO {table} TABLE earlier.data"
        );
        run(&mut self.database.connect().await, &sql).await;
    }
}

impl Harness for Sql {
    type Sink = SqlSink<TestRow>;
    const STORES_ENTITIES: bool = false;
    const STORES_ROWS: bool = true;

    async fn open(&self) -> SqlSink<TestRow> {
        self.database.open().sink()
    }

    fn lane(&self) -> LaneId {
        support::lane()
    }

    fn row(&self, lane: &LaneId, offset: i64, value: i64) -> TestRow {
        support::row(lane, offset, value)
    }

    fn refused_row(&self, lane: &LaneId, offset: i64) -> TestRow {
        support::refused_row(lane, offset)
    }

    async fn rows(&self, lane: &LaneId) -> Vec<(i64, i64)> {
        let sql = "SELECT log_offset, sequence FROM telemetry WHERE site_uid = $1 ORDER BY log_offset";
        let query = sqlx::query_as(sql).bind(lane.to_string());
        query.fetch_all(&mut self.database.connect().await).await.unwrap()
    }

    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        self.ledger(lane).await
    }

    async fn interrupt(&self, unit: &UnitOfWork<TestRow>, steps: usize) -> bool {
        self.interrupt(|database| database.sink(), unit, steps).await
    }

    async fn restart(&self) {
        self.restart().await;
    }

    async fn snapshot(&self) {
        self.snapshot("telemetry").await;
    }

    async fn lose_tail(&self) {
        self.lose_tail("telemetry").await;
    }
}

/// The same server, with states of a fold instead of rows of history.
struct States {
    sql: Sql,
    /// Kept, since a check asks about thousands of entities; none after the server was restarted.
    reader: Mutex<Option<PgConnection>>,
}

impl States {
    async fn with_their_table(sql: Sql) -> Self {
        run(&mut sql.database.connect().await, support::TEST_ENTITY_TABLE).await;
        Self { sql, reader: Mutex::default() }
    }
}

impl Harness for States {
    type Sink = SqlSink<TestEntity>;
    const STORES_ENTITIES: bool = true;
    const STORES_ROWS: bool = false;

    async fn open(&self) -> SqlSink<TestEntity> {
        self.sql.database.open().fold_sink()
    }

    fn lane(&self) -> LaneId {
        support::lane()
    }

    fn entity_writes(&self, home: &str, value: i64) -> Vec<TestEntity> {
        vec![TestEntity { home: home.to_owned(), value }]
    }

    async fn shown(&self, home: &str) -> Option<i64> {
        let query = sqlx::query_scalar("SELECT value FROM test_entity WHERE home = $1").bind(home);
        let mut reader = self.reader.lock().await;
        if reader.is_none() {
            *reader = Some(self.sql.database.connect().await);
        }
        query.fetch_optional(reader.as_mut().unwrap()).await.unwrap()
    }

    async fn ledger(&self, lane: &LaneId) -> BTreeMap<i64, String> {
        self.sql.ledger(lane).await
    }

    async fn interrupt(&self, unit: &UnitOfWork<TestEntity>, steps: usize) -> bool {
        self.sql.interrupt(|database| database.fold_sink(), unit, steps).await
    }

    async fn restart(&self) {
        self.sql.restart().await;
        *self.reader.lock().await = None;
    }

    async fn snapshot(&self) {
        self.sql.snapshot("test_entity").await;
    }

    async fn lose_tail(&self) {
        self.sql.lose_tail("test_entity").await;
    }
}

macro_rules! suite {
    ($harness:expr) => {
        fleetlog_projection::conformance_tests! { $harness =>
            a_new_lane_is_empty, applied_once, the_same_again_is_already_applied, an_older_unit_is_fenced,
            any_other_link_is_fenced, a_zombie_with_cached_state_is_fenced, an_owner_with_other_code_is_fenced,
            lanes_are_independent, an_interrupted_commit_is_completed_by_its_retry,
            another_owner_replaces_an_interrupted_commit, two_interrupted_commits_do_not_mix,
            set_asides_come_before_what_they_concern, a_tail_lost_to_the_beginning_fences_the_owner,
            a_tail_lost_between_commits_fences_the_owner, a_tail_lost_inside_a_commit_fences_the_owner,
            refused_rows_are_named, a_fenced_owner_hears_of_no_refusal, an_empty_batch_moves_progress,
            a_large_batch_is_taken, odd_texts_come_back_unchanged, entries_are_told, an_entry_closes_with_what_it_is_about,
        what_is_closed_stays_closed,
        }
    };
}

mod on_plain_postgresql {
    use super::*;
    suite! { Sql::on(support::stack_url()).await }
}

mod states_on_plain_postgresql {
    use super::*;
    fleetlog_projection::conformance_tests! {
        States::with_their_table(Sql::on(support::stack_url()).await).await =>
            a_new_lane_is_empty, applied_once, the_same_again_is_already_applied, an_older_unit_is_fenced,
            any_other_link_is_fenced, a_zombie_with_cached_state_is_fenced, an_owner_with_other_code_is_fenced,
            lanes_are_independent, an_interrupted_commit_is_completed_by_its_retry,
            another_owner_replaces_an_interrupted_commit, two_interrupted_commits_do_not_mix,
            set_asides_come_before_what_they_concern, a_tail_lost_to_the_beginning_fences_the_owner,
            a_tail_lost_between_commits_fences_the_owner, a_tail_lost_inside_a_commit_fences_the_owner,
            an_empty_batch_moves_progress, a_large_batch_is_taken, odd_texts_come_back_unchanged, entries_are_told, an_entry_closes_with_what_it_is_about,
        what_is_closed_stays_closed,
    }
}

mod on_a_server_that_crashes {
    use super::*;
    fleetlog_projection::conformance_tests! { Sql::on_its_own_server().await => a_restart_is_survived }

    mod states {
        use super::*;
        fleetlog_projection::conformance_tests! {
            States::with_their_table(Sql::on_its_own_server().await).await => a_restart_is_survived
        }
    }
}

/// The suite on a real TimescaleDB, for whoever has one: `FLEETLOG_TEST_TIMESCALE_URL`, a database in which others may
/// be made. Without it there is nothing to run.
mod on_timescaledb {
    use super::*;

    /// Calls each check with a fresh database.
    macro_rules! each {
        ($server:expr => $($check:ident),+ $(,)?) => {
            $( fleetlog_projection::conformance::$check(&Sql::on($server).await).await; )+
        };
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[expect(clippy::disallowed_methods, reason = "the server is named by the caller, not by the stack")]
    async fn the_suite() {
        let Ok(server) = std::env::var("FLEETLOG_TEST_TIMESCALE_URL") else {
            eprintln!("skipped: FLEETLOG_TEST_TIMESCALE_URL is not set");
            return;
        };
        let flavour = FreshDatabase::migrated_on(&server).await.open().check().await.unwrap().flavour;
        assert_eq!(flavour, fleetlog_sink_timescale::Flavour::Timescale, "the server has no TimescaleDB");
        each! { &server =>
            a_new_lane_is_empty, applied_once, the_same_again_is_already_applied, an_older_unit_is_fenced,
            any_other_link_is_fenced, a_zombie_with_cached_state_is_fenced, an_owner_with_other_code_is_fenced,
            lanes_are_independent, an_interrupted_commit_is_completed_by_its_retry,
            another_owner_replaces_an_interrupted_commit, two_interrupted_commits_do_not_mix,
            set_asides_come_before_what_they_concern, refused_rows_are_named, a_fenced_owner_hears_of_no_refusal,
            an_empty_batch_moves_progress, a_large_batch_is_taken, odd_texts_come_back_unchanged, entries_are_told, an_entry_closes_with_what_it_is_about,
        what_is_closed_stays_closed,
        }
    }
}
