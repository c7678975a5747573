//! `fleetlog unit show`: a unit as it is now (hot state), with when each part was last heard, and what happened to it last
//! (history). Where one of the two stores is down, the other is shown and that is said.

use anyhow::Context;
use fleetlog_event::UnitKey;
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, Row};

use super::{
    history,
    hot::{Fields, HotState, field, object},
    migrate,
};
use crate::{
    config::Config,
    exit::{self, Code, Failure},
    output::{self, Format},
    when,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: fleetlog unit show swerk1.uNordFTS%2F0001\n\n\
                        Exit code 1 if neither hot state nor history knows the unit, 3 if one of them is down (the other is \
                        shown).")]
pub(crate) struct Show {
    /// The unit, as `s{site}.u{unit}`
    unit: String,
    /// How many of its last events to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i64).range(0..=10_000))]
    events: i64,
}

/// Members of a site that are looked at for a name like the one that nobody knows.
const NEAR_MEMBERS_MAX: isize = 100_000;
/// How many letters may differ in such a name, and how many of them are told.
const NEAR_LETTERS: usize = 2;
const NEAR_NAMES_MAX: usize = 5;

/// A unit in hot state.
#[derive(Debug, Default)]
struct Hot {
    status: Fields,
    telemetry: Fields,
}

/// A unit in history.
#[derive(Debug, Default)]
struct Past {
    /// Whether it knows the unit.
    known: bool,
    /// Its last events, in log order.
    events: Vec<Value>,
    /// Its row of view `fleet_now`; asked for only where hot state is down.
    now: Option<Map<String, Value>>,
}

/// Both stores' answers.
struct Unit<'a> {
    name: &'a str,
    hot: Result<Hot, String>,
    past: Result<Past, String>,
}

pub(crate) async fn run(show: &Show, config: &Config, format: Format) -> anyhow::Result<Code> {
    let key = UnitKey::parse(&show.unit)
        .map_err(|error| Failure::new(Code::Usage, error.to_string(), "fleetlog unit list"))?;
    let hot = read_hot(config, &show.unit).await.map_err(|error| exit::text(&error));
    let past = read_past(config, &key, show.events, hot.is_err()).await.map_err(|error| exit::text(&error));
    let unit = Unit { name: &show.unit, hot, past };
    if unit.is_unknown() {
        return Err(unknown(&unit, &key, config).await.into());
    }
    for (store, other, failure) in [
        ("hot state", "history", unit.hot.as_ref().err()),
        ("history", "hot state", unit.past.as_ref().err()),
    ] {
        if let Some(failure) = failure {
            eprintln!("warning: {store} cannot be read ({failure}); shown is {other} alone");
        }
    }
    match format {
        Format::Json => output::json(&unit.json())?,
        Format::Table => unit.print(),
    }
    Ok(if unit.hot.is_err() || unit.past.is_err() { Code::Unreachable } else { Code::Done })
}

async fn read_hot(config: &Config, unit: &str) -> anyhow::Result<Hot> {
    let mut hot = HotState::connect(config).await?;
    let status = hot.fields(&format!("unit:{unit}")).await?;
    let telemetry = hot.fields(&format!("UnitConsensus@{unit}")).await?;
    Ok(Hot { status, telemetry })
}

async fn read_past(config: &Config, unit: &UnitKey, events: i64, with_now: bool) -> anyhow::Result<Past> {
    let mut postgres = history::connect(config).await?;
    // One event tells whether it knows the unit, also where none is to be shown.
    let mut found = history::newest(&mut postgres, unit, events.max(1)).await?;
    let now = if with_now { read_now(&mut postgres, unit).await? } else { None };
    let known = !found.is_empty() || now.is_some();
    found.truncate(usize::try_from(events).unwrap_or(usize::MAX));
    Ok(Past { known, events: found, now })
}

async fn read_now(postgres: &mut PgConnection, unit: &UnitKey) -> anyhow::Result<Option<Map<String, Value>>> {
    let row =
        sqlx::query("SELECT row_to_json(n)::text FROM fleet_now n WHERE site_uid = $1 AND unit_uid = $2")
            .bind(&unit.site_uid)
            .bind(&unit.unit_uid)
            .fetch_optional(postgres)
            .await
            .context("reading view fleet_now; is it there? (fleetlog migrate)")?;
    let text: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}

