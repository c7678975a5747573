//! A projection's own async runtime, whose CPU time can be told.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::cpu::CpuMeter;

/// The runtime of one projection: its lanes run on it, and its sink should be connected on it.
#[derive(Debug)]
pub struct ProjectionRuntime {
    runtime: Option<Runtime>,
    handle: Handle,
    cpu: Arc<CpuMeter>,
}

impl ProjectionRuntime {
    /// Starts `worker_threads` threads named after the projection.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(projection: &str, worker_threads: usize) -> std::io::Result<Self> {
        let cpu = Arc::new(CpuMeter::default());
        let (enter, leave) = (Arc::clone(&cpu), Arc::clone(&cpu));
        let runtime = Builder::new_multi_thread()
            .worker_threads(worker_threads.max(1))
            .thread_name(format!("run-{projection}"))
            .on_thread_start(move || enter.enter())
            .on_thread_stop(move || leave.leave())
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime), cpu })
    }

    /// Where to connect the sink.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn cpu(&self) -> Arc<CpuMeter> {
        Arc::clone(&self.cpu)
    }
}

impl Drop for ProjectionRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: a runtime must not block when dropped within another, and nothing is left to do on it.
            runtime.shutdown_background();
        }
    }
}
