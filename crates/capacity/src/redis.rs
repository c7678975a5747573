//! Redis: one process, one core, everything in memory.

use serde::Serialize;

use crate::{Figures, Load, ProjectionLoad, Rates, SECONDS_PER_DAY};

/// How long a task stays after its end (a rule of the fold `task-state`).
const TASK_KEPT_S: f64 = 7.0 * SECONDS_PER_DAY;

/// The Redis of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Redis {
    /// Entities written, a second.
    pub entities_per_s: f64,
    /// Script calls, a second, at most.
    pub calls_per_s: f64,
    /// Cores that it takes; it has one.
    pub cores: f64,
    /// What the data take.
    pub data_bytes: f64,
    /// What its host needs: fragmentation and pages copied by a rewrite included.
    pub memory_bytes: f64,
}

impl Redis {
    pub(crate) fn of(load: &Load, rates: &Rates, projections: &[ProjectionLoad], figures: &Figures) -> Self {
        let hot = || projections.iter().filter(|projection| projection.is_hot);
        let entities_per_s = hot().map(|projection| projection.written_per_s).sum::<f64>();
        let calls_per_s = hot().map(|projection| projection.writes_per_s).sum::<f64>();
        let unit_bytes = figures.redis_unit_bytes.value + figures.redis_status_bytes.value;
        let data_bytes =
            load.units * unit_bytes + rates.tasks_begun_per_s * TASK_KEPT_S * figures.redis_task_bytes.value;
        Self {
            entities_per_s,
            calls_per_s,
            cores: entities_per_s * figures.redis_us_per_entity.cpu_s()
                + calls_per_s * figures.redis_us_per_call.cpu_s(),
            data_bytes,
            memory_bytes: data_bytes * figures.redis_overhead.value,
        }
    }
}
