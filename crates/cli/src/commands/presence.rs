//! `fleetlog presence`: says which units fell silent, and which are back.

use fleetlog_presence::metrics::PresenceMetrics;
use fleetlog_producer::ProducerMetrics;

use crate::{
    commands::run::stop_on_signal,
    config::Config,
    exit::Code,
    http::{self, Health},
    instance::Instance,
    presence::{Presence, Standing},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Sends Disconnected(timeout) for units whose telemetry stopped, and Connected when it comes back. It needs a\n\
                  `fleetlog run` with unit-consensus and unit-status, here or elsewhere. Start as many as you like: one watches,\n\
                  the others stand by. `run.presence = true` does the same inside `fleetlog run`.\n\n\
                  Example: FLEETLOG_PRESENCE__TIMEOUT_MS=60000 fleetlog presence"
)]
pub(crate) struct PresenceCommand {}

pub(crate) async fn run(_: &PresenceCommand, config: &Config) -> anyhow::Result<Code> {
    let stop = stop_on_signal()?;
    let instance = Instance::take(config)?;
    let registry = prometheus::Registry::new();
    let metrics = PresenceMetrics::register(&registry)?;
    let presence = Presence::new(config, &instance.name, metrics, ProducerMetrics::register(&registry)?)?;
    let address = &config.presence.http_address;
    if !address.is_empty() {
        let address =
            http::serve("presence.http_address", address, registry, None, presence.standing()).await?;
        tracing::info!("http://{address}/metrics, /healthz, /readyz");
    }
    presence.run(stop).await;
    Ok(Code::Done)
}

impl Health for Standing {
    fn healthy(&self) -> Result<String, String> {
        // Nothing that happens to it is for good: it tries again.
        Ok("runs".to_owned())
    }

    fn ready(&self) -> Result<String, String> {
        self.now()
    }
}
