//! `fleetlog progress resume`

use fleetlog_dead_letters::{HaltsReader, ToolError};
use fleetlog_event::{EventId, EventMeta, ops::ProjectionResumed};
use serde_json::json;

use crate::{
    commands::{dlq, migrate},
    config::Config,
    exit::{Code, Failure},
    halts::HaltView,
    handlers, lanes,
    output::{self, Format},
    wiring,
};

/// Longest reason, in bytes: what an identifying text of an event may have.
const WHY_BYTES_MAX: usize = 512;
/// Who says so.
const SOURCE: &str = concat!("fleetlog-progress/", env!("CARGO_PKG_VERSION"));

#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The projection or handler
    #[arg(value_name = "PROJECTION|HANDLER")]
    id: String,
    /// Why it may go on, in words: written down for ever
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Let each lane (of a handler: each process) set so many more events aside before it may be halted again
    #[arg(long, value_name = "N")]
    set_asides_max: Option<u32>,
}

pub(super) async fn run(resume: &Resume, config: &Config, format: Format) -> anyhow::Result<Code> {
    let group = group(config, &resume.id)?;
    let why = resume.why.trim();
    if !(1..=WHY_BYTES_MAX).contains(&why.len()) {
        let message = format!("--why has {} bytes, expected 1 to {WHY_BYTES_MAX}", why.len());
        return Err(Failure::new(Code::Usage, message, "say in a sentence why it may go on").into());
    }
    let mut reader = HaltsReader::new(&wiring::kafka_settings(config), wiring::decoder(config)?)?;
    let halts = reader.read_on().await.map_err(|error: ToolError| dlq::failure(error))?;
    let halt = halts.of(&group).halt;
    let event = ProjectionResumed {
        meta: EventMeta {
            causation_id: halt.as_ref().map(|halt| halt.meta.event_id),
            ..EventMeta::of_ops(EventId::now_v7(), SOURCE, migrate::now())
        },
        group: group.clone(),
        projection: resume.id.clone(),
        operator: dlq::operator(),
        why: why.to_owned(),
        halt: halt.as_ref().map(|halt| halt.meta.event_id.to_string()),
        set_asides_max: resume.set_asides_max.map(i64::from),
    };
    wiring::producer(config)?.send_all([event]).await.all().await?;
    let halt = halt.as_ref().map(HaltView::of);
    if format == Format::Json {
        output::json(&json!({
            "projection": resume.id, "group": group, "was_halted": halt.is_some(), "halt": halt,
            "set_asides_max": resume.set_asides_max,
        }))?;
        return Ok(Code::Done);
    }
    output::line(&match halt {
        Some(_) => format!("{} goes on, in every process that runs it", resume.id),
        None => format!("{} was not halted; where it had failed, it tries again", resume.id),
    });
    Ok(Code::Done)
}

/// The consumer group of the projection or handler of that name.
fn group(config: &Config, id: &str) -> anyhow::Result<String> {
    let (projections, handlers) = (lanes::chosen(&[])?, handlers::all(config)?);
    if let Some(projection) = projections.iter().find(|projection| projection.id == id) {
        return Ok(wiring::group(config, projection));
    }
    if let Some(handler) = handlers.iter().find(|handler| handler.id == id) {
        return Ok(handler.group.clone());
    }
    let projections: Vec<&str> = projections.iter().map(|projection| projection.id).collect();
    let handlers: Vec<&str> = handlers.iter().map(|handler| &*handler.id).collect();
    let hint = format!(
        "projections: {}; handlers of the settings: {}",
        projections.join(", "),
        if handlers.is_empty() { "none".to_owned() } else { handlers.join(", ") }
    );
    Err(Failure::new(Code::Usage, format!("there is no projection or handler `{id}`"), hint).into())
}
