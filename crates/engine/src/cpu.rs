//! CPU time of one projection: the sum over the threads that work for it alone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

/// The threads of one projection.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    inner: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    running: BTreeSet<PathBuf>,
    ended: Duration,
}

impl CpuMeter {
    /// The calling thread works for this projection from now on.
    pub(crate) fn enter(&self) {
        if let Some(path) = this_thread() {
            self.lock().running.insert(path);
        }
    }

    /// The calling thread is about to end.
    pub(crate) fn leave(&self) {
        if let Some(path) = this_thread() {
            let mut threads = self.lock();
            threads.ended += cpu_time(&path);
            threads.running.remove(&path);
        }
    }

    /// CPU time used so far.
    pub(crate) fn total(&self) -> Duration {
        let threads = self.lock();
        threads.running.iter().map(|thread| cpu_time(thread)).sum::<Duration>() + threads.ended
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The calling thread's folder under /proc; none where there is no Linux /proc.
fn this_thread() -> Option<PathBuf> {
    let link = std::fs::read_link("/proc/thread-self").ok()?;
    Some(PathBuf::from("/proc").join(link))
}

/// The first figure of `schedstat` is the time on a CPU in ns (kernel, Documentation/scheduler/sched-stats).
fn cpu_time(thread: &Path) -> Duration {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_worked_counts_also_after_its_end() {
        let meter = std::sync::Arc::new(CpuMeter::default());
        let of_thread = std::sync::Arc::clone(&meter);
        std::thread::spawn(move || {
            of_thread.enter();
            let mut sum = 0_u64;
            while of_thread.total() < Duration::from_millis(5) {
                sum = std::hint::black_box((0..100_000).fold(sum, u64::wrapping_add));
            }
            of_thread.leave();
        })
        .join()
        .expect("no panic");
        assert!(meter.total() >= Duration::from_millis(5));
    }
}
