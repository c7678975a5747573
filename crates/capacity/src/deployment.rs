//! One deployment: what a part of the fleet needs of each program.

use fleetlog_event::catalogue::Catalogue;
use serde::Serialize;

use crate::{Figures, Kafka, Load, Redis, SECONDS_PER_DAY, Sql, kafka::Cut};

/// Telemetry that was visible late came when a write had just gone out: it waits for that one and for its own.
const WRITES_PER_LATENCY: f64 = 2.0;

/// What is sent to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Events of topic `telemetry`, a second.
    pub telemetry_per_s: f64,
    /// Events of topic `robot`, a second.
    pub robot_per_s: f64,
    /// Events of topic `task`, a second.
    pub task_per_s: f64,
    /// Tasks that begin, a second.
    pub tasks_begun_per_s: f64,
}

impl Rates {
    fn of(load: &Load, figures: &Figures) -> Self {
        let tasks_begun_per_s = load.units * load.tasks_per_day / SECONDS_PER_DAY;
        Self {
            telemetry_per_s: load.events_per_s(),
            robot_per_s: load.units * load.robot_events_per_day / SECONDS_PER_DAY,
            task_per_s: tasks_begun_per_s * figures.events_per_task.value,
            tasks_begun_per_s,
        }
    }

    /// Events of a topic, by its stem; 0 for one that carries none.
    #[must_use]
    pub fn of_topic(&self, stem: &str) -> f64 {
        match stem {
            TELEMETRY => self.telemetry_per_s,
            ROBOT => self.robot_per_s,
            TASK => self.task_per_s,
            _ => 0.0,
        }
    }

    /// Events of all topics, a second.
    #[must_use]
    pub fn all_per_s(&self) -> f64 {
        self.telemetry_per_s + self.robot_per_s + self.task_per_s
    }
}

pub(crate) const TELEMETRY: &str = "telemetry";
pub(crate) const ROBOT: &str = "robot";
pub(crate) const TASK: &str = "task";

/// What a projection reads and where it lands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Projector {
    pub(crate) id: &'static str,
    pub(crate) topics: &'static [&'static str],
    is_hot: bool,
}

const PROJECTORS: [Projector; 6] = [
    Projector { id: "unit-consensus", topics: &[TELEMETRY], is_hot: true },
    Projector { id: "unit-status", topics: &[ROBOT], is_hot: true },
    Projector { id: "task-state", topics: &[TASK], is_hot: true },
    Projector { id: "task-ledger", topics: &[TASK], is_hot: false },
    Projector { id: "telemetry-history", topics: &[TELEMETRY], is_hot: false },
    Projector { id: "event-history", topics: &[ROBOT, TASK], is_hot: false },
];

/// The projections that are planned for, in their order. A test of the binary compares them with those that there are.
pub const PROJECTIONS: [&str; 6] = {
    let mut ids = [""; 6];
    let mut n = 0;
    while n < ids.len() {
        ids[n] = PROJECTORS[n].id;
        n += 1;
    }
    ids
};

/// How many consumer groups read a topic.
pub(crate) fn groups(topic: &str) -> f64 {
    PROJECTORS.iter().filter(|projector| projector.topics.contains(&topic)).count() as f64
}

/// What one projection has to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProjectionLoad {
    /// Its ID.
    pub id: &'static str,
    /// Whether it lands in Redis; else in SQL.
    pub is_hot: bool,
    /// Events that it takes, a second.
    pub events_per_s: f64,
    /// Entities or rows that it writes, a second.
    pub written_per_s: f64,
    /// Writes of its lanes (script calls, transactions), a second, at most.
    pub writes_per_s: f64,
    /// Cores that it takes.
    pub cores: f64,
    /// Events a second that one core carries, at this mix of events, entities and writes; none where there are no events.
    pub events_per_s_and_core: Option<f64>,
}

/// The processes `fleetlog run` of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fleetlog {
    /// Cores of all projections together.
    pub cores: f64,
    /// Processes, each with all projections. A projection has one thread of a process.
    pub processes: f64,
    /// Memory of one process.
    pub memory_bytes: f64,
    /// Memory of one process in which the states of all units stay between writes: more than `memory_bytes` pays in CPU.
    pub memory_cached_bytes: f64,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deployment {
    /// Units that it serves.
    pub units: f64,
    /// What they send.
    pub rates: Rates,
    /// Cores of the programs that send.
    pub producer_cores: f64,
    /// Its topics, and what they take of the cluster.
    pub kafka: Kafka,
    /// Its projections.
    pub projections: Vec<ProjectionLoad>,
    /// Its processes.
    pub fleetlog: Fleetlog,
    /// Its Redis.
    pub redis: Redis,
    /// Its database.
    pub sql: Sql,
}

