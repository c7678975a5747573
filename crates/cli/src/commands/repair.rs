//! `fleetlog repair`: entities folded anew from the log, by the lanes that own them.

use std::collections::BTreeMap;

use fleetlog_dead_letters::redrive::{LaneRef, Message, Reader, fold_anew};
use fleetlog_event::{EntityKey, EventId, UnitKey};
use fleetlog_projection::{FoldProjector, LaneId, Sink, Version};
use fleetlog_projections::{Described, for_each_projection};
use serde::Serialize;

use super::hot::HotState;
use crate::{
    command_lanes::{FleetLanes, readers},
    config::Config,
    exit::{Code, Failure},
    inbox::{self, WAIT_MS},
    lanes,
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
}

impl Row {
    /// Nobody knows it, or its state was folded anew.
    fn is_well(&self) -> bool {
        match (self.before, self.after) {
            (None, None) => true,
            (before, Some(after)) => before.is_none_or(|before| after.revision > before.revision),
            (Some(_), None) => false,
        }
    }
}

/// A fold that has entities of the asked kind, and the entities.
struct Asked {
    described: Described,
    reader: Reader,
    keys: Vec<EntityKey>,
}

pub(crate) async fn run(repair: &Repair, config: &Config, format: Format) -> anyhow::Result<Code> {
    wiring::admin(config).await?;
    let subjects = subjects(repair, config).await?;
    let asked = asked(repair, config, &subjects)?;
    let logs = inbox::logs(config, asked.iter().map(|asked| asked.reader.topic.as_str())).await?;
    let job = EventId::now_v7().to_string();
    let mut sent: Vec<(usize, Message, EntityKey)> = Vec::new();
    for (n, asked) in asked.iter().enumerate() {
        let facts = logs[&asked.reader.topic];
        sent.extend(
            asked.keys.iter().map(|key| (n, fold_anew(&asked.reader, facts, key.clone(), &job), key.clone())),
        );
    }
    let before = versions(config, &asked, &sent).await?;
    let messages: Vec<Message> = sent.iter().map(|(_, message, _)| message.clone()).collect();
    inbox::send_and_wait(config, &FleetLanes::new(config)?, &messages, repair.wait_ms).await?;
    let after = versions(config, &asked, &sent).await?;
    let rows: Vec<Row> = sent
        .iter()
        .zip(before.into_iter().zip(after))
        .map(|((n, _, key), (before, after))| Row {
            subject: key.to_string(),
            projection: asked[*n].described.id,
            before,
            after,
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

/// The folds that have entities of these kinds.
fn asked(repair: &Repair, config: &Config, subjects: &[String]) -> anyhow::Result<Vec<Asked>> {
    let (units, tasks): (Vec<&String>, Vec<&String>) =
        subjects.iter().partition(|subject| UnitKey::parse(subject).is_ok());
    let readers = readers(config);
    let mut asked = Vec::new();
    for described in lanes::chosen(repair.projection.as_slice())? {
        let of_kind = if described.topics == ["task"] { &tasks } else { &units };
        let group = wiring::group(config, &described);
        let reader = readers.iter().find(|reader| reader.group == group);
        if let Some(reader) = reader.filter(|_| described.folds && !of_kind.is_empty()) {
            let keys = of_kind.iter().map(|subject| EntityKey::from(subject.as_str())).collect();
            asked.push(Asked { described, reader: reader.clone(), keys });
        }
    }
    if asked.is_empty() {
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
    Ok(asked)
}

/// The versions that are stored, in the order of what is sent.
async fn versions(
    config: &Config,
    asked: &[Asked],
    sent: &[(usize, Message, EntityKey)],
) -> anyhow::Result<Vec<Option<Version>>> {
    let mut found: BTreeMap<(usize, &EntityKey), Option<Version>> = BTreeMap::new();
    for (n, asked) in asked.iter().enumerate() {
        let mut by_lane: BTreeMap<&LaneRef, Vec<&EntityKey>> = BTreeMap::new();
        for (_, message, key) in sent.iter().filter(|(of, ..)| *of == n) {
            by_lane.entry(&message.lane).or_default().push(key);
        }
        for (lane, keys) in by_lane {
            let id = lanes::lane_id(&asked.described, &lane.topic, lane.partition);
            let versions = stored(config, &asked.described, &id, &keys).await?;
            found.extend(keys.into_iter().zip(versions).map(|(key, version)| ((n, key), version)));
        }
    }
    Ok(sent.iter().map(|(n, _, key)| found.get(&(*n, key)).copied().flatten()).collect())
}

async fn stored(
    config: &Config,
    described: &Described,
    lane: &LaneId,
    keys: &[&EntityKey],
) -> anyhow::Result<Vec<Option<Version>>> {
    macro_rules! read {
        (fold, $projector:expr) => {
            if let Some(homes) = homes(&$projector, described, keys) {
                return of(&wiring::redis_sink(config)?, lane, &homes, config, described).await;
            }
        };
        (ledger, $projector:expr) => {
            if let Some(homes) = homes(&$projector, described, keys) {
                let database = wiring::database(config)?;
                return of(&sink_of(&$projector, &database), lane, &homes, config, described).await;
            }
        };
        (map, $projector:expr) => {};
        (letters, $projector:expr) => {};
    }
    for_each_projection!(read);
    anyhow::bail!("`{}` folds nothing", described.id)
}

fn homes<P: FoldProjector>(projector: &P, described: &Described, keys: &[&EntityKey]) -> Option<Vec<String>> {
    (P::ID == described.id).then(|| keys.iter().map(|key| projector.home(key)).collect())
}

fn sink_of<P: FoldProjector<Write: fleetlog_projection::EntityRow>>(
    _: &P,
    database: &fleetlog_sink_timescale::Database,
) -> fleetlog_sink_timescale::SqlSink<P::Write> {
    database.fold_sink()
}

async fn of<S: Sink>(
    sink: &S,
    lane: &LaneId,
    homes: &[String],
    config: &Config,
    described: &Described,
) -> anyhow::Result<Vec<Option<Version>>> {
    let stored =
        sink.read(lane, homes).await.map_err(|error| lanes::unreachable(config, described, error))?;
    Ok(stored.states.into_iter().map(|state| state.map(|state| state.version)).collect())
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
    if let Some(row) = rows.iter().find(|row| !row.is_well()) {
        let message = format!("`{}` was not folded anew in {}", row.subject, row.projection);
        let hint =
            "the log of fleetlog run says why (`not folded anew`): the log may begin later than its events";
        return Err(Failure::new(Code::Found, message, hint).into());
    }
    Ok(Code::Done)
}
