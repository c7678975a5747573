//! PostgreSQL: whether history can be written, and stays.

use fleetlog_sink_timescale::{DatabaseFacts, Flavour, JobFacts, MigrateError, POSTGRES_VERSION_MIN, Plan};

use crate::{Check, Finding};

/// Makes `ALTER SYSTEM` count.
const RELOAD: &str = "SELECT pg_reload_conf()";
const WHO_IS_CONNECTED: &str =
    "SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2 ORDER BY 3 DESC";

/// Jobs wait for a worker, which is not worth a word for a while.
const JOB_OVERDUE_S_MAX: i64 = 900;

/// Limits of connections, and how each is raised.
const RAISE_SERVER: (&str, &str) =
    ("max_connections less those reserved", "raise the server's `max_connections` (needs a restart)");
const RAISE_USER: (&str, &str) = ("the user's limit", "raise it (`ALTER ROLE … CONNECTION LIMIT`)");
const RAISE_DATABASE: (&str, &str) =
    ("the database's limit", "raise it (`ALTER DATABASE … CONNECTION LIMIT`)");

/// What is known of the database, and what is asked of it.
#[derive(Debug)]
pub struct Facts {
    /// `postgres.url` without password, for messages and commands.
    pub url: String,
    /// What the database says of itself.
    pub database: DatabaseFacts,
    /// Where its schema is.
    pub schema: Result<Plan, MigrateError>,
    /// Connections that one process takes with all its projections running.
    pub connections_wanted: i64,
}

/// Judges the database.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        Check::PostgresReachable.ok(facts.url.clone()),
        version(&facts.database),
        encoding(&facts.database),
        writable(facts),
        migrations(&facts.schema),
        extension(facts),
        durability(facts),
        connections(facts),
        vacuum(facts),
    ];
    findings.extend(jobs(facts));
    findings
}

fn version(database: &DatabaseFacts) -> Finding {
    let version = database.get("server_version");
    match database.number("server_version_num") {
        Some(number) if number >= i64::from(POSTGRES_VERSION_MIN) => Check::PostgresVersion.ok(version),
        Some(_) => Check::PostgresVersion
            .error(format!("version {version}"))
            .cure("upgrade the server to PostgreSQL 14 or later"),
        None => Check::PostgresVersion.info("the server does not tell its version"),
    }
}

fn encoding(database: &DatabaseFacts) -> Finding {
    match database.get("server_encoding") {
        "UTF8" => Check::PostgresEncoding.ok("UTF8"),
        other => Check::PostgresEncoding
            .error(format!("the database's encoding is `{other}`"))
            .cure("make a database with UTF8 and point `postgres.url` at it")
            .by("createdb --encoding UTF8 --template template0 fleetlog"),
    }
}

fn writable(facts: &Facts) -> Finding {
    let database = &facts.database;
    if database.is_standby {
        return Check::PostgresWritable.error("the server is a standby and takes no writes").cure(
            "point `postgres.url` at the primary (`?target_session_attrs=read-write` with several hosts)",
        );
    }
    if database.get("default_transaction_read_only") == "on" {
        return Check::PostgresWritable
            .error("`default_transaction_read_only` is on: sessions take no writes")
            .cure("switch it off for fleetlog's user or database")
            .by(psql(
                facts,
                &[
                    // Or this session takes no writes itself.
                    "SET default_transaction_read_only = off",
                    "ALTER ROLE CURRENT_USER SET default_transaction_read_only = off",
                ],
            ));
    }
    Check::PostgresWritable.ok("the server takes writes")
}

fn migrations(schema: &Result<Plan, MigrateError>) -> Finding {
    match schema {
        Ok(plan) if plan.pending.is_empty() => {
            Check::PostgresMigrations.ok(format!("version {}", plan.version))
        }
        Ok(plan) => {
            let pending: Vec<String> =
                plan.pending.iter().map(|m| format!("{:04}_{}", m.version, m.name)).collect();
            Check::PostgresMigrations
                .error(format!("the schema is at version {}, missing: {}", plan.version, pending.join(", ")))
                .cure("bring the schema up to date")
                .by("fleetlog migrate")
        }
        Err(error @ MigrateError::Newer { .. }) => Check::PostgresMigrations
            .error(error.to_string())
            .cure("run the fleetlog that migrated it, or a later one"),
        Err(error) => {
            Check::PostgresMigrations.error(error.to_string()).cure("see the message; nothing was changed")
        }
    }
}

