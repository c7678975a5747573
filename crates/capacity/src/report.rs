//! The plan for people: what, how many, why.

use serde::Serialize;

use crate::{
    Deployment, Figures, Plan, ProjectionLoad, TopicLoad,
    deployment::groups,
    quantity::{bytes, count, digits, duration, per_s, whole},
};

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which program or part.
    pub area: &'static str,
    /// What is needed.
    pub what: String,
    /// Of each deployment.
    pub each: String,
    /// Of all of them together.
    pub all: String,
    /// The formula, with its inputs.
    pub why: String,
}

/// Collects the lines of an area.
struct Lines<'a> {
    plan: &'a Plan,
    area: &'static str,
    lines: Vec<Line>,
}

impl Lines<'_> {
    fn area(&mut self, area: &'static str) {
        self.area = area;
    }

    /// Something that each deployment has so much of.
    fn each(&mut self, what: impl Into<String>, of_each: f64, shown: fn(f64) -> String, why: String) {
        let all = shown(self.plan.total(of_each));
        self.push(what, shown(of_each), all, why);
    }

    /// Something that there is once, for all.
    fn once(&mut self, what: impl Into<String>, value: String, why: String) {
        self.push(what, String::new(), value, why);
    }

    fn push(&mut self, what: impl Into<String>, each: String, all: String, why: String) {
        self.lines.push(Line { area: self.area, what: what.into(), each, all, why });
    }
}

pub(crate) fn lines(plan: &Plan, figures: &Figures) -> Vec<Line> {
    let mut lines = Lines { plan, area: "fleet", lines: Vec::new() };
    fleet(&mut lines, plan);
    lines.area("kafka");
    kafka(&mut lines, plan, figures);
    lines.area("projectors");
    projectors(&mut lines, plan, figures);
    lines.area("redis");
    redis(&mut lines, &plan.each, figures, plan);
    lines.area("sql");
    sql_load(&mut lines, &plan.each, figures);
    sql_disk(&mut lines, &plan.each, figures, plan);
    lines.lines
}

fn fleet(lines: &mut Lines<'_>, plan: &Plan) {
    let (load, each) = (&plan.load, &plan.each);
    let cut = format!("{} units / {} deployment(s)", whole(load.units), whole(plan.deployments));
    lines.each("units", each.units, whole, cut);
    let rates = &each.rates;
    lines.each("telemetry", rates.telemetry_per_s, per_s, format!("units x {} Hz", load.hz));
    let robot = format!("units x {} a day", digits(load.robot_events_per_day));
    lines.each("events of robots", rates.robot_per_s, per_s, robot);
    let tasks = format!("units x {} tasks a day x events of a task", digits(load.tasks_per_day));
    lines.each("events of tasks", rates.task_per_s, per_s, tasks);
    lines.each(
        "cores of producers",
        each.producer_cores,
        digits,
        format!("events x {} us", micros(each.producer_cores, rates.all_per_s())),
    );
    for limit in &plan.limits {
        let shown = |value: f64| match limit.unit {
            "bytes" => bytes(value),
            "rows/s" => per_s(value),
            _ => format!("{} core", digits(value)),
        };
        let why = format!("each takes {} of {}", shown(limit.used), shown(limit.allowed));
        lines.once(format!("deployments for {}", limit.what), whole(limit.deployments), why);
    }
    let why = "the most that any limit asks for, and what each costs by itself".to_owned();
    lines.once("deployments", whole(plan.deployments), why);
}

fn kafka(lines: &mut Lines<'_>, plan: &Plan, figures: &Figures) {
    let (load, kafka) = (&plan.load, &plan.each.kafka);
    for topic in &kafka.topics {
        topic_lines(lines, topic, plan);
    }
    lines.each(
        "produced",
        kafka.ingress_bytes_per_s,
        |value| format!("{}/s", bytes(value)),
        "events x bytes of a record".to_owned(),
    );
    let network =
        format!("{} copies, or copies - 1 and {} groups of telemetry", load.replication, groups("telemetry"));
    lines.each("network", kafka.network_bytes_per_s, |value| format!("{}/s", bytes(value)), network);
    let cores = format!(
        "events x ({} produce + {} a further copy + {} a group) us + {} requests x {} us",
        figures.kafka_produce_us_per_event.value,
        figures.kafka_replica_us_per_event.value,
        figures.kafka_consume_us_per_event.value,
        per_s(kafka.requests_per_s),
        figures.kafka_us_per_request.value,
    );
    lines.each("cores of brokers", kafka.cores, digits, cores);
    lines.each("disk of brokers", kafka.disk_bytes, bytes, "all topics with all copies".to_owned());
    let brokers = &plan.brokers;
    let why = format!(
        "disk {}, cores {}, network {}, copies {}",
        whole(brokers.by_disk),
        whole(brokers.by_cores),
        whole(brokers.by_network),
        load.replication
    );
    lines.once("brokers", whole(brokers.count), why);
}

