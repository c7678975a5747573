//! What has to hold for every load.

use fleetlog_event::catalogue::Catalogue;
use proptest::prelude::*;

use crate::{
    Basis, Deployment, Figures, FiguresError, Load, PAGE_BEGIN, PAGE_END, Plan, PlanError, SECONDS_PER_DAY,
    example, made_part,
};

fn plan(load: &Load) -> Plan {
    Plan::of(load, &Figures::builtin(), &Catalogue::builtin()).unwrap()
}

/// One deployment for all of it, whatever its limits: resources without what deployments cost by themselves.
fn whole(load: &Load) -> Deployment {
    Deployment::of(load, &Figures::builtin(), &Catalogue::builtin())
}

fn large() -> Load {
    example()
}

/// What hangs on the load alone, by name.
fn linear(deployment: &Deployment) -> Vec<(&'static str, f64)> {
    let (redis, sql) = (&deployment.redis, &deployment.sql);
    let carried = deployment.projections.iter().map(|projection| projection.events_per_s).sum();
    vec![
        ("events taken", carried),
        ("cores of producers", deployment.producer_cores),
        ("entities", redis.entities_per_s),
        ("bytes of Redis", redis.memory_bytes),
        ("rows", sql.rows_per_s),
        ("disk", sql.disk_bytes),
        ("plain disk", sql.plain_disk_bytes),
        ("telemetry", sql.telemetry_bytes),
        ("minutes", sql.minutes_bytes),
        ("roll-up", sql.rollup_cores),
        ("compression", sql.compress_cores),
        ("WAL", sql.wal_bytes_per_s),
        ("index", sql.index_memory_bytes),
    ]
}

fn loads() -> impl Strategy<Value = Load> {
    (
        1.0..1e7_f64,
        0.01..10.0_f64,
        0.0..100.0_f64,
        0.0..20.0_f64,
        1.0..400.0_f64,
        0.0..0.5_f64,
        20.0..60_000.0_f64,
    )
        .prop_map(|(units, hz, robot_events_per_day, tasks_per_day, days, headroom, latency_ms)| Load {
            units,
            hz,
            robot_events_per_day,
            tasks_per_day,
            retention_s: days * SECONDS_PER_DAY,
            headroom,
            latency_ms,
            ..Load::default()
        })
}

#[test]
fn the_file_of_figures_is_read_and_every_figure_says_where_it_comes_from() {
    let figures = Figures::builtin();
    for (name, figure) in figures.named() {
        assert!(!figure.from.is_empty(), "{name}");
    }
    assert_eq!(figures.hot_us_per_event.basis, Basis::Measured);
    assert!(figures.estimated().contains(&"redis_overhead"));
}

#[test]
fn given_figures_that_cannot_be_then_all_of_them_are_named() {
    let text = include_str!("../figures.toml")
        .replace("value = 4.45, unit = \"us/event\"", "value = nan, unit = \"us/event\"")
        .replace("value = 3.0, unit = \"ms\"", "value = 3.0, unit = \"s\"");
    let told = Figures::parse(&text).unwrap_err().to_string();
    assert!(told.contains("`hot_us_per_event` is NaN"), "{told}");
    assert!(told.contains("`hot_write_ms` is in `s`; expected `ms`"), "{told}");
    assert!(matches!(Figures::parse("unknown = 1"), Err(FiguresError::Form(_))));
    let without =
        text.lines().filter(|line| !line.starts_with("broker_cores")).collect::<Vec<_>>().join("\n");
    assert!(Figures::parse(&without).unwrap_err().to_string().contains("broker_cores"));
}

#[test]
fn given_values_that_cannot_be_when_planned_then_all_of_them_are_named() {
    let load = Load { units: 0.0, hz: f64::NAN, headroom: 1.0, retention_s: -1.0, ..Load::default() };
    let error = Plan::of(&load, &Figures::builtin(), &Catalogue::builtin()).unwrap_err();
    let told = error.to_string();
    for words in ["units is 0", "hz is NaN", "headroom is 1", "retention is -1"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("units x hz"), "said already: {told}");
    let absurd = Load { units: 1e10, hz: 1000.0, ..Load::default() };
    let error = absurd.check().unwrap_err();
    assert_eq!(error[0].what, "units x hz");
}

#[test]
fn given_a_small_fleet_when_planned_then_one_deployment_carries_it() {
    let plan = plan(&Load { units: 1000.0, hz: 1.0, ..Load::default() });
    assert_eq!(plan.deployments, 1.0);
    assert_eq!(plan.each.kafka.topic("telemetry").unwrap().partitions, 6.0, "as topics/telemetry.toml says");
    assert_eq!(plan.each.fleetlog.processes, 2.0, "one may be killed");
    assert_eq!(plan.brokers.count, 3.0);
    assert!(plan.warnings.iter().all(|warning| warning.code != "several-deployments"));
}

#[test]
fn given_ten_million_devices_when_planned_then_every_limit_is_kept_and_one_deployment_less_would_not_do() {
    let (load, figures, catalogue) = (large(), Figures::builtin(), Catalogue::builtin());
    let plan = plan(&load);
    assert!(plan.deployments > 1.0);
    assert!(plan.limits.iter().all(|limit| limit.used <= limit.allowed), "{:?}", plan.limits);
    let fewer = Load { units: load.units / (plan.deployments - 1.0), ..load };
    assert!(Plan::of(&fewer, &figures, &catalogue).unwrap().deployments > 1.0);
    assert!(plan.warnings.iter().any(|warning| warning.code == "several-deployments"));
}

