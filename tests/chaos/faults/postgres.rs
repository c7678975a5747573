//! Faults of PostgreSQL: killed, out of connections, locked, deadlocked, unserializable, its disk full.

use std::time::Duration;

use anyhow::Result;
use fleetlog_testkit::{PostgresServer, Stack};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{
    faults::{Faults, Ground, Scene, process::pause},
    fleet::Fleet,
};

/// How long a statement may take; half of it is what waiting for a lock may. Shorter than by default, as a run is short.
const TIMEOUT_MS: u64 = 2_000;
/// The server's disk: what an empty server, its log of writes and a run take, with room.
const DISK_BYTES: u64 = 512 << 20;
/// Connections to be had. Three projectors have two projections each that may take 8, and the run itself asks too.
const CONNECTIONS_MAX: &str = "max_connections=60";
const TABLES: [&str; 4] = ["telemetry", "unit_event", "task_event", "fleetlog_progress"];

/// What a trigger raises in the place of a server that has no such trouble of its own: serialization failures do not
/// happen at READ COMMITTED.
const TRIGGER: &str = "
    CREATE OR REPLACE FUNCTION chaos_unserializable() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.5 THEN
            RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
        END IF;
        RETURN NEW;
    END $$;
    CREATE OR REPLACE TRIGGER chaos BEFORE UPDATE ON fleetlog_progress
        FOR EACH ROW EXECUTE FUNCTION chaos_unserializable()";

/// A PostgreSQL of the run's own, on a disk of its own where such a one may be mounted.
pub(super) struct Postgres {
    server: PostgresServer,
    stack: Stack,
    has_small_disk: bool,
}

impl Postgres {
    pub(super) async fn start() -> Result<Self> {
        // A small log of writes: it is on the same disk, and must not be all of it.
        let options = [CONNECTIONS_MAX, "max_wal_size=64MB", "min_wal_size=32MB", "deadlock_timeout=200ms"];
        let on_small_disk = PostgresServer::start_on_small_disk(DISK_BYTES, &options).await?;
        let has_small_disk = on_small_disk.is_some();
        let server = match on_small_disk {
            Some(server) => server,
            None => PostgresServer::start_with(&options).await?,
        };
        let stack = Stack { postgres_url: server.url(), ..Stack::from_env() };
        Ok(Self { server, stack, has_small_disk })
    }

    /// One fault of this family.
    pub(super) async fn hit(&mut self, scene: &Scene, random: &mut StdRng) -> Result<&'static str> {
        match random.random_range(0..10) {
            0..=2 => self.crash(random).await,
            3 => self.take_all_connections(random).await,
            4 => Self::lock(scene, random).await,
            5 => Self::deadlock(scene).await,
            6 => Self::fail_to_serialize(scene, random).await,
            _ if self.has_small_disk => self.fill_disk(random).await,
            _ => self.crash(random).await.map(|_| "postgresql killed: no disk could be mounted to fill"),
        }
    }

    async fn crash(&mut self, random: &mut StdRng) -> Result<&'static str> {
        self.server.kill();
        pause(random, 0..2500).await;
        self.server.restart().await?;
        Ok("postgresql killed")
    }

    async fn take_all_connections(&self, random: &mut StdRng) -> Result<&'static str> {
        let taken = self.server.take_all_connections().await?;
        pause(random, 500..3000).await;
        drop(taken);
        Ok("postgresql out of connections")
    }

    /// A lock on a table for longer than anybody waits for one.
    async fn lock(scene: &Scene, random: &mut StdRng) -> Result<&'static str> {
        let mut holder = PgConnection::connect(&scene.database_url).await?;
        let table = TABLES.choose(random).copied().unwrap_or_default();
        holder.execute(&*format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
        pause(random, TIMEOUT_MS / 2..TIMEOUT_MS * 2).await;
        holder.execute("ROLLBACK").await?;
        Ok("postgresql lock held")
    }

    /// Takes locks in the other order than lanes do, rows first and progress then, which the server has to break up: it
    /// ends one of the two, sometimes the lane.
    async fn deadlock(scene: &Scene) -> Result<&'static str> {
        let mut rival = PgConnection::connect(&scene.database_url).await?;
        let mut broken_up = false;
        for _ in 0..10 {
            rival
                .execute("BEGIN; LOCK TABLE telemetry, unit_event, task_event IN SHARE ROW EXCLUSIVE MODE")
                .await?;
            // Longer than the server waits before it looks for a deadlock, so that the lanes come to wait for us first.
            tokio::time::sleep(Duration::from_millis(150)).await;
            let locked = rival.execute("LOCK TABLE fleetlog_progress IN ACCESS EXCLUSIVE MODE").await;
            broken_up |= locked.is_err();
            rival.execute("ROLLBACK").await?;
        }
        Ok(if broken_up { "postgresql deadlock, the other ended" } else { "postgresql deadlock or waiting" })
    }

    async fn fail_to_serialize(scene: &Scene, random: &mut StdRng) -> Result<&'static str> {
        let mut beside = PgConnection::connect(&scene.database_url).await?;
        beside.execute(TRIGGER).await?;
        pause(random, 500..2000).await;
        beside.execute("DROP TRIGGER chaos ON fleetlog_progress").await?;
        Ok("postgresql serialization failures")
    }

    async fn fill_disk(&mut self, random: &mut StdRng) -> Result<&'static str> {
        self.server.fill_disk()?;
        pause(random, 1500..4000).await;
        self.server.empty_disk()?;
        // One that could not write its log of writes gives up, and recovers from it when it is started again.
        if PgConnection::connect(&self.server.url()).await.is_err() {
            self.server.kill();
            self.server.restart().await?;
            return Ok("postgresql disk full, and down of it");
        }
        Ok("postgresql disk full")
    }
}

impl Faults for Postgres {
    fn ground(&self) -> Ground {
        let timeout = ("FLEETLOG_POSTGRES__TIMEOUT_MS".to_owned(), TIMEOUT_MS.to_string());
        Ground { projectors: vec![timeout], ..Ground::on(self.stack.clone()) }
    }

    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>> {
        async move { self.hit(&fleet.scene(), random).await }.boxed_local()
    }

    fn mixes_with_process(&self) -> bool {
        true
    }
}