fn topic_lines(lines: &mut Lines<'_>, topic: &TopicLoad, plan: &Plan) {
    let load = &plan.load;
    let why = format!(
        "{} lanes busy: {} x {} growth x {} us / {} usable; {} in its file at least; fixed for good",
        digits(topic.lanes_needed),
        per_s(topic.events_per_s),
        digits(load.growth),
        micros(topic.lanes_needed * load.usable() / load.growth, topic.events_per_s),
        digits(load.usable()),
        whole(topic.partitions_min)
    );
    lines.each(format!("partitions of {}", topic.topic), topic.partitions, whole, why);
    let kept = if topic.is_kept_for_ever { "kept for ever, after " } else { "kept " };
    let why = format!(
        "{} x {} B ({} records a batch) x {kept}{} x {} copies",
        per_s(topic.events_per_s),
        digits(topic.record_bytes),
        digits(topic.records_per_batch),
        duration(topic.kept_s),
        load.replication
    );
    lines.each(format!("disk of {}", topic.topic), topic.disk_bytes, bytes, why);
}

fn projectors(lines: &mut Lines<'_>, plan: &Plan, figures: &Figures) {
    let (each, load) = (&plan.each, &plan.load);
    for projection in &each.projections {
        let why = projection_why(projection, figures);
        lines.each(format!("cores of {}", projection.id), projection.cores, digits, why);
    }
    let fleetlog = &each.fleetlog;
    let why = "the sum; a projection has one thread in each process".to_owned();
    lines.each("cores of fleetlog run", fleetlog.cores, digits, why);
    let why = format!(
        "the busiest projection's cores / {} usable, no fewer than {}",
        digits(load.usable()),
        load.processes_min
    );
    lines.each("processes fleetlog run", fleetlog.processes, whole, why);
    let why = format!("{} each: run.memory_bytes_max", bytes(fleetlog.memory_bytes));
    lines.each("memory of them", fleetlog.memory_bytes * fleetlog.processes, bytes, why);
    let why =
        format!("{} B x units x 3 hot projections; saves reads and CPU", figures.cached_unit_bytes.value);
    lines.each("the same, to keep all states", fleetlog.memory_cached_bytes * fleetlog.processes, bytes, why);
}

fn projection_why(projection: &ProjectionLoad, figures: &Figures) -> String {
    let carries = projection
        .events_per_s_and_core
        .map_or(String::new(), |rate| format!("; one core carries {}", per_s(rate)));
    let (events, writes) = (per_s(projection.events_per_s), per_s(projection.writes_per_s));
    let write_us =
        if projection.is_hot { &figures.hot_us_per_write } else { &figures.history_us_per_write }.value;
    let work = match projection.id {
        "unit-consensus" => format!(
            "{events} x {} us + {} entities x {} us",
            figures.hot_us_per_event.value,
            per_s(projection.written_per_s),
            figures.hot_us_per_entity.value
        ),
        "telemetry-history" => format!("{events} x {} us", figures.history_us_per_row.value),
        _ => format!("{events} x {} us", figures.other_us_per_event.value),
    };
    format!("{work} + {writes} writes x {write_us} us{carries}")
}