#[test]
fn given_headroom_that_leaves_nothing_when_planned_then_there_is_no_plan() {
    let mut figures = Figures::builtin();
    figures.redis_us_per_call.value = 1e6;
    let load = Load { units: 1e6, hz: 1.0, ..Load::default() };
    let error = Plan::of(&load, &figures, &Catalogue::builtin()).unwrap_err();
    assert!(matches!(error, PlanError::NoRoom { what: "CPU of a Redis process", .. }), "{error}");
}

#[test]
fn given_units_that_speak_often_when_more_latency_is_allowed_then_redis_writes_less() {
    let at = |latency_ms| whole(&Load { hz: 10.0, latency_ms, ..Load::default() }).redis.entities_per_s;
    // 1000 units: 2 writes in a second each, not 10.
    let others = 1000.0 * (10.0 + 4.94) / SECONDS_PER_DAY;
    assert!((at(1000.0) - 2000.0 - others).abs() < 1e-6, "{}", at(1000.0));
    assert!((at(100.0) - 10_000.0 - others).abs() < 1e-6, "{}", at(100.0));
}

#[test]
fn given_a_short_retention_then_minutes_go_with_the_measurements() {
    let kept =
        |days: f64| whole(&Load { retention_s: days * SECONDS_PER_DAY, ..Load::default() }).sql.minutes_bytes;
    assert!(kept(8.0) < kept(10.0) / 2.0);
    assert_eq!(kept(10.0), kept(30.0), "kept for ever");
}

#[test]
fn every_line_has_a_value_and_a_reason() {
    let (plan, figures) = (plan(&large()), Figures::builtin());
    let lines = plan.lines(&figures);
    assert!(lines.len() > 30);
    let silent = Load { robot_events_per_day: 0.0, tasks_per_day: 0.0, ..large() };
    for line in lines.iter().chain(&self::plan(&silent).lines(&figures)) {
        assert!(!line.all.is_empty() && !line.why.is_empty(), "{line:?}");
        assert!(
            !line.all.contains("NaN") && !line.all.contains("inf") && !line.why.contains("NaN"),
            "{line:?}"
        );
    }
}

#[test]
fn the_page_is_what_the_figures_make() {
    let page = include_str!("../../../docs/capacity.md");
    let made = format!("{PAGE_BEGIN}\n{}{PAGE_END}", made_part(&Figures::builtin()).unwrap());
    assert!(page.contains(&made), "docs/capacity.md is not what figures.toml makes: run `make docs`");
}

proptest! {
    #[test]
    fn a_hundredth_of_the_load_needs_a_hundredth(load in loads()) {
        let small = Load { units: load.units / 100.0, ..load.clone() };
        for ((what, of_all), (_, of_part)) in linear(&whole(&load)).into_iter().zip(linear(&whole(&small))) {
            prop_assert!((of_all - 100.0 * of_part).abs() <= 1e-6 * of_all, "{what}: {of_all} and {of_part}");
        }
    }

    #[test]
    fn more_units_never_need_less(load in loads(), more in 1.0..20.0_f64) {
        let larger = Load { units: (load.units * more).min(1e8), ..load.clone() };
        for ((what, before), (_, after)) in linear(&whole(&load)).into_iter().zip(linear(&whole(&larger))) {
            prop_assert!(after >= before, "{what}: {before} and {after}");
        }
        let (before, after) = (plan(&load), plan(&larger));
        prop_assert!(after.deployments >= before.deployments, "{} and {}", before.deployments, after.deployments);
        let (one, other) = (whole(&load), whole(&larger));
        prop_assert!(other.fleetlog.cores >= one.fleetlog.cores);
        prop_assert!(other.fleetlog.processes >= one.fleetlog.processes);
        prop_assert!(other.redis.cores >= one.redis.cores);
        prop_assert!(other.sql.write_cores >= one.sql.write_cores);
        for (one, other) in one.kafka.topics.iter().zip(&other.kafka.topics) {
            prop_assert!(other.partitions >= one.partitions);
            prop_assert!(other.disk_bytes >= one.disk_bytes, "{one:?} and {other:?}");
        }
    }

    #[test]
    fn a_plan_keeps_every_limit(load in loads()) {
        let plan = plan(&load);
        for limit in &plan.limits {
            prop_assert!(limit.used <= limit.allowed, "{limit:?}");
        }
        let units = plan.total(plan.each.units);
        prop_assert!((units - load.units).abs() <= 1e-6 * load.units);
    }

    #[test]
    fn what_is_kept_for_longer_takes_no_less(load in loads(), more in 1.0..10.0_f64) {
        let longer = Load { retention_s: load.retention_s * more, ..load.clone() };
        prop_assert!(whole(&longer).sql.telemetry_bytes >= whole(&load).sql.telemetry_bytes);
        prop_assert!(whole(&longer).sql.plain_disk_bytes >= whole(&load).sql.plain_disk_bytes);
    }

    #[test]
    fn more_headroom_never_needs_fewer(load in loads(), more in 0.0..0.3_f64) {
        let careful = Load { headroom: load.headroom + more, ..load.clone() };
        let (one, other) = (plan(&load), plan(&careful));
        prop_assert!(other.deployments >= one.deployments);
    }
}
