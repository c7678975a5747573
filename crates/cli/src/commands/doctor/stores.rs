//! The areas that Redis, PostgreSQL and this host tell of: the stores, their clocks, free space.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fleetlog_doctor::{
    Area, Check, Finding,
    clock::{self, Reading},
    disk::{self, Space},
    postgres, redis,
};
use fleetlog_projection::SinkError;
use fleetlog_projections::SinkKind;
use fleetlog_sink_redis::{RedisFacts, RedisSink};
use fleetlog_sink_timescale::{Database, DatabaseFacts, Migrator};

use super::{Away, Looks};
use crate::{commands::migrate, config, config::Config, instance, lanes, wiring};

/// Looks at those areas that are wanted.
pub(super) async fn look(looks: &Looks<'_>, away: &mut Away) -> Vec<Finding> {
    let config = limited(looks);
    let mut findings = Vec::new();
    let redis = look_at_redis(looks, &config, away, &mut findings).await;
    let postgres = look_at_postgres(looks, &config, away, &mut findings).await;
    if looks.wants(Area::Disk) {
        findings.push(state_disk(&config));
        findings.extend(redis.as_ref().map(redis_disk));
        findings.extend(postgres.as_ref().map(postgres_disk));
    }
    findings
}

/// Areas that say less where a store is away.
fn dependent(looks: &Looks<'_>) -> impl Iterator<Item = Area> {
    [Area::Clock, Area::Disk].into_iter().filter(|area| looks.wants(*area))
}

/// Its areas, and what it says of itself, where that is needed and it answers.
async fn look_at_redis(
    looks: &Looks<'_>,
    config: &Config,
    away: &mut Away,
    findings: &mut Vec<Finding>,
) -> Option<RedisFacts> {
    if !looks.wants(Area::Redis) && dependent(looks).next().is_none() {
        return None;
    }
    match reach_redis(looks, config).await {
        Ok((sink, facts)) => {
            let url = config::redact_url(&config.redis.url);
            findings.extend(looks.area(Area::Redis, async { Ok(redis::judge(&facts, &url)) }).await);
            findings.extend(looks.area(Area::Clock, redis_clock(&sink)).await);
            Some(facts)
        }
        Err(finding) => {
            away.note(finding.check, dependent(looks));
            findings.push(finding);
            None
        }
    }
}

/// The same of PostgreSQL.
async fn look_at_postgres(
    looks: &Looks<'_>,
    config: &Config,
    away: &mut Away,
    findings: &mut Vec<Finding>,
) -> Option<DatabaseFacts> {
    if !looks.wants(Area::Postgres) && dependent(looks).next().is_none() {
        return None;
    }
    match reach_postgres(looks, config).await {
        Ok((database, facts)) => {
            let judged = judge_postgres(config, &database, facts.clone());
            findings.extend(looks.area(Area::Postgres, judged).await);
            findings.extend(looks.area(Area::Clock, postgres_clock(&database)).await);
            Some(facts)
        }
        Err(finding) => {
            away.note(finding.check, dependent(looks));
            findings.push(finding);
            None
        }
    }
}

/// The settings, with the patience of this command.
fn limited(looks: &Looks<'_>) -> Config {
    let mut config = looks.config.clone();
    let limit_ms = u64::try_from(looks.patience().as_millis()).unwrap_or(u64::MAX);
    config.redis.timeout_ms = config.redis.timeout_ms.min(limit_ms);
    config.postgres.timeout_ms = config.postgres.timeout_ms.min(limit_ms);
    config
}

async fn reach_redis(looks: &Looks<'_>, config: &Config) -> Result<(RedisSink, RedisFacts), Finding> {
    let url = config::redact_url(&config.redis.url);
    let away = |why: String| {
        Check::RedisReachable
            .error(format!("redis at {url} does not answer: {why}"))
            .cure("start it, or correct `redis.url` (user and password are part of it)")
            .by(format!("redis-cli -u {url} PING"))
    };
    let sink = wiring::redis_sink(config).map_err(|error| away(format!("{error:#}")))?;
    let facts = looks.bounded(async { Ok(sink.facts().await?) }).await.map_err(away)?;
    Ok((sink, facts))
}