fn extension(facts: &Facts) -> Finding {
    let flavour = facts.schema.as_ref().ok().filter(|plan| plan.version > 0).map(|plan| plan.flavour);
    match (&facts.database.timescale, &facts.database.timescale_available, flavour) {
        (None, _, Some(Flavour::Timescale)) => Check::PostgresExtension
            .error("the tables are hypertables, and the extension is not in the database")
            .cure("restore the extension at the version that the backup was made with")
            .by(psql(facts, &["CREATE EXTENSION timescaledb"])),
        (Some(version), _, Some(Flavour::Plain)) => Check::PostgresExtension.info(format!(
            "TimescaleDB {version} is in the database, and the tables are plain ones: they were made before it came"
        )),
        (Some(version), ..) => Check::PostgresExtension.ok(format!("TimescaleDB {version}")),
        (None, Some(version), None) => Check::PostgresExtension
            .info(format!("TimescaleDB {version} can be put into the database; `fleetlog migrate` does it")),
        (None, available, _) => {
            let why = if available.is_some() { "is not in the database" } else { "is not on the server" };
            Check::PostgresExtension.info(format!("TimescaleDB {why}: history is in plain partitioned tables"))
        }
    }
}

fn durability(facts: &Facts) -> Finding {
    let off = |name: &str| facts.database.get(name) == "off";
    let alter = |name: &str| psql(facts, &[&format!("ALTER SYSTEM SET {name} = on"), RELOAD]);
    if off("fsync") || off("full_page_writes") {
        let name = if off("fsync") { "fsync" } else { "full_page_writes" };
        return Check::PostgresDurability
            .error(format!("`{name}` is off: a crash of the host may damage the database"))
            .cure(format!("switch `{name}` on"))
            .by(alter(name));
    }
    match facts.database.get("synchronous_commit") {
        "off" => Check::PostgresDurability
            .warning("`synchronous_commit` is off: a crash loses commits that were answered")
            .cure("switch it on; with batches of thousands of rows it costs little")
            .by(alter("synchronous_commit")),
        value => Check::PostgresDurability.ok(format!("fsync on, synchronous_commit {value}")),
    }
}

fn connections(facts: &Facts) -> Finding {
    let database = &facts.database;
    let Some(of_server) = database.number("max_connections") else {
        return Check::PostgresConnections.info("the server does not tell its max_connections");
    };
    let reserved = ["superuser_reserved_connections", "reserved_connections"];
    let reserved: i64 = reserved.iter().filter_map(|name| database.number(name)).sum();
    let of_server = (of_server - reserved, database.connections, RAISE_SERVER);
    let others = [
        database.connections_max_of_user.map(|limit| (limit, database.connections_of_user, RAISE_USER)),
        database
            .connections_max_of_database
            .map(|limit| (limit, database.connections_of_database, RAISE_DATABASE)),
    ];
    let tightest = others.into_iter().flatten().fold(of_server, |tightest, limit| {
        let left = |(limit, used, _): (i64, i64, _)| limit - used;
        if left(limit) < left(tightest) { limit } else { tightest }
    });
    let (limit, used, (name, raise)) = tightest;
    let wanted = facts.connections_wanted;
    let found = format!(
        "a process takes up to {wanted} (`postgres.connections_max` for each SQL projection, and two), {used} are in \
         use, {limit} are allowed ({name})"
    );
    let cure = format!("lower `postgres.connections_max`, or {raise}");
    if wanted > limit {
        Check::PostgresConnections.error(found).cure(cure)
    } else if wanted > limit - used {
        Check::PostgresConnections
            .warning(format!("{found}: one more process may not get all of its own"))
            .cure(cure)
            .by(psql(facts, &[WHO_IS_CONNECTED]))
    } else {
        Check::PostgresConnections.ok(found)
    }
}

fn vacuum(facts: &Facts) -> Finding {
    if facts.database.get("autovacuum") == "off" {
        return Check::PostgresVacuum
            .warning("autovacuum is off")
            .cure("switch it on")
            .by(psql(facts, &["ALTER SYSTEM SET autovacuum = on", RELOAD]));
    }
    Check::PostgresVacuum.ok("autovacuum is on")
}

