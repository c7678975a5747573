//! The platform's metrics of units, as Prometheus reads them. What they show is counted by Redis
//! ([`crate::RedisSink::unit_figures`]); nothing is counted in this process.

use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Robots that are online.
pub const ROBOT_ONLINE_COUNT: &str = "jarvis_iot_robot_online_count";
/// Units that are online, by type.
pub const UNITS_ONLINE_TOTAL: &str = "jarvis_iot_units_online_total";
/// Units that are known and not decommissioned.
pub const UNITS_TOTAL: &str = "jarvis_iot_units_total";

/// Every name above.
pub const NAMES: [&str; 3] = [ROBOT_ONLINE_COUNT, UNITS_ONLINE_TOTAL, UNITS_TOTAL];

/// The type of those that [`ROBOT_ONLINE_COUNT`] counts.
const ROBOT: &str = "robot";

/// How many units there are of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitCount {
    /// The type, such as `robot`.
    pub unit_type: String,
    /// Known and not decommissioned.
    pub units: u64,
    /// Of these, connected.
    pub online: u64,
}

/// How many units there are, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFigures {
    /// Each type once.
    pub by_type: Vec<UnitCount>,
}

impl UnitFigures {
    /// The metrics; none where no unit is known: that is a store which is empty, and says nothing of the fleet.
    #[must_use]
    pub fn families(&self) -> Vec<MetricFamily> {
        let units: u64 = self.by_type.iter().map(|count| count.units).sum();
        if units == 0 {
            return Vec::new();
        }
        let robots = self.by_type.iter().find(|count| count.unit_type == ROBOT);
        let robots_online = robots.map_or(0, |count| count.online);
        let by_type = |count: &UnitCount| gauge(Some(&count.unit_type), count.online);
        vec![
            family(ROBOT_ONLINE_COUNT, "Robots that are online", vec![gauge(None, robots_online)]),
            family(
                UNITS_ONLINE_TOTAL,
                "Units that are online, by type",
                self.by_type.iter().map(by_type).collect(),
            ),
            family(UNITS_TOTAL, "Units that are known and not decommissioned", vec![gauge(None, units)]),
        ]
    }
}

fn family(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(metrics);
    family
}

fn gauge(unit_type: Option<&str>, value: u64) -> Metric {
    let label = |unit_type: &str| {
        let mut label = LabelPair::default();
        label.set_name("type".to_owned());
        label.set_value(unit_type.to_owned());
        label
    };
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_gauge(gauge);
    metric.set_label(unit_type.map(label).into_iter().collect());
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn text(counts: &[(&str, u64, u64)]) -> String {
        let count = |(unit_type, units, online): &(&str, u64, u64)| UnitCount {
            unit_type: (*unit_type).to_owned(),
            units: *units,
            online: *online,
        };
        let figures = UnitFigures { by_type: counts.iter().map(count).collect() };
        TextEncoder::new().encode_to_string(&figures.families()).expect("figures are valid")
    }

    #[test]
    fn a_store_without_units_says_nothing() {
        assert_eq!(text(&[("robot", 0, 0), ("station", 0, 0)]), "");
    }

    #[test]
    fn every_metric_of_the_list_is_told() {
        let text = text(&[("robot", 5, 3), ("station", 2, 0), ("unknown", 1, 1)]);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "jarvis_iot_robot_online_count 3",
                "jarvis_iot_units_online_total{type=\"robot\"} 3",
                "jarvis_iot_units_online_total{type=\"station\"} 0",
                "jarvis_iot_units_online_total{type=\"unknown\"} 1",
                "jarvis_iot_units_total 8",
            ]
        );
        for name in NAMES {
            assert!(text.contains(&format!("# TYPE {name} gauge\n")), "{name}: {text}");
        }
    }
}