async fn reach_postgres(looks: &Looks<'_>, config: &Config) -> Result<(Database, DatabaseFacts), Finding> {
    let url = config::redact_url(&config.postgres.url);
    let away = |why: String| {
        Check::PostgresReachable
            .error(format!("postgresql at {url} does not answer: {why}"))
            .cure("start it, or correct `postgres.url` (user, password and database are part of it)")
            .by(format!("psql '{url}' -c 'SELECT 1'"))
    };
    let database = wiring::database(config).map_err(|error| away(format!("{error:#}")))?;
    let facts = looks.bounded(async { Ok(database.facts().await?) }).await.map_err(away)?;
    Ok((database, facts))
}

async fn judge_postgres(
    config: &Config,
    database: &Database,
    facts: DatabaseFacts,
) -> anyhow::Result<Vec<Finding>> {
    let of_sql = lanes::chosen(&config.run.projections)?.into_iter().filter(|p| p.sink == SinkKind::History);
    // Each projection has connections of its own; one is for making partitions, one for the figures on /metrics.
    let connections = i64::from(config.postgres.connections_max) * i64::try_from(of_sql.count())? + 2;
    Ok(postgres::judge(&postgres::Facts {
        url: config::redact_url(&config.postgres.url),
        database: facts,
        schema: Migrator::new(database).plan().await,
        connections_wanted: connections,
    }))
}

async fn redis_clock(sink: &RedisSink) -> anyhow::Result<Vec<Finding>> {
    let reading = read(sink.time_ms()).await?;
    Ok(vec![clock::judge_store(Check::ClockRedis, "redis", reading)])
}

async fn postgres_clock(database: &Database) -> anyhow::Result<Vec<Finding>> {
    let reading = read(database.time_ms()).await?;
    Ok(vec![clock::judge_store(Check::ClockPostgres, "postgresql", reading)])
}

/// Their clock between two looks at ours.
async fn read(asked: impl Future<Output = Result<i64, SinkError>>) -> Result<Reading, SinkError> {
    let before_ms = migrate::now().0;
    let theirs_ms = asked.await?;
    Ok(Reading { theirs_ms, before_ms, after_ms: migrate::now().0 })
}

fn state_disk(config: &Config) -> Finding {
    if !config.run.instance.is_empty() {
        return Check::DiskState.ok("`run.instance` names this process, so no folder is needed");
    }
    let folder = nearest(&instance::folder(config));
    let is_writable = rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK).is_ok();
    disk::judge_state(&folder.display().to_string(), space(&folder), is_writable)
}

fn redis_disk(facts: &RedisFacts) -> Finding {
    let process = facts.number("process_id").and_then(|id| i32::try_from(id).ok());
    let here = process.is_some_and(|id| runs_here(id, &["redis", "valkey", "keydb"]));
    server_disk(Check::DiskRedis, "redis", here, facts.folder.as_deref(), "")
}

fn postgres_disk(facts: &DatabaseFacts) -> Finding {
    let here = runs_here(facts.process, &["postgres"]);
    let folder = Some(facts.get("data_directory")).filter(|folder| !folder.is_empty());
    let known = format!("the database takes {:.1} MB", facts.bytes as f64 / 1e6);
    server_disk(Check::DiskPostgres, "postgresql", here, folder, &known)
}

fn server_disk(check: Check, whose: &str, here: bool, folder: Option<&str>, known: &str) -> Finding {
    let Some(folder) = folder else {
        return disk::unseen(check, whose, "it does not tell this user where its files are", known);
    };
    if !here {
        return disk::unseen(check, whose, "it runs on another host, or in a container", known);
    }
    match space(Path::new(folder)) {
        Some(space) => disk::judge_server(check, whose, folder, space),
        None => disk::unseen(check, whose, &format!("this user may not look at `{folder}`"), known),
    }
}

/// Whether the process of that number on this host is one of these programs: a server on another host, or in a container,
/// numbers its processes in its own way.
fn runs_here(process: i32, programs: &[&str]) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    programs.iter().any(|program| name.starts_with(program))
}

/// The folder, or the nearest above it that exists.
fn nearest(folder: &Path) -> PathBuf {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

pub(super) fn space(folder: &Path) -> Option<Space> {
    let told = rustix::fs::statvfs(folder).ok()?;
    let unit = told.f_frsize;
    Some(Space { free: told.f_bavail.checked_mul(unit)?, total: told.f_blocks.checked_mul(unit)? })
}