/// Without TimescaleDB there are none.
fn jobs(facts: &Facts) -> Option<Finding> {
    let jobs = &facts.database.jobs;
    if let Some(why) = &facts.database.jobs_unseen {
        return Some(
            Check::PostgresUnseen
                .warning(why.clone())
                .cure("let fleetlog's user read the views of schema `timescaledb_information`"),
        );
    }
    if jobs.is_empty() {
        return None;
    }
    if jobs.iter().all(|job| job.runs == 0) {
        return Some(
            Check::PostgresJobs
                .warning(format!("none of TimescaleDB's {} jobs has ever run", jobs.len()))
                .cure(
                    "give the server enough `timescaledb.max_background_workers` and `max_worker_processes`; \
                     after a restore a superuser may have to start them",
                )
                .by(psql(facts, &["SELECT _timescaledb_functions.start_background_workers()"])),
        );
    }
    let told: Vec<String> = jobs.iter().filter_map(undone).collect();
    if told.is_empty() {
        return Some(Check::PostgresJobs.ok(format!("TimescaleDB's {} jobs run", jobs.len())));
    }
    Some(
        Check::PostgresJobs
            .warning(format!("jobs of TimescaleDB leave their work undone: {}", told.join("; ")))
            .cure("see why in `timescaledb_information.job_errors` and the server's log; `CALL run_job(ID)` tries one at once")
            .by(psql(
                facts,
                &["SELECT job_id, start_time, err_message FROM timescaledb_information.job_errors ORDER BY start_time DESC LIMIT 20"],
            )),
    )
}

/// What is wrong with a job, if anything is.
fn undone(job: &JobFacts) -> Option<String> {
    let name = format!("{} ({} of `{}`)", job.id, job.procedure, job.of);
    match job.overdue_s {
        _ if !job.is_scheduled => Some(format!("{name} is switched off")),
        _ if job.has_failed => {
            Some(format!("{name} failed last time, and {} of {} times in all", job.failures, job.runs))
        }
        Some(overdue_s) if overdue_s > JOB_OVERDUE_S_MAX => {
            Some(format!("{name} should have begun {overdue_s} s ago"))
        }
        _ => None,
    }
}

/// The command that runs these statements.
fn psql(facts: &Facts, statements: &[&str]) -> String {
    let statements: Vec<String> = statements.iter().map(|sql| format!(" -c '{sql}'")).collect();
    format!("psql '{}'{}", facts.url, statements.concat())
}

#[cfg(test)]
mod tests {
    use fleetlog_sink_timescale::MIGRATIONS;

    use super::*;
    use crate::Severity;

    const GOOD: [(&str, &str); 7] = [
        ("server_version", "15.8"),
        ("server_version_num", "150008"),
        ("server_encoding", "UTF8"),
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("max_connections", "100"),
        ("superuser_reserved_connections", "3"),
    ];

    fn facts(differ: &[(&str, &str)]) -> Facts {
        let lines = GOOD.iter().chain(differ).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Facts {
            url: "postgres://h/d".into(),
            database: DatabaseFacts {
                settings: lines.collect(),
                timescale: Some("2.23".into()),
                ..DatabaseFacts::default()
            },
            schema: Ok(Plan { flavour: Flavour::Timescale, version: 6, pending: vec![] }),
            connections_wanted: 25,
        }
    }

    fn wrong(facts: &Facts) -> Vec<(Severity, &'static str)> {
        let wrong = judge(facts).into_iter().filter(|found| found.severity != Severity::Ok);
        wrong.map(|found| (found.severity, found.check.code())).collect()
    }

    #[test]
    fn each_setting_has_its_own_code() {
        assert_eq!(wrong(&facts(&[])), []);
        for (name, value, severity, code) in [
            ("server_version_num", "130012", Severity::Error, "postgres-version"),
            ("server_encoding", "SQL_ASCII", Severity::Error, "postgres-encoding"),
            ("default_transaction_read_only", "on", Severity::Error, "postgres-writable"),
            ("fsync", "off", Severity::Error, "postgres-durability"),
            ("synchronous_commit", "off", Severity::Warning, "postgres-durability"),
            ("max_connections", "20", Severity::Error, "postgres-connections"),
            ("autovacuum", "off", Severity::Warning, "postgres-vacuum"),
        ] {
            assert_eq!(wrong(&facts(&[(name, value)])), [(severity, code)], "{name} {value}");
        }
    }

