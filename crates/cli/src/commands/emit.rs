//! `fleetlog emit EVENT --json`: events by hand, or by another program.

use fleetlog_codec::by_hand::{self, Blanks};
use fleetlog_event::{EventId, EventSet, EventType, FleetEvent};
use fleetlog_producer::EventProducer;
use serde_json::{Value, json};

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
                        Fields of each event, what they have to be, and an example: fleetlog schemas describe EVENT"
)]
pub(crate) struct Emit {
    /// The event's type: `Connected`, `robot.Connected` or `fleetlog.robot.Connected`
    event: String,
    /// Its content; `-` reads it from standard input, as many of them as there are, one after the other
    #[arg(long)]
    json: String,
}

/// The event type of that name, written in full or shortened as long as it is unique.
pub(crate) fn event_type(text: &str) -> anyhow::Result<EventType> {
    let is_meant = |event: &EventType| event.name == text || event.name.ends_with(&format!(".{text}"));
    let found: Vec<EventType> = FleetEvent::types().filter(is_meant).collect();
    match found[..] {
        [event] => Ok(event),
        [] => {
            let known: Vec<&str> =
                FleetEvent::types().map(|event| event.name.trim_start_matches("fleetlog.")).collect();
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
            format!("one of {}", found.iter().map(|event| event.name).collect::<Vec<_>>().join(", ")),
        )
        .into()),
    }
}

pub(crate) async fn run(emit: &Emit, config: &Config, format: Format) -> anyhow::Result<Code> {
    let event_type = event_type(&emit.event)?;
    let name = event_type.name;
    let wrong = |what: String| {
        Failure::new(
            Code::Usage,
            format!("{name}: {what}"),
            format!("fields and an example: fleetlog schemas describe {}", emit.event),
        )
    };
    let event = |json: serde_json::Result<Value>| -> anyhow::Result<FleetEvent> {
        let json = json.map_err(|error| wrong(format!("no JSON: {error}")))?;
        let blanks = Blanks {
            event_id: EventId::now_v7(),
            now: now(),
            source: concat!("fleetlog-emit/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        Ok(by_hand::read(event_type, json, &blanks).map_err(|error| wrong(error.to_string()))?)
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
