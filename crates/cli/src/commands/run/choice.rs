//! What is to run, and whether the cluster is ready for it.

use std::collections::BTreeSet;

use fleetlog_engine::HandlerSettings;
use fleetlog_event::catalogue::physical_name;
use fleetlog_kafka::Admin;
use fleetlog_projections::Described;

use super::{Run, SERVER_INTERVAL};
use crate::{
    config::{self, Config},
    exit::{Code, Failure},
    handlers, lanes, wiring,
};

/// What is to run.
pub(super) struct Chosen {
    pub(super) projections: Vec<Described>,
    pub(super) handlers: Vec<handlers::Described>,
}

/// By the command line if that names any, else by the settings.
pub(super) fn chosen(run: &Run, config: &Config) -> anyhow::Result<Chosen> {
    if run.once && !run.handlers.is_empty() {
        let hint = "leave one of them out: handlers have no end to run to";
        return Err(Failure::new(Code::Usage, "--once and --handlers exclude each other", hint).into());
    }
    let (names_projections, names_handlers) = (!run.projections.is_empty(), !run.handlers.is_empty());
    let projections = match (names_projections, names_handlers) {
        (true, _) => lanes::chosen(&run.projections)?,
        (false, true) => Vec::new(),
        (false, false) => lanes::chosen(&config.run.projections)?,
    };
    let handlers = match (names_projections, names_handlers) {
        (_, true) => handlers::chosen(config, &run.handlers)?,
        (true, false) => Vec::new(),
        (false, false) if run.once => Vec::new(),
        (false, false) => handlers::chosen(config, &config.run.handlers)?,
    };
    Ok(Chosen { projections, handlers })
}

pub(super) fn handler_settings(described: &handlers::Described) -> HandlerSettings {
    HandlerSettings {
        in_flight_max: described.in_flight_max,
        retry: described.retry.clone(),
        circuit: described.circuit,
        start_at: match described.start_at {
            config::StartAt::End => fleetlog_engine::StartAt::End,
            config::StartAt::Begin => fleetlog_engine::StartAt::Begin,
        },
        ..HandlerSettings::default()
    }
}

/// Waits until the brokers answer and have the topics.
pub(super) async fn wait_for_kafka(
    run: &Run,
    config: &Config,
    chosen: &[Described],
    handlers: &[handlers::Described],
) -> anyhow::Result<()> {
    let mut told = String::new();
    let admin = Admin::new(&wiring::kafka_settings(config))?;
    loop {
        match wiring::answer(&admin, config).await {
            Ok(_) => break,
            Err(silence) if run.fail_fast || silence.needs_a_person => return Err(silence.into()),
            Err(silence) => {
                // Once for each reason, not once a try.
                let silence = silence.to_string();
                if told != silence {
                    tracing::warn!("{silence}; waiting for it (--fail-fast would stop)");
                    told = silence;
                }
            }
        }
        tokio::time::sleep(SERVER_INTERVAL).await;
    }
    let stems = chosen.iter().flat_map(|projection| projection.topics);
    let mut topics: BTreeSet<String> =
        stems.map(|stem| physical_name(&config.kafka.topic_prefix, stem)).collect();
    let told = handlers.iter().flat_map(|handler| handler.all_topics(config));
    topics.extend(told.map(|topic| topic.name.to_string()));
    let there = admin.topics(&topics.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let missing: Vec<&str> =
        topics.iter().map(String::as_str).filter(|topic| !there.contains_key(*topic)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("topics do not exist: {}", missing.join(", "));
    Err(Failure::new(
        Code::Found,
        message,
        "`fleetlog topics plan` shows what is missing, `apply` creates it",
    )
    .into())
}
