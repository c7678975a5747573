//! `fleetlog repair`: entities folded anew from the log, by the lanes that own them.

use fleetlog_dead_letters::orders::RepairRequest;
use fleetlog_event::{EntityKey, UnitKey};
use fleetlog_projection::Version;
use serde::Serialize;

use super::hot::HotState;
use crate::{
    command_lanes::{FleetLanes, readers},
    config::Config,
    exit::{Code, Failure},
    lanes,
    orders::{self, WAIT_MS},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fleetlog repair swerk1.uNordFTS%2F0001\n  \
                        fleetlog repair --site werk1 --projection unit-status\n\n\
                        The state is folded again from the first event of the log, and written with the next revision. Rows of \
                        history are no states: they are not touched.\nExit code 1 if one is not known, or was not folded anew.")]
pub(crate) struct Repair {
    /// Units, as `s{site}.u{unit}`, and tasks
    #[arg(required_unless_present = "site")]
    subjects: Vec<String>,
    /// Every unit of this site that hot state knows
    #[arg(long)]
    site: Option<String>,
    /// Only in this projection
    #[arg(long, value_name = "ID")]
    projection: Option<String>,
    /// How long to wait without any progress, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = WAIT_MS)]
    wait_ms: u64,
}

/// An entity in one projection, before and after.
#[derive(Debug, Serialize)]
struct Row {
    subject: String,
    projection: &'static str,
    before: Option<Version>,
    after: Option<Version>,
    #[serde(skip)]
    is_well: bool,
}

pub(crate) async fn run(repair: &Repair, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    let subjects = subjects(repair, config).await?;
    let requests = requests(repair, config, &subjects)?;
    let (lanes, orders) = (FleetLanes::new(config)?, orders::kafka(config)?);
    let commander = orders::commander(&lanes, &orders, repair.wait_ms);
    let repaired = commander.repair(&requests).await.map_err(orders::failed)?;
    let rows: Vec<Row> = repaired
        .into_iter()
        .map(|repaired| Row {
            subject: repaired.key.to_string(),
            projection: lanes.projection(&repaired.group),
            is_well: repaired.is_well(),
            before: repaired.before,
            after: repaired.after,
        })
        .collect();
    print(&rows, format)?;
    verdict(&subjects, &rows)
}

async fn subjects(repair: &Repair, config: &Config) -> anyhow::Result<Vec<String>> {
    let mut subjects = repair.subjects.clone();
    if let Some(site) = &repair.site {
        let start = format!("s{}.u", fleetlog_event::encode_id(site));
        let mut hot = HotState::connect(config).await?;
        let mut units = hot.names("unit:", &start).await?;
        units.extend(hot.names("UnitConsensus@", &start).await?);
        if units.is_empty() {
            let message = format!("hot state knows no unit of site `{site}`");
            return Err(
                Failure::new(Code::Found, message, "fleetlog unit list shows those that there are").into()
            );
        }
        subjects.extend(units);
    }
    subjects.sort();
    subjects.dedup();
    Ok(subjects)
}

/// What is asked of the folds that have entities of these kinds.
fn requests(repair: &Repair, config: &Config, subjects: &[String]) -> anyhow::Result<Vec<RepairRequest>> {
    let (units, tasks): (Vec<&String>, Vec<&String>) =
        subjects.iter().partition(|subject| UnitKey::parse(subject).is_ok());
    let readers = readers(config);
    let mut requests = Vec::new();
    for described in lanes::chosen(repair.projection.as_slice())? {
        let of_kind = if described.topics == ["task"] { &tasks } else { &units };
        let group = wiring::group(config, &described);
        let reader = readers.iter().find(|reader| reader.group == group);
        if let Some(reader) = reader.filter(|_| described.folds && !of_kind.is_empty()) {
            let keys = of_kind.iter().map(|subject| EntityKey::from(subject.as_str())).collect();
            requests.push(RepairRequest { reader: reader.clone(), keys });
        }
    }
    if requests.is_empty() {
        let folds = fleetlog_projections::all().into_iter().filter(|described| described.folds);
        let folds: Vec<&str> = folds.map(|described| described.id).collect();
        let message = "none of these is an entity of that projection";
        return Err(Failure::new(
            Code::Usage,
            message,
            format!("projections with entities: {}", folds.join(", ")),
        )
        .into());
    }
    Ok(requests)
}

fn print(rows: &[Row], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&rows);
    }
    let version = |version: Option<Version>| {
        version.map_or_else(
            || "-".to_owned(),
            |version| format!("{}/{} revision {}", version.partition, version.next, version.revision),
        )
    };
    output::table(
        ["entity", "projection", "before", "after"],
        rows.iter().map(|row| {
            [row.subject.clone(), row.projection.to_owned(), version(row.before), version(row.after)]
        }),
    );
    Ok(())
}

/// Every entity has to be known to somebody, and what is known has to be folded anew.
fn verdict(subjects: &[String], rows: &[Row]) -> anyhow::Result<Code> {
    let is_known = |subject: &&String| rows.iter().any(|row| row.subject == **subject && row.after.is_some());
    if let Some(unknown) = subjects.iter().find(|subject| !is_known(subject)) {
        let message = format!("nobody knows `{unknown}`");
        let hint = "units are written `s{site}.u{unit}`: fleetlog unit list, fleetlog task list";
        return Err(Failure::new(Code::Found, message, hint).into());
    }
    if let Some(row) = rows.iter().find(|row| !row.is_well) {
        let message = format!("`{}` was not folded anew in {}", row.subject, row.projection);
        let hint =
            "the log of fleetlog run says why (`not folded anew`): the log may begin later than its events";
        return Err(Failure::new(Code::Found, message, hint).into());
    }
    Ok(Code::Done)
}