    #[test]
    fn a_schema_that_is_not_this_versions_names_the_way_out() {
        let mut older = facts(&[]);
        older.schema =
            Ok(Plan { flavour: Flavour::Timescale, version: 0, pending: MIGRATIONS.iter().collect() });
        let finding =
            judge(&older).into_iter().find(|found| found.check == Check::PostgresMigrations).unwrap();
        assert_eq!(finding.command.as_deref(), Some("fleetlog migrate"));
        assert!(finding.found.contains("0001_progress"), "{}", finding.found);
        let mut newer = facts(&[]);
        newer.schema = Err(MigrateError::Newer { found: 99, known: 6 });
        assert_eq!(wrong(&newer), [(Severity::Error, "postgres-migrations")]);
    }

    #[test]
    fn the_tightest_limit_of_connections_counts() {
        let mut limited = facts(&[]);
        limited.database.connections = 90;
        assert_eq!(wrong(&limited), [(Severity::Warning, "postgres-connections")]);
        limited.database.connections = 10;
        limited.database.connections_max_of_user = Some(60);
        assert_eq!(wrong(&limited), []);
        limited.database.connections_of_user = 40;
        assert_eq!(wrong(&limited), [(Severity::Warning, "postgres-connections")]);
        limited.database.connections_of_user = 0;
        limited.database.connections_max_of_user = Some(10);
        assert_eq!(wrong(&limited), [(Severity::Error, "postgres-connections")]);
    }

    #[test]
    fn a_standby_and_a_lost_extension_are_found_and_plain_tables_are_worth_knowing() {
        let mut standby = facts(&[]);
        standby.database.is_standby = true;
        assert_eq!(wrong(&standby), [(Severity::Error, "postgres-writable")]);
        let mut lost = facts(&[]);
        lost.database.timescale = None;
        assert_eq!(wrong(&lost), [(Severity::Error, "postgres-extension")]);
        lost.schema = Ok(Plan { flavour: Flavour::Plain, version: 6, pending: vec![] });
        assert_eq!(wrong(&lost), [(Severity::Info, "postgres-extension")]);
    }

    #[test]
    fn a_job_that_fails_is_late_or_switched_off_is_named() {
        let job = JobFacts {
            id: 1003,
            procedure: "policy_retention".into(),
            of: "telemetry".into(),
            is_scheduled: true,
            runs: 5,
            overdue_s: Some(30),
            ..JobFacts::default()
        };
        let found = |job: JobFacts| {
            let mut facts = facts(&[]);
            facts.database.jobs = vec![JobFacts { of: "unit_event".into(), ..job.clone() }, job];
            facts.database.jobs[0].has_failed = false;
            facts.database.jobs[0].is_scheduled = true;
            let finding = jobs(&facts).unwrap();
            (finding.severity, finding.found)
        };
        assert_eq!(found(job.clone()), (Severity::Ok, "TimescaleDB's 2 jobs run".into()));
        for (wrong, said) in [
            (
                JobFacts { is_scheduled: false, ..job.clone() },
                "1003 (policy_retention of `telemetry`) is switched off",
            ),
            (
                JobFacts { has_failed: true, failures: 2, ..job.clone() },
                "failed last time, and 2 of 5 times in all",
            ),
            (JobFacts { overdue_s: Some(1000), ..job.clone() }, "should have begun 1000 s ago"),
            (JobFacts { runs: 0, ..job.clone() }, "none of TimescaleDB's 2 jobs has ever run"),
        ] {
            let (severity, text) = found(wrong);
            assert!(severity == Severity::Warning && text.contains(said), "{said}: {text}");
        }
        assert_eq!(jobs(&facts(&[])), None);
        let mut hidden = facts(&[]);
        hidden.database.jobs_unseen = Some("permission denied".into());
        assert_eq!(wrong(&hidden), [(Severity::Warning, "postgres-unseen")]);
    }
}
