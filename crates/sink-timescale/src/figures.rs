//! Totals of tasks for `/metrics`, told by one process at a time.
//!
//! Whoever is asked first holds the figures, and keeps them as long as he is asked again in time; all others tell
//! nothing. So a sum over all processes is right at every moment, and only a process that is reached can hold them. The
//! database decides whose they are, by its own clock, before it is asked for them: a process that was away does not
//! tell what is another's by now.

use std::time::Duration;

use fleetlog_projection::SinkError;

use crate::{Database, connections::Lease, fault::Failure, metrics::TaskFigures};

/// Takes the figures if nobody has them, keeps them if this process has.
const HOLD: &str = "
    INSERT INTO fleetlog_figure_holder AS h (figures, instance, until)
    VALUES ('task', $1, clock_timestamp() + $2 * interval '1 millisecond')
    ON CONFLICT (figures) DO UPDATE SET instance = excluded.instance, until = excluded.until
    WHERE h.instance = excluded.instance OR h.until < clock_timestamp()
    RETURNING true";

/// As many rows as there are sites and types, whatever the number of tasks.
const TOTALS: &str = "
    SELECT site_uid, task_type, figure, sum(shown)::bigint FROM task_figure GROUP BY site_uid, task_type, figure";

/// Site, type, figure, value.
type Stored = (String, String, String, i64);

impl Database {
    /// The totals of tasks, if `instance` is the one to tell them; it is then for `hold` from now on.
    ///
    /// # Errors
    /// As any statement: Transient, or Permanent with what to do.
    pub async fn task_figures(
        &self,
        instance: &str,
        hold: Duration,
    ) -> Result<Option<TaskFigures>, SinkError> {
        let failed = |failure: Failure| failure.into_sink_error("figures of tasks");
        let mut lease = self.lease().await.map_err(failed)?;
        let figures = figures(&mut lease, instance, hold).await.map_err(failed)?;
        lease.give_back();
        Ok(figures)
    }
}

async fn figures(
    lease: &mut Lease<'_>,
    instance: &str,
    hold: Duration,
) -> Result<Option<TaskFigures>, Failure> {
    let home = lease.home();
    let hold_ms = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
    let held = sqlx::query_scalar(HOLD).bind(instance).bind(hold_ms);
    let held: Option<bool> = home.bounded(held.fetch_optional(lease.connection())).await?;
    if held.is_none() {
        return Ok(None);
    }
    let rows: Vec<Stored> = home.bounded(sqlx::query_as(TOTALS).fetch_all(lease.connection())).await?;
    let mut figures = TaskFigures::default();
    for (site_uid, task_type, figure, value) in rows {
        figures.take(site_uid, task_type, &figure, u64::try_from(value).unwrap_or_default());
    }
    Ok(Some(figures))
}
