//! What runs, as probes and people are told of it.

use fleetlog_engine::StatusHandle;

use crate::http::Health;

/// A projection or handler that was started.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) status: StatusHandle,
}

impl Handle {
    /// How one stands that ended, in words.
    pub(super) fn stand(&self) -> &'static str {
        if self.status.snapshot().halted.is_some() { "does not run" } else { "stopped for good" }
    }
}

/// The probes' view of what runs.
pub(super) struct Running(pub(super) Vec<Handle>);

impl Health for Running {
    fn healthy(&self) -> Result<String, String> {
        let stopped: Vec<String> = self
            .0
            .iter()
            .map(|handle| (&handle.id, handle.status.snapshot()))
            .filter(|(_, status)| !status.healthy())
            .filter_map(|(id, status)| Some(format!("{id} stopped for good: {}", status.stopped?)))
            .collect();
        if stopped.is_empty() {
            let (projections, handlers): (Vec<&Handle>, Vec<&Handle>) =
                self.0.iter().partition(|handle| handle.kind == "projection");
            Ok(match handlers.len() {
                0 => format!("{} projections run", projections.len()),
                handlers => format!("{} projections and {handlers} handlers run", projections.len()),
            })
        } else {
            Err(stopped.join("\n"))
        }
    }

    fn ready(&self) -> Result<String, String> {
        let waiting: Vec<String> = self
            .0
            .iter()
            .filter_map(|handle| {
                Some(format!("{} is not ready: {}", handle.id, handle.status.snapshot().not_ready()?))
            })
            .collect();
        if waiting.is_empty() { Ok("ready".to_owned()) } else { Err(waiting.join("\n")) }
    }
}
