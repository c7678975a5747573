//! The platform's metrics of tasks, as Prometheus reads them. Their totals are stored ([`crate::Database::task_figures`]);
//! nothing is counted in this process.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Tasks created, by site and type.
pub const TASKS_CREATED_TOTAL: &str = "app_delivery_tasks_created_total";
/// Tasks completed.
pub const TASKS_COMPLETED_TOTAL: &str = "app_delivery_tasks_completed_total";
/// Tasks failed.
pub const TASKS_FAILED_TOTAL: &str = "app_delivery_tasks_failed_total";
/// How long completed tasks took from start to end, in seconds.
pub const TASK_DURATION_SECONDS: &str = "app_delivery_task_duration_seconds";

/// Every name above.
pub const NAMES: [&str; 4] =
    [TASKS_CREATED_TOTAL, TASKS_COMPLETED_TOTAL, TASKS_FAILED_TOTAL, TASK_DURATION_SECONDS];

/// Upper bounds of the durations' buckets, in seconds, each with the name of its stored figure; the last has no bound.
const BUCKETS_S: [(f64, &str); 9] = [
    (10.0, "le_10"),
    (30.0, "le_30"),
    (60.0, "le_60"),
    (120.0, "le_120"),
    (300.0, "le_300"),
    (600.0, "le_600"),
    (1800.0, "le_1800"),
    (3600.0, "le_3600"),
    (f64::INFINITY, "le_inf"),
];

/// Totals of tasks of one site and type. Each only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Totals {
    created: u64,
    completed: u64,
    failed: u64,
    /// Tasks by the bucket that their duration lies in, not cumulative.
    durations: [u64; BUCKETS_S.len()],
    duration_ms: u64,
}

/// Totals of tasks by site and type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFigures {
    by_pair: BTreeMap<(String, String), Totals>,
}

impl TaskFigures {
    /// Takes one stored figure. One that this version does not know is left out.
    pub(crate) fn take(&mut self, site_uid: String, task_type: String, figure: &str, value: u64) {
        let totals = self.by_pair.entry((site_uid, task_type)).or_default();
        let place = match figure {
            "created" => &mut totals.created,
            "completed" => &mut totals.completed,
            "failed" => &mut totals.failed,
            "duration_ms" => &mut totals.duration_ms,
            bucket => match BUCKETS_S.iter().position(|(_, name)| *name == bucket) {
                Some(index) => &mut totals.durations[index],
                None => return,
            },
        };
        *place = value;
    }

    /// The metrics; none before the first task.
    #[must_use]
    pub fn families(&self) -> Vec<MetricFamily> {
        if self.by_pair.is_empty() {
            return Vec::new();
        }
        vec![
            self.counter(TASKS_CREATED_TOTAL, "Tasks created", |totals| totals.created),
            self.counter(TASKS_COMPLETED_TOTAL, "Tasks completed", |totals| totals.completed),
            self.counter(TASKS_FAILED_TOTAL, "Tasks failed", |totals| totals.failed),
            self.family(
                TASK_DURATION_SECONDS,
                "How long completed tasks took from start to end, in seconds",
                MetricType::HISTOGRAM,
                |totals, metric| metric.set_histogram(totals.histogram()),
            ),
        ]
    }

    fn counter(&self, name: &str, help: &str, of: impl Fn(&Totals) -> u64) -> MetricFamily {
        self.family(name, help, MetricType::COUNTER, |totals, metric| {
            let mut counter = Counter::default();
            counter.set_value(of(totals) as f64);
            metric.set_counter(counter);
        })
    }

    fn family(
        &self,
        name: &str,
        help: &str,
        kind: MetricType,
        set: impl Fn(&Totals, &mut Metric),
    ) -> MetricFamily {
        let metric = |((site_uid, task_type), totals): (&(String, String), &Totals)| {
            let mut metric =
                Metric::from_label(vec![label("site_uid", site_uid), label("task_type", task_type)]);
            set(totals, &mut metric);
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(self.by_pair.iter().map(metric).collect());
        family
    }
}

impl Totals {
    fn histogram(&self) -> Histogram {
        let mut count = 0;
        let bucket = |((upper_bound_s, _), tasks): (&(f64, &str), &u64)| {
            count += tasks;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*upper_bound_s);
            bucket.set_cumulative_count(count);
            bucket
        };
        // The last bucket has no bound: the text format adds it from the count.
        let mut buckets: Vec<Bucket> = BUCKETS_S.iter().zip(&self.durations).map(bucket).collect();
        buckets.pop();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.duration_ms as f64 / 1000.0);
        histogram
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn figures(stored: &[(&str, &str, &str, u64)]) -> TaskFigures {
        let mut figures = TaskFigures::default();
        for (site_uid, task_type, figure, value) in stored {
            figures.take((*site_uid).to_owned(), (*task_type).to_owned(), figure, *value);
        }
        figures
    }

    fn text(figures: &TaskFigures) -> String {
        TextEncoder::new().encode_to_string(&figures.families()).unwrap()
    }

    #[test]
    fn before_the_first_task_nothing_is_said() {
        assert_eq!(text(&TaskFigures::default()), "");
    }

    #[test]
    fn buckets_are_told_cumulative_and_durations_in_seconds() {
        let text = text(&figures(&[
            ("504", "transport", "created", 9),
            ("504", "transport", "completed", 7),
            ("504", "transport", "le_10", 1),
            ("504", "transport", "le_60", 2),
            ("504", "transport", "le_inf", 3),
            ("504", "transport", "duration_ms", 12_345_678),
            ("504", "transport", "of a later version", 77),
        ]));
        let labels = "site_uid=\"504\",task_type=\"transport\"";
        let expected = [
            format!("{TASKS_CREATED_TOTAL}{{{labels}}} 9"),
            format!("{TASKS_COMPLETED_TOTAL}{{{labels}}} 7"),
            // What never happened is 0 from the beginning, so that the first time is an increase.
            format!("{TASKS_FAILED_TOTAL}{{{labels}}} 0"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"10\"}} 1"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"30\"}} 1"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"60\"}} 3"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"120\"}} 3"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"300\"}} 3"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"600\"}} 3"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"1800\"}} 3"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"3600\"}} 3"),
            format!("{TASK_DURATION_SECONDS}_bucket{{{labels},le=\"+Inf\"}} 6"),
            format!("{TASK_DURATION_SECONDS}_sum{{{labels}}} 12345.678"),
            format!("{TASK_DURATION_SECONDS}_count{{{labels}}} 6"),
        ];
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, expected);
        assert!(!text.contains("77"), "{text}");
    }

    #[test]
    fn what_a_producer_writes_into_a_label_cannot_break_a_line() {
        let text = text(&figures(&[("a\"b\\c\nd", "", "created", 1)]));
        assert!(text.contains(r#"{site_uid="a\"b\\c\nd",task_type=""} 1"#), "{text}");
    }

    #[test]
    fn every_metric_of_the_list_is_told() {
        let families = figures(&[("504", "transport", "created", 1)]).families();
        assert_eq!(families.iter().map(MetricFamily::name).collect::<Vec<_>>(), NAMES);
    }
}
