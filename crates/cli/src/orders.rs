//! Commands to lanes beside a redrive, with the parts of this binary.

use std::time::Duration;

use anyhow::Context;
use fleetlog_dead_letters::{
    orders::{Commander, KafkaOrders, OrderError},
    redrive::Trouble,
};
use fleetlog_event::EventId;
use fleetlog_producer::{ProducerMetrics, ProducerSettings, RawProducer};
use fleetlog_projection::Fault;

use crate::{
    command_lanes::FleetLanes,
    config::Config,
    engine_parts::kafka_for_commands,
    exit::{Code, Failure},
};

/// How long a command waits for answers without any progress, in milliseconds.
pub(crate) const WAIT_MS: u64 = 60_000;

/// The way to the lanes.
pub(crate) fn kafka(config: &Config) -> anyhow::Result<KafkaOrders> {
    let kafka = kafka_for_commands(config)?;
    let producer =
        RawProducer::connect(&kafka, &ProducerSettings::default(), ProducerMetrics::unregistered()?)
            .context("a producer of commands")?;
    Ok(KafkaOrders { admin: fleetlog_kafka::Admin::new(&kafka)?, producer })
}

/// Who commands, and says on stderr where nobody is there to hear it.
pub(crate) fn commander<'a>(
    lanes: &'a FleetLanes,
    orders: &'a KafkaOrders,
    wait_ms: u64,
) -> Commander<'a, FleetLanes, KafkaOrders> {
    let unmanned = &|group: &str| {
        eprintln!(
            "warning: no process is in group {group}: commands wait in its inbox until one runs (fleetlog run)"
        );
    };
    let (patience, job) = (Duration::from_millis(wait_ms), EventId::now_v7().to_string());
    Commander { lanes, orders, patience, job, unmanned }
}

/// Why nothing came of it, with its code and hint.
pub(crate) fn failed(error: OrderError) -> anyhow::Error {
    let text = error.to_string();
    let (code, hint) = match error {
        OrderError::NoTopic(_) => {
            (Code::Found, "`fleetlog topics plan` shows what is missing, `apply` creates it")
        }
        OrderError::Stalled { .. } => (
            Code::Unreachable,
            "is fleetlog run up, and does it keep up (fleetlog status)? The commands stay in the inbox and will be \
             carried out",
        ),
        OrderError::Port(Trouble { fault: Fault::Transient, .. }) => {
            (Code::Unreachable, "is that server up? (fleetlog doctor); running it again does no harm")
        }
        OrderError::Port(trouble) => return trouble.into(),
    };
    Failure::new(code, text, hint).into()
}