impl Unit<'_> {
    fn is_unknown(&self) -> bool {
        let unknown_to_hot =
            self.hot.as_ref().map_or(true, |hot| hot.status.is_empty() && hot.telemetry.is_empty());
        unknown_to_hot && self.past.as_ref().map_or(true, |past| !past.known)
    }

    /// The last event that history has.
    fn last_event(&self) -> Option<&Value> {
        self.past.as_ref().ok()?.events.last()
    }

    fn json(&self) -> Value {
        let hot = self.hot.as_ref().ok();
        let part = |fields: Option<&Fields>| fields.map(|fields| object(fields.clone()));
        let heard = |fields: Option<&Fields>| {
            fields.map(|fields| field(fields, "recorded_at")).filter(|at| !at.is_empty())
        };
        let (status, telemetry) = (hot.map(|hot| &hot.status), hot.map(|hot| &hot.telemetry));
        let mut shown = json!({
            "unit": self.name,
            "status": part(status),
            "last_telemetry": part(telemetry),
            "last_heard": {
                "status": heard(status),
                "last_telemetry": heard(telemetry),
                "events": self.last_event().map(|event| event["recorded_at"].clone()),
            },
            "events": self.past.as_ref().ok().map(|past| &past.events),
            "unavailable": { "hot_state": self.hot.as_ref().err(), "history": self.past.as_ref().err() },
        });
        if let Ok(Past { now: Some(now), .. }) = &self.past {
            shown["by_history"] = Value::Object(now.clone());
        }
        shown
    }

    fn print(&self) {
        if let Ok(hot) = &self.hot {
            for (part, fields) in [("status", &hot.status), ("last telemetry", &hot.telemetry)] {
                if fields.is_empty() {
                    eprintln!("{part}: hot state knows nothing");
                    continue;
                }
                let heard = last_heard(&field(fields, "recorded_at"));
                output::table(
                    [part, &heard],
                    fields.iter().map(|(name, value)| [name.clone(), value.clone()]),
                );
            }
        }
        let Ok(past) = &self.past else { return };
        if let Some(now) = &past.now {
            let heard = last_heard(now.get("recorded_at").and_then(Value::as_str).unwrap_or_default());
            let told = now.iter().filter(|(_, value)| !value.is_null());
            let row = |(name, _): (&String, &Value)| {
                [name.clone(), history::text(&Value::Object(now.clone()), name)]
            };
            output::table(["by history", &heard], told.map(row));
        }
        if !past.events.is_empty() {
            let row = |event: &Value| {
                let position = format!("{}:{}", event["log_partition"], event["log_offset"]);
                let column = |name| history::text(event, name);
                [
                    column("recorded_at"),
                    column("occurred_at"),
                    column("event_type"),
                    position,
                    history::what(event),
                ]
            };
            output::table(
                ["recorded_at", "occurred_at", "last events", "position", "what"],
                past.events.iter().map(row),
            );
        }
    }
}

/// When a part was last heard, and how long ago that is by this machine's clock.
fn last_heard(recorded_at: &str) -> String {
    let Ok(time) = recorded_at.parse::<jiff::Timestamp>() else { return format!("last heard {recorded_at}") };
    let elapsed_ms = migrate::now().0.saturating_sub(time.as_millisecond());
    format!("last heard {time:.3}, {}", when::ago(elapsed_ms))
}

/// Nobody knows the unit; or one store does not, and the other cannot be asked.
async fn unknown(unit: &Unit<'_>, key: &UnitKey, config: &Config) -> Failure {
    let name = unit.name;
    match (&unit.hot, &unit.past) {
        (Err(hot), Err(past)) => Failure::new(
            Code::Unreachable,
            format!("neither store can be read: {hot}; {past}"),
            "are they running?",
        ),
        (Err(failure), Ok(_)) => {
            let message = format!("history knows no unit `{name}`, and hot state cannot be read: {failure}");
            Failure::new(Code::Unreachable, message, "is Redis running, and is redis.url right?")
        }
        (Ok(_), Err(failure)) => {
            let message = format!("hot state knows no unit `{name}`, and history cannot be read: {failure}");
            Failure::new(Code::Unreachable, message, "is PostgreSQL running, and is postgres.url right?")
        }
        (Ok(_), Ok(_)) => {
            let near = near_names(name, key, config).await;
            let hint = if near.is_empty() {
                "fleetlog unit list shows what is there; fleetlog status shows whether the projections lag"
                    .to_owned()
            } else {
                format!("is it one of these? {}", near.join(", "))
            };
            Failure::new(Code::Found, format!("hot state and history know no unit `{name}`"), hint)
        }
    }
}

/// Units with a name like it: of the same site, a few letters other; of another site, the same number. Only what costs one
/// question to each store.
async fn near_names(name: &str, key: &UnitKey, config: &Config) -> Vec<String> {
    let mut near = same_number(key, config).await.unwrap_or_default();
    if let Ok(mut hot) = HotState::connect(config).await {
        let seen = hot.members(&format!("seen:{}", key.site_uid), NEAR_MEMBERS_MAX).await.unwrap_or_default();
        near.extend(nearest(name, seen));
    }
    near.truncate(NEAR_NAMES_MAX);
    near
}

/// Those of `names` that differ from `name` in few letters, the nearest first.
fn nearest(name: &str, names: Vec<String>) -> Vec<String> {
    let mut near: Vec<(usize, String)> = names
        .into_iter()
        .map(|other| (strsim::osa_distance(name, &other), other))
        .filter(|(distance, _)| *distance <= NEAR_LETTERS)
        .collect();
    near.sort();
    near.into_iter().map(|(_, other)| other).collect()
}

async fn same_number(key: &UnitKey, config: &Config) -> anyhow::Result<Vec<String>> {
    let mut postgres = history::connect(config).await?;
    let sites: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT site_uid FROM unit_event WHERE unit_uid = $1 ORDER BY 1 LIMIT 5")
            .bind(&key.unit_uid)
            .fetch_all(&mut postgres)
            .await?;
    Ok(sites.into_iter().map(|site| UnitKey::new(site, &key.unit_uid).to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_differ_in_few_letters() {
        let names = ["s504.u11", "s504.u12", "s504.u21", "s504.u1", "s504.u999"].map(str::to_owned).to_vec();
        assert_eq!(nearest("s504.u12", names), ["s504.u12", "s504.u1", "s504.u11", "s504.u21"]);
        assert_eq!(nearest("s1.u1", vec!["s504.u999".to_owned()]), Vec::<String>::new());
    }
}
