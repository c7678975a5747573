//! `docs/metrics.md` against the names in the code.

use std::collections::BTreeSet;

#[test]
fn the_page_lists_exactly_the_metrics_that_the_code_has() {
    let page = include_str!("../../docs/metrics.md");
    let listed: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names = fleetlog_engine::metrics::NAMES
        .iter()
        .chain(&fleetlog_engine::handler_metrics::NAMES)
        .chain(&fleetlog_producer::metrics::NAMES)
        .chain(&fleetlog_sink_timescale::metrics::NAMES)
        .chain(&fleetlog_sink_redis::metrics::NAMES)
        .chain(&fleetlog_presence::metrics::NAMES);
    let known: BTreeSet<&str> = names.copied().collect();
    assert_eq!(listed, known, "docs/metrics.md (left) and the code (right) differ");
}
