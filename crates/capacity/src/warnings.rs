//! What to know before building what a plan says.

use serde::Serialize;

use crate::{
    Figures, Plan,
    deployment::groups,
    quantity::{bytes, digits, duration, whole},
};

/// Events that a producer sends again (a new client after a fatal error) come within that, else they count again.
const RESENT_WITHIN_S: f64 = 60.0;

/// What an offset of the window takes in each projection (docs/operations.md, Memory).
const WINDOW_ENTRY_BYTES: f64 = 56.0;

/// Something that the plan rests on, or that it cannot mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Which one: stable, for machines.
    pub code: &'static str,
    /// What it is.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

fn warning(code: &'static str, text: String, remedy: impl Into<String>) -> Warning {
    Warning { code, text, remedy: remedy.into() }
}

pub(crate) fn of(plan: &Plan, figures: &Figures) -> Vec<Warning> {
    let mut warnings = Vec::new();
    warnings.extend(several_deployments(plan));
    warnings.extend(every_event_is_a_write(plan));
    warnings.extend(duplicates_window(plan));
    warnings.extend(latency_too_small(plan, figures));
    warnings.extend(minutes_kept_for_ever(plan));
    warnings.extend(durability(plan));
    warnings.extend(estimates(figures));
    warnings
}

fn several_deployments(plan: &Plan) -> Option<Warning> {
    if plan.deployments <= 1.0 {
        return None;
    }
    let each = &plan.each;
    let text = format!(
        "one Redis or one database is not enough: {} deployments of fleetlog, each with a kafka.topic_prefix, a Redis, a \
         database and its `fleetlog run` processes. Nothing spans them: `unit`, `status`, `verify` and every view ask one. \
         A site has to fit into one: {} units at most",
        whole(plan.deployments),
        whole(each.units.floor()),
    );
    let remedy = "share the sites out, with room for growth: a site that moves leaves its history behind. Fewer are needed \
                  if telemetry comes less often (fleetlog thins nothing out) or, where disk decides, is kept for less long. \
                  Not possible today: lanes of one topic in several Redis or databases, Redis Cluster";
    Some(warning("several-deployments", text, remedy))
}

fn every_event_is_a_write(plan: &Plan) -> Option<Warning> {
    let (load, consensus) = (&plan.load, plan.each.projection("unit-consensus")?);
    let is_alone = consensus.written_per_s >= consensus.events_per_s;
    (is_alone && plan.limits.first().is_some_and(|limit| limit.what.starts_with("CPU of a Redis"))).then(|| {
        let text = format!(
            "every event of telemetry is a write to Redis: at {} Hz a unit is heard once in {}, and two writes are {} ms apart",
            load.hz,
            duration(1.0 / load.hz),
            digits(load.latency_ms / 2.0)
        );
        let remedy = format!(
            "from --latency {:.0}ms on, two events of a unit are one write. Lanes have no timer: they write as soon as they can, so \
             Redis is at its limit then, and processes need memory for all states",
            (2000.0 / load.hz).ceil()
        );
        warning("every-event-is-a-write", text, remedy)
    })
}

fn duplicates_window(plan: &Plan) -> Option<Warning> {
    let topic = plan.each.kafka.topic("telemetry")?;
    let window_s = topic.dedup_window_s.filter(|window_s| *window_s < RESENT_WITHIN_S)?;
    let text = format!(
        "an event of telemetry that is sent again after {window_s:.1} s counts again: so far back reaches \
         dedup_window_offsets of topics/telemetry.toml at this rate"
    );
    let offsets = topic.events_per_s / topic.partitions * RESENT_WITHIN_S;
    let memory = offsets * topic.partitions * WINDOW_ENTRY_BYTES * groups(&topic.topic);
    let remedy = format!(
        "for {RESENT_WITHIN_S} s it would have to be {}, for which both projections of all processes take {} of their memory; it \
         is part of every projection's result, so choose it before the first event",
        whole(offsets.ceil()),
        bytes(memory)
    );
    Some(warning("duplicates-window", text, remedy))
}

fn latency_too_small(plan: &Plan, figures: &Figures) -> Option<Warning> {
    let (wanted_ms, write_ms) = (plan.load.latency_ms, figures.hot_write_ms.value);
    (wanted_ms < 2.0 * write_ms + figures.kafka_linger_ms.value).then(|| {
        let text = format!(
            "a latency of {} ms cannot be kept: producers collect for {} ms, and a lane's write takes {} ms",
            digits(wanted_ms),
            digits(figures.kafka_linger_ms.value),
            digits(write_ms)
        );
        warning("latency", text, "ask for more")
    })
}

fn minutes_kept_for_ever(plan: &Plan) -> Option<Warning> {
    let sql = &plan.each.sql;
    (sql.minutes_bytes > sql.telemetry_bytes).then(|| {
        let text = format!(
            "telemetry_1m is kept for ever and after {} takes {}, more than the measurements ({})",
            duration(plan.load.horizon_s),
            bytes(plan.total(sql.minutes_bytes)),
            bytes(plan.total(sql.telemetry_bytes))
        );
        let remedy = "give it a retention of its own (add_retention_policy on telemetry_1m): fleetlog has no setting for it";
        warning("minutes-kept-for-ever", text, remedy)
    })
}

fn durability(plan: &Plan) -> Option<Warning> {
    (plan.load.replication < 3).then(|| {
        let text = format!(
            "with {} copies of a partition events can be lost: the guarantees need 3, of which 2 acknowledge",
            plan.load.replication
        );
        warning("durability", text, "--replication 3")
    })
}

fn estimates(figures: &Figures) -> Option<Warning> {
    let names = figures.estimated();
    (!names.is_empty()).then(|| {
        let text = format!("{} figures are estimated, not measured: {}", names.len(), names.join(", "));
        let remedy =
            "measure them on your servers (make bench, row `capacity at 1/100`) and give them with --figures";
        warning("estimated-figures", text, remedy)
    })
}