fn redis(lines: &mut Lines<'_>, each: &Deployment, figures: &Figures, plan: &Plan) {
    let redis = &each.redis;
    let load = &plan.load;
    let why = format!(
        "telemetry: units x min({} Hz, 2 writes / {} s), and each event of robots and tasks",
        load.hz,
        load.latency_ms / 1000.0
    );
    lines.each("entities written", redis.entities_per_s, per_s, why);
    let why = format!(
        "{} x {} us + {} calls x {} us",
        per_s(redis.entities_per_s),
        figures.redis_us_per_entity.value,
        per_s(redis.calls_per_s),
        figures.redis_us_per_call.value
    );
    lines.each("cores of Redis", redis.cores, digits, why);
    let why = format!(
        "(units x ({} + {}) B + tasks of 7 days x {} B) x {} overhead",
        figures.redis_unit_bytes.value,
        figures.redis_status_bytes.value,
        figures.redis_task_bytes.value,
        figures.redis_overhead.value
    );
    lines.each("memory of Redis", redis.memory_bytes, bytes, why);
    let why = "one a deployment: one thread each, cluster mode is refused; replicas come on top".to_owned();
    lines.each("Redis processes", 1.0, whole, why);
}

fn sql_load(lines: &mut Lines<'_>, each: &Deployment, figures: &Figures) {
    let sql = &each.sql;
    lines.each("rows of telemetry", sql.rows_per_s, per_s, "one an event".to_owned());
    lines.each("rows of telemetry a day", sql.rows_per_s * 86_400.0, count, "x 86400 s".to_owned());
    let why = format!(
        "rows x {} us + events of robots and tasks x {} us + {} transactions x {} us",
        figures.sql_us_per_row.value,
        figures.sql_us_per_other_event.value,
        per_s(sql.writes_per_s),
        figures.sql_us_per_write.value
    );
    lines.each("cores for writing", sql.write_cores, digits, why);
    let why = format!(
        "rows x ({} telemetry_1m + {} compression) us; one process each",
        figures.sql_rollup_us_per_row.value, figures.sql_compress_us_per_row.value
    );
    lines.each("cores for jobs", sql.rollup_cores + sql.compress_cores, digits, why);
    let why = format!("rows / {} each, headroom taken off", per_s(figures.sql_rows_per_connection.value));
    lines.each("COPY connections", sql.connections, whole, why);
    let why = format!("rows x {} B", figures.sql_wal_bytes_per_row.value);
    lines.each("WAL", sql.wal_bytes_per_s, |value| format!("{}/s", bytes(value)), why);
    let why = format!("a page of {} B a unit, or a day's entries", figures.index_leaf_bytes.value);
    lines.each("memory for the index", sql.index_memory_bytes, bytes, why);
}

fn sql_disk(lines: &mut Lines<'_>, each: &Deployment, figures: &Figures, plan: &Plan) {
    let (sql, load) = (&each.sql, &plan.load);
    let horizon = duration(load.horizon_s);
    let why = format!(
        "kept {}: 3 days x ({} + {}) B a row, then {} B compressed",
        duration(load.retention_s),
        figures.sql_row_bytes.value,
        figures.sql_row_index_bytes.value,
        figures.sql_row_compressed_bytes.value
    );
    lines.each("disk of telemetry", sql.telemetry_bytes, bytes, why);
    let why = format!(
        "a row a unit and minute, after {horizon}: 19 days x {} B, then {} B compressed",
        figures.sql_minute_row_bytes.value, figures.sql_minute_compressed_bytes.value
    );
    lines.each("disk of telemetry_1m", sql.minutes_bytes, bytes, why);
    let why = format!(
        "kept for ever, after {horizon}: 90 days x {} and {} B, then {} B compressed",
        figures.sql_unit_event_bytes.value,
        figures.sql_task_event_bytes.value,
        figures.sql_event_compressed_bytes.value
    );
    lines.each("disk of unit_event, task_event", sql.events_bytes, bytes, why);
    let why = format!("kept for ever, after {horizon}: {} B a task", figures.sql_task_bytes.value);
    lines.each("disk of ledger and milestones", sql.tasks_bytes, bytes, why);
    let why = format!("the sum; on plain PostgreSQL {} each", bytes(sql.plain_disk_bytes));
    lines.each("disk of PostgreSQL", sql.disk_bytes, bytes, why);
}

/// Microseconds an event, of cores and events a second.
fn micros(cores: f64, events_per_s: f64) -> String {
    if events_per_s > 0.0 { digits(cores / events_per_s * 1e6) } else { "0".to_owned() }
}
