//! `fleetlog emit EVENT --json`: events by hand, or by another program.

use fleetlog_event::{DecodeOne, Event, EventId, EventSet, FleetEvent};
use fleetlog_producer::EventProducer;
use serde_json::{Map, Value, json};

use crate::{
    commands::migrate::now,
    config::Config,
    exit::{Code, Failure},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog emit Connected --json '{\"meta\":{\"site_uid\":\"504\",\"unit_uid\":\"1010020021\"}}'\n  \
                        fleetlog emit task.Created --json - < created.json\n\n\
                        Of `meta`, event_id, occurred_at (now), recorded_at (now) and source are filled in where they are missing.\n\
                        Fields of each event: fleetlog schemas show EVENT"
)]
pub(crate) struct Emit {
    /// The event's type: `Connected`, `robot.Connected` or `fleetlog.robot.Connected`
    event: String,
    /// Its content; `-` reads it from standard input, as many of them as there are, one after the other
    #[arg(long)]
    json: String,
}

/// Reads an event out of JSON.
struct FromJson(Value);

impl DecodeOne for FromJson {
    type Error = serde_json::Error;

    fn one<E: Event>(self) -> Result<E, serde_json::Error> {
        let event: E = serde_json::from_value(self.0.clone())?;
        // A field that the struct does not have is a typing error here, not a newer version's.
        match unknown_field(&self.0, &serde_json::to_value(&event)?) {
            None => Ok(event),
            Some(path) => Err(serde::de::Error::custom(format!("there is no field `{path}`"))),
        }
    }
}

/// The path of the first field of `given` that `taken` does not have.
fn unknown_field(given: &Value, taken: &Value) -> Option<String> {
    let (Value::Object(given), Value::Object(taken)) = (given, taken) else { return None };
    given.iter().find_map(|(name, value)| match taken.get(name) {
        None => Some(name.clone()),
        Some(inner) => unknown_field(value, inner).map(|path| format!("{name}.{path}")),
    })
}

/// The full name of an event type, written in full or shortened as long as it is unique.
pub(crate) fn full_name(text: &str) -> anyhow::Result<&'static str> {
    let names = || FleetEvent::types().map(|event| event.name);
    let found: Vec<&str> =
        names().filter(|name| *name == text || name.ends_with(&format!(".{text}"))).collect();
    match found[..] {
        [name] => names().find(|known| *known == name).ok_or_else(|| anyhow::anyhow!("no event `{name}`")),
        [] => {
            let known: Vec<&str> = names().map(|name| name.trim_start_matches("fleetlog.")).collect();
            Err(Failure::new(
                Code::Usage,
                format!("there is no event `{text}`"),
                format!("events: {}", known.join(", ")),
            )
            .into())
        }
        _ => Err(Failure::new(
            Code::Usage,
            format!("`{text}` is ambiguous"),
            format!("one of {}", found.join(", ")),
        )
        .into()),
    }
}

pub(crate) async fn run(emit: &Emit, config: &Config, format: Format) -> anyhow::Result<Code> {
    let name = full_name(&emit.event)?;
    let wrong = |what: String| {
        Failure::new(Code::Usage, format!("{name}: {what}"), format!("fleetlog schemas show {}", emit.event))
    };
    let event = |json: serde_json::Result<Value>| -> anyhow::Result<FleetEvent> {
        let mut json = json.map_err(|error| wrong(format!("no JSON: {error}")))?;
        complete(&mut json);
        let event = FleetEvent::decode(name, FromJson(json))
            .ok_or_else(|| wrong("not in the catalogue".to_owned()))?
            .map_err(|error| wrong(error.to_string()))?;
        event.validate().map_err(|reject| wrong(reject.to_string()))?;
        Ok(event)
    };
    let mut jsons: Box<dyn Iterator<Item = serde_json::Result<Value>>> = if emit.json == "-" {
        Box::new(serde_json::Deserializer::from_reader(std::io::stdin().lock()).into_iter())
    } else {
        Box::new(std::iter::once(serde_json::from_str(&emit.json)))
    };
    let nothing = || wrong("no JSON: there is nothing on standard input".to_owned());
    // What is wrong with the event is told before a cluster is asked for.
    let mut next = Some(event(jsons.next().ok_or_else(nothing)?)?);
    wiring::admin(config).await?;
    let producer = wiring::producer(config)?;
    while let Some(event_now) = next {
        send(&producer, name, event_now, format).await?;
        next = jsons.next().map(&event).transpose()?;
    }
    Ok(Code::Done)
}

async fn send(producer: &EventProducer, name: &str, event: FleetEvent, format: Format) -> anyhow::Result<()> {
    let (key, event_id) = (event.entity(), event.meta().event_id);
    let delivered = producer.send_any(event).await?.await?;
    match format {
        Format::Json => output::json(&json!({
            "event_id": event_id.to_string(), "key": key.as_str(), "topic": delivered.topic.as_ref(),
            "partition": delivered.partition, "offset": delivered.offset,
        }))?,
        Format::Table => output::line(&format!("{name} {event_id} of {key} is at {delivered}")),
    }
    Ok(())
}

/// Fills in what every event needs and a person at a prompt does not want to write.
fn complete(json: &mut Value) {
    let Value::Object(event) = json else { return };
    let meta = event.entry("meta").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(meta) = meta else { return };
    meta.entry("event_id").or_insert_with(|| EventId::now_v7().to_string().into());
    for time in ["occurred_at", "recorded_at"] {
        meta.entry(time).or_insert_with(|| now().0.into());
    }
    meta.entry("source").or_insert_with(|| concat!("fleetlog-emit/", env!("CARGO_PKG_VERSION")).into());
}
