//! What belongs to a projection beside its file: says what is missing, and where to put it.

use std::{collections::BTreeSet, fs, path::PathBuf};

use fleetlog_event::catalogue::{Catalogue, Retention};
use fleetlog_projections::all;

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}

/// A projector found in the sources.
struct Found {
    module: String,
    projector: String,
    kind: &'static str,
    source: String,
}

fn projectors() -> Vec<Found> {
    let folder = root().join("crates/projections/src");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).expect("the sources are there") {
        let path = entry.expect("the sources can be listed").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(&path).expect("a source can be read");
        let module = path.file_stem().expect("a source has a name").to_string_lossy().into_owned();
        for (kind, implements) in [
            ("fold", "impl FoldProjector for "),
            ("map", "impl MapProjector for "),
            ("letters", "impl RecordProjector for "),
        ] {
            for rest in source.split(implements).skip(1) {
                let projector = rest.split([' ', '<', '{']).next().unwrap_or_default().to_owned();
                found.push(Found { module: module.clone(), projector, kind, source: source.clone() });
            }
        }
    }
    found
}

#[test]
fn every_projector_is_in_the_list_and_in_the_table() {
    let list = fs::read_to_string(root().join("crates/projections/src/lib.rs")).expect("lib.rs is there");
    let mut missing = Vec::new();
    for Found { module, projector, kind, .. } in projectors() {
        // A fold lands in hot state, or (as a ledger) in SQL.
        let kinds: &[&str] = if kind == "fold" { &["fold", "ledger"] } else { &[kind] };
        let is_listed = |kind: &&str| {
            list.contains(&format!("$action!({kind}, $crate::{projector});"))
                || list.contains(&format!("$action!({kind}, $crate::{module}::{projector});"))
        };
        if !kinds.iter().any(is_listed) {
            let kind = kinds.join("|");
            missing.push(format!(
                "add `$action!({kind}, $crate::{module}::{projector});` to for_each_projection!"
            ));
        }
        if !list.contains(&format!("//! | [`{module}`] |")) {
            missing.push(format!("add a row for [`{module}`] to the table of the module's documentation"));
        }
        if !list.contains(&format!("pub mod {module};")) {
            missing.push(format!("add `pub mod {module};`"));
        }
    }
    assert!(missing.is_empty(), "in crates/projections/src/lib.rs:\n- {}", missing.join("\n- "));
    assert_eq!(
        projectors().len(),
        all().len(),
        "for_each_projection! names a projector twice, or one that is gone"
    );
}

#[test]
fn every_projector_has_its_tests() {
    let mut missing = Vec::new();
    for Found { module, projector, source, .. } in projectors() {
        let beside = root().join(format!("crates/projections/src/{module}/tests.rs"));
        let tests = fs::read_to_string(beside).unwrap_or_default() + &source;
        let begins = ["given", "given_map", "given_records"];
        if !begins.iter().any(|begin| tests.contains(&format!("{begin}({projector})"))) {
            missing.push(format!("crates/projections/src/{module}.rs: add a test with `given({projector})`"));
        }
        if !tests.contains("assert_cuts_do_not_matter") {
            missing.push(format!(
                "crates/projections/src/{module}.rs: add a property with `assert_cuts_do_not_matter`"
            ));
        }
    }
    assert!(missing.is_empty(), "missing tests:\n- {}", missing.join("\n- "));
}

#[test]
fn ids_are_unique_and_fit_into_keys() {
    let mut seen = BTreeSet::new();
    for projection in all() {
        assert!(seen.insert(projection.id), "two projections have the ID `{}`: change one", projection.id);
        let fits = projection.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(
            fits,
            "ID `{}`: use a-z and `-` only, it becomes part of group names and keys",
            projection.id
        );
        assert!(projection.version > 0, "`{}`: versions count from 1", projection.id);
    }
}

#[test]
fn topics_are_in_the_catalogue_and_folds_over_retention_are_known() {
    /// Folds that keep last values only, so that they may read a topic with retention.
    const LAST_VALUE: [&str; 1] = ["unit-consensus"];
    let catalogue = Catalogue::builtin();
    for projection in all() {
        for stem in projection.topics {
            assert!(
                catalogue.dedup_window_offsets(stem).is_some(),
                "`{}` reads topic `{stem}`: add topics/{stem}.toml",
                projection.id
            );
            let kept = catalogue.topic(stem).is_some_and(|topic| topic.retention == Retention::Forever);
            assert!(
                kept || !projection.folds || LAST_VALUE.contains(&projection.id),
                "`{}` folds topic `{stem}`, which has retention: such a fold may keep last values only (if it does, \
                 name it in LAST_VALUE)",
                projection.id
            );
        }
    }
}

#[test]
fn every_table_has_its_migration() {
    let mut migrations = String::new();
    for entry in fs::read_dir(root().join("migrations")).expect("migrations are there") {
        let path = entry.expect("migrations can be listed").path();
        migrations += &fs::read_to_string(path).expect("a migration can be read");
    }
    let mut tables = 0;
    for Found { source, module, .. } in projectors() {
        for rest in source.split("Table = Table {").skip(1) {
            let name = rest.split('"').nth(1).unwrap_or_default();
            tables += 1;
            assert!(
                migrations.contains(&format!("CREATE TABLE {name} (")),
                "table `{name}` of crates/projections/src/{module}.rs: add a migration with `CREATE TABLE {name} (`"
            );
        }
    }
    assert_eq!(tables, 6, "tables were found in the sources (adapt this number when you add one)");
}
