//! `docs/doctor.md` against the checks in the code.

use std::collections::BTreeSet;

use fleetlog_doctor::{Area, Check};

#[test]
fn the_page_lists_exactly_the_checks_that_the_code_has_in_their_areas() {
    let page = include_str!("../../docs/doctor.md");
    let mut area = "";
    let mut listed = BTreeSet::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## `") {
            area = title.split('`').next().unwrap();
        } else if let Some(code) = line.strip_prefix("| `") {
            listed.insert((area, code.split('`').next().unwrap()));
        }
    }
    let known: BTreeSet<(&str, &str)> =
        Check::ALL.iter().map(|check| (check.area().as_str(), check.code())).collect();
    assert_eq!(listed, known, "docs/doctor.md (left) and the code (right) differ");
    let areas: BTreeSet<&str> = listed.iter().map(|(area, _)| *area).collect();
    assert_eq!(areas, Area::ALL.iter().map(|area| area.as_str()).collect());
}