impl Deployment {
    /// What one deployment needs that carries all of this load.
    pub(crate) fn of(load: &Load, figures: &Figures, catalogue: &Catalogue) -> Self {
        let rates = Rates::of(load, figures);
        let entities_per_s = telemetry_entities_per_s(load);
        let cuts: Vec<Cut<'_>> = catalogue
            .sources()
            // `ops` is what people do: a few events a day.
            .filter(|topic| groups(&topic.stem) > 0.0)
            .map(|topic| {
                let event_cpu_s = lane_cpu_s(&topic.stem, load, figures);
                let lanes_needed = rates.of_topic(&topic.stem) * load.growth * event_cpu_s / load.usable();
                Cut { topic, lanes_needed }
            })
            .collect();
        let partitions =
            |stem: &str| cuts.iter().find(|cut| cut.topic.stem == stem).map_or(1.0, Cut::partitions);
        let projections: Vec<_> = PROJECTORS
            .iter()
            .map(|projector| projector.load(&rates, entities_per_s, figures, &partitions))
            .collect();
        let fleetlog = Fleetlog::of(load, &projections, figures);
        Self {
            units: load.units,
            rates,
            producer_cores: rates.all_per_s() * figures.producer_us_per_event.cpu_s(),
            kafka: Kafka::of(load, &rates, &cuts, fleetlog.processes, figures),
            redis: Redis::of(load, &rates, &projections, figures),
            sql: Sql::of(load, &rates, &projections, figures),
            projections,
            fleetlog,
        }
    }

    /// One of its projections.
    #[must_use]
    pub fn projection(&self, id: &str) -> Option<&ProjectionLoad> {
        self.projections.iter().find(|projection| projection.id == id)
    }
}

/// Units written to Redis, a second, for what they last told: a lane writes a unit at most once a write, however often it spoke
/// meanwhile, and two writes fit into the latency that is wanted.
fn telemetry_entities_per_s(load: &Load) -> f64 {
    load.units * load.hz.min(WRITES_PER_LATENCY * 1000.0 / load.latency_ms)
}

/// CPU of an event in the projection of its topic that takes most: what a lane, which is one thread, is busy for.
fn lane_cpu_s(topic: &str, load: &Load, figures: &Figures) -> f64 {
    if topic != TELEMETRY {
        return figures.other_us_per_event.cpu_s();
    }
    let written_share = telemetry_entities_per_s(load) / load.events_per_s();
    let hot = figures.hot_us_per_event.cpu_s() + figures.hot_us_per_entity.cpu_s() * written_share;
    hot.max(figures.history_us_per_row.cpu_s())
}

impl Projector {
    fn load(
        &self,
        rates: &Rates,
        telemetry_entities_per_s: f64,
        figures: &Figures,
        partitions: &impl Fn(&str) -> f64,
    ) -> ProjectionLoad {
        let events_per_s = self.topics.iter().map(|topic| rates.of_topic(topic)).sum();
        let (write_ms, write_us) = if self.is_hot {
            (&figures.hot_write_ms, &figures.hot_us_per_write)
        } else {
            (&figures.sql_write_ms, &figures.history_us_per_write)
        };
        // A lane has one write under way, and none without an event.
        let writes = |topic: &&str| (partitions(topic) * 1000.0 / write_ms.value).min(rates.of_topic(topic));
        let writes_per_s = self.topics.iter().map(writes).sum::<f64>();
        let (written_per_s, events_cores) = match (self.topics, self.is_hot) {
            ([TELEMETRY], true) => {
                let cores = events_per_s * figures.hot_us_per_event.cpu_s()
                    + telemetry_entities_per_s * figures.hot_us_per_entity.cpu_s();
                (telemetry_entities_per_s, cores)
            }
            ([TELEMETRY], false) => (events_per_s, events_per_s * figures.history_us_per_row.cpu_s()),
            _ => (events_per_s, events_per_s * figures.other_us_per_event.cpu_s()),
        };
        let cores = events_cores + writes_per_s * write_us.cpu_s();
        let events_per_s_and_core = (events_per_s > 0.0).then(|| events_per_s / cores);
        let (id, is_hot) = (self.id, self.is_hot);
        ProjectionLoad { id, is_hot, events_per_s, written_per_s, writes_per_s, cores, events_per_s_and_core }
    }
}

impl Fleetlog {
    fn of(load: &Load, projections: &[ProjectionLoad], figures: &Figures) -> Self {
        let busiest = projections.iter().map(|projection| projection.cores).fold(0.0, f64::max);
        let processes = (busiest / load.usable()).ceil().max(f64::from(load.processes_min));
        let hot = projections.iter().filter(|projection| projection.is_hot).count() as f64;
        let cached = load.units * figures.cached_unit_bytes.value * hot / processes;
        let memory_bytes = figures.process_memory_bytes.value;
        Self {
            cores: projections.iter().map(|projection| projection.cores).sum(),
            processes,
            memory_bytes,
            memory_cached_bytes: memory_bytes.max(cached),
        }
    }
}
