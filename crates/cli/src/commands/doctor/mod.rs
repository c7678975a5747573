//! `fleetlog doctor`: what is wrong with servers, topics, schemas and groups, why it matters, what to do.
//!
//! Facts are gathered here, area by area; crate `doctor` judges them. It changes nothing, joins no group, and ends in
//! bounded time: a server that does not answer is a finding, and the other areas are looked at all the same.

mod kafka;
mod show;
mod stores;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetlog_doctor::{Area, Check, Finding, Report};

use crate::{
    config::Config,
    exit::{self, Code},
    output::{self, Format},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog doctor\n  fleetlog doctor --area redis,postgres\n  fleetlog doctor --strict --format json\n\n\
                  Exit code 0: no error; 1: an error was found, or with --strict a warning. Every code is explained in \
                  docs/doctor.md."
)]
pub(crate) struct Doctor {
    /// Only these areas (separated by commas): kafka, topics, schemas, records, groups, redis, postgres, clock, disk
    #[arg(long, value_delimiter = ',', value_name = "AREA", value_parser = area)]
    area: Vec<Area>,
    /// Take warnings for errors: exit code 1
    #[arg(long)]
    strict: bool,
    /// Show each thing that is as it should be, too
    #[arg(long)]
    all: bool,
    /// How long one area may take
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// How many of the newest records of each partition are looked at
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    records: i64,
}

fn area(name: &str) -> Result<Area, String> {
    let names: Vec<&str> = Area::ALL.iter().map(|area| area.as_str()).collect();
    Area::parse(name).ok_or_else(|| format!("there is no such area; areas: {}", names.join(", ")))
}

pub(crate) async fn run(doctor: &Doctor, config: &Config, format: Format) -> anyhow::Result<Code> {
    let chosen: BTreeSet<Area> =
        if doctor.area.is_empty() { Area::ALL.into() } else { doctor.area.iter().copied().collect() };
    let looks =
        Looks { config, chosen, limit: Duration::from_secs(doctor.timeout), records_max: doctor.records };
    // One after the other: making Kafka clients holds up the thread, and servers under trouble are not asked in a crowd.
    let mut away = Away::default();
    let mut findings = kafka::look(&looks, &mut away).await;
    findings.extend(stores::look(&looks, &mut away).await);
    findings.extend(away.findings());
    let report = Report::new(findings);
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => output::line(&show::text(&report, doctor.all)),
    }
    Ok(if report.is_fine(doctor.strict) { Code::Done } else { Code::Found })
}

/// What is to be looked at, and how long that may take.
struct Looks<'a> {
    config: &'a Config,
    chosen: BTreeSet<Area>,
    /// For one area.
    limit: Duration,
    records_max: i64,
}

impl Looks<'_> {
    fn wants(&self, area: Area) -> bool {
        self.chosen.contains(&area)
    }

    /// For one call: somewhat less than for its area, so that a client has the time to say what it met.
    fn patience(&self) -> Duration {
        self.limit * 3 / 4
    }

    /// What an area's look found; its failure is a finding too.
    async fn area(
        &self,
        area: Area,
        look: impl Future<Output = anyhow::Result<Vec<Finding>>>,
    ) -> Vec<Finding> {
        if !self.wants(area) {
            return Vec::new();
        }
        match self.bounded(look).await {
            Ok(findings) => findings,
            Err(why) => vec![unseen(area.unseen().error(format!("this area could not be looked at: {why}")))],
        }
    }

    /// The answer, or why there is none.
    async fn bounded<T>(&self, look: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
        match tokio::time::timeout(self.limit, look).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(exit::text(&error)),
            Err(_) => Err(format!("no answer within {} s", self.limit.as_secs())),
        }
    }
}

/// A finding of an area that could not be looked at, with what to do.
fn unseen(finding: Finding) -> Finding {
    finding.cure("if it says that this user may not, grant it the right to describe; else ask again with a longer --timeout")
}

/// Which areas could not be looked at, or not all of them, and the findings that say which server is away.
#[derive(Default)]
struct Away(BTreeMap<Area, Vec<&'static str>>);

impl Away {
    /// These areas need that server.
    fn note(&mut self, server: Check, areas: impl IntoIterator<Item = Area>) {
        for area in areas {
            self.0.entry(area).or_default().push(server.code());
        }
    }

    /// One finding an area.
    fn findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(|(area, servers)| {
            let found =
                format!("what needs a server that is away was not looked at: see {}", servers.join(", "));
            area.unseen().warning(found).cure("ask again when that is mended")
        })
    }
}
