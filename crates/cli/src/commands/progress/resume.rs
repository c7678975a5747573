//! `fleetlog progress resume`

use fleetlog_dead_letters::{HaltsReader, ToolError};
use fleetlog_event::{EventId, EventMeta, ops::ProjectionResumed};
use serde_json::json;

use crate::{
    commands::{dlq, migrate},
    config::Config,
    exit::{Code, Failure},
    halts::HaltView,
    lanes,
    output::{self, Format},
    wiring,
};

/// Longest reason, in bytes: what an identifying text of an event may have.
const WHY_BYTES_MAX: usize = 512;
/// Who says so.
const SOURCE: &str = concat!("fleetlog-progress/", env!("CARGO_PKG_VERSION"));

#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The projection
    projection: String,
    /// Why it may go on, in words: written down for ever
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Let each lane set so many more events aside before it may be halted again
    #[arg(long, value_name = "N")]
    set_asides_max: Option<u32>,
}

pub(super) async fn run(resume: &Resume, config: &Config, format: Format) -> anyhow::Result<Code> {
    let projection = lanes::chosen(std::slice::from_ref(&resume.projection))?.remove(0);
    let why = resume.why.trim();
    if !(1..=WHY_BYTES_MAX).contains(&why.len()) {
        let message = format!("--why has {} bytes, expected 1 to {WHY_BYTES_MAX}", why.len());
        return Err(Failure::new(Code::Usage, message, "say in a sentence why it may go on").into());
    }
    let group = wiring::group(config, &projection);
    let mut reader = HaltsReader::new(&wiring::kafka_settings(config), wiring::decoder(config)?)?;
    let halts = reader.read_on().await.map_err(|error: ToolError| dlq::failure(error))?;
    let halt = halts.of(&group).halt;
    let event = ProjectionResumed {
        meta: EventMeta {
            causation_id: halt.as_ref().map(|halt| halt.meta.event_id),
            ..EventMeta::of_ops(EventId::now_v7(), SOURCE, migrate::now())
        },
        group: group.clone(),
        projection: projection.id.to_owned(),
        operator: dlq::operator(),
        why: why.to_owned(),
        halt: halt.as_ref().map(|halt| halt.meta.event_id.to_string()),
        set_asides_max: resume.set_asides_max.map(i64::from),
    };
    wiring::producer(config)?.send_all([event]).await.all().await?;
    let halt = halt.as_ref().map(HaltView::of);
    if format == Format::Json {
        output::json(&json!({
            "projection": projection.id, "group": group, "was_halted": halt.is_some(), "halt": halt,
            "set_asides_max": resume.set_asides_max,
        }))?;
        return Ok(Code::Done);
    }
    output::line(&match halt {
        Some(_) => format!("{} goes on, in every process that runs it", projection.id),
        None => format!("{} was not halted; where it had failed, it tries again", projection.id),
    });
    Ok(Code::Done)
}
