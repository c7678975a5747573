//! Follows `docs/tutorial-projection.md`: the file it shows is compiled, and its tests are run, here.

#[path = "tutorial/fault_totals.rs"]
pub mod fault_totals;

const FILE: &str = include_str!("tutorial/fault_totals.rs");
const TUTORIAL: &str = include_str!("../../../docs/tutorial-projection.md");

/// The code blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let blocks = TUTORIAL.split(&opening).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_tutorial_shows_the_file_that_is_compiled() {
    assert!(
        blocks("rust") == [FILE],
        "docs/tutorial-projection.md does not show crates/projections/tests/tutorial/fault_totals.rs as it is: \
         copy the file into its ```rust block"
    );
    let lines = FILE.lines().count();
    assert!(
        (50..=80).contains(&lines),
        "a projection in one file is promised to have 50-80 lines, this has {lines}"
    );
}

/// The lines for the list, as the tutorial shows them, look like those that are there.
#[test]
fn the_list_has_the_form_that_the_tutorial_shows() {
    let list = include_str!("../src/lib.rs");
    let shown = blocks("text").concat();
    let shown: Vec<&str> = shown.lines().filter(|line| !line.is_empty()).collect();
    let ours = ["[`fault_totals`]", "fault_totals", "fault_totals::FaultTotals"];
    let theirs = ["[`unit_status`]", "unit_status", "UnitStatus"];
    assert_eq!(shown.len(), 3, "a row, a module, an entry of the list");
    for ((line, ours), theirs) in shown.into_iter().zip(ours).zip(theirs) {
        let (before, _) = line.split_once(ours).unwrap_or_else(|| panic!("`{line}` does not name `{ours}`"));
        let like = format!("{before}{theirs}");
        assert!(
            list.contains(&like),
            "crates/projections/src/lib.rs has no line like `{like}`, as the tutorial says"
        );
    }
}
