//! The made parts of `docs/capacity.md`: what one core carries, and the worked example.

use std::fmt::Write as _;

use fleetlog_event::catalogue::Catalogue;

use crate::{
    Basis, Figure, Figures, Load, Plan, PlanError, SECONDS_PER_DAY,
    quantity::{per_s, whole},
};

/// Where the made part of the page begins.
pub const PAGE_BEGIN: &str = "<!-- make docs: begin -->";
/// Where it ends.
pub const PAGE_END: &str = "<!-- make docs: end -->";

/// The load of the worked example: a million points a second, of ten million devices, kept for 30 days.
#[must_use]
pub fn example() -> Load {
    Load { units: 1e7, hz: 0.1, retention_s: 30.0 * SECONDS_PER_DAY, ..Load::default() }
}

/// What stands between [`PAGE_BEGIN`] and [`PAGE_END`].
///
/// # Errors
/// When these figures allow no plan for the example.
pub fn made_part(figures: &Figures) -> Result<String, PlanError> {
    let mut text = String::new();
    one_core(&mut text, figures);
    worked(&mut text, &Plan::of(&example(), figures, &Catalogue::builtin())?, figures);
    Ok(text)
}

fn one_core(text: &mut String, figures: &Figures) {
    let hot = figures.hot_us_per_event.value;
    let written = hot + figures.hot_us_per_entity.value;
    let rows: [(&str, f64, &Figure); 10] = [
        ("producer crate", figures.producer_us_per_event.value, &figures.producer_us_per_event),
        ("`unit-consensus`, many events a unit and write", hot, &figures.hot_us_per_event),
        ("`unit-consensus`, every event a write", written, &figures.hot_us_per_entity),
        ("`telemetry-history`", figures.history_us_per_row.value, &figures.history_us_per_row),
        ("each other projection", figures.other_us_per_event.value, &figures.other_us_per_event),
        ("Redis: entities", figures.redis_us_per_entity.value, &figures.redis_us_per_entity),
        ("PostgreSQL: rows of `telemetry`", figures.sql_us_per_row.value, &figures.sql_us_per_row),
        (
            "a job: rows into `telemetry_1m`",
            figures.sql_rollup_us_per_row.value,
            &figures.sql_rollup_us_per_row,
        ),
        (
            "Kafka: events produced, one copy",
            figures.kafka_produce_us_per_event.value,
            &figures.kafka_produce_us_per_event,
        ),
        (
            "Kafka: events read by a group",
            figures.kafka_consume_us_per_event.value,
            &figures.kafka_consume_us_per_event,
        ),
    ];
    text.push_str(
        "\n## What one core carries\n\n| | a second | us each | how it is known |\n|---|---:|---:|---|\n",
    );
    for (what, us, figure) in rows {
        let basis = match figure.basis {
            Basis::Measured => "measured",
            Basis::Computed => "computed",
            Basis::Estimated => "**estimated**",
            Basis::Chosen => "chosen",
        };
        let rate = per_s(1e6 / us);
        let _ =
            writeln!(text, "| {what} | {rate} | {us:.2} | {basis}: {} |", figure.from.replace('|', "\\|"));
    }
    text.push_str(
        "\nThese are costs of full batches. Each write of a lane and each request costs something by itself, which at low rates is \
         most of it: see the formulas.\n",
    );
}

fn worked(text: &mut String, plan: &Plan, figures: &Figures) {
    let load = &plan.load;
    let _ = write!(
        text,
        "\n## A million points a second, of ten million devices\n\n`fleetlog plan-capacity --units {:.0} --hz {} --retention {:.0}d`: \
         **{} deployments**, limited by {}.\n\n",
        load.units,
        load.hz,
        load.retention_s / SECONDS_PER_DAY,
        whole(plan.deployments),
        plan.limits.first().map_or("nothing", |limit| limit.what),
    );
    text.push_str("| | what | a deployment | in all | why |\n|---|---|---:|---:|---|\n");
    for line in plan.lines(figures) {
        let _ =
            writeln!(text, "| {} | {} | {} | {} | {} |", line.area, line.what, line.each, line.all, line.why);
    }
    text.push_str("\nIts warnings:\n\n");
    for warning in &plan.warnings {
        let _ = writeln!(text, "- `{}`: {}. *{}.*", warning.code, warning.text, warning.remedy);
    }
}
