//! What has to hold between schema files, and between the newest file of an event and its struct.
//!
//! The contract tests run [`check`] over the project's own files; `fleetlog schemas check` runs it over a user's.

mod evolution;
mod files;
mod random;
mod shape;
mod structs;

use std::{fmt, fs, io, path::Path};

use fleetlog_event::FleetEvent;

use crate::{builtin_files, schema::file_version};

pub use evolution::unreadable;
pub use random::Random;

/// A schema file to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaText {
    /// Below `schemas/`, such as `robot/Connected.v1.avsc`.
    pub path: String,
    /// Its text.
    pub json: String,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: String,
    /// What is wrong, where in it, and what to do.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schemas/{}: {}", self.path, self.problem)
    }
}

/// The files compiled into this binary.
#[must_use]
pub fn builtin_texts() -> Vec<SchemaText> {
    builtin_files()
        .iter()
        .map(|file| SchemaText { path: file.path.to_owned(), json: file.json.to_owned() })
        .collect()
}

/// Every file under `root/<topic>/`, whatever its name, sorted by path.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn read_folder(root: &Path) -> io::Result<Vec<SchemaText>> {
    let mut texts = Vec::new();
    for topic in fs::read_dir(root)? {
        let topic = topic?;
        let topic_name = topic.file_name().to_string_lossy().into_owned();
        if !topic.file_type()?.is_dir() {
            texts.push(SchemaText { path: topic_name, json: fs::read_to_string(topic.path())? });
            continue;
        }
        for file in fs::read_dir(topic.path())? {
            let file = file?;
            let path = format!("{topic_name}/{}", file.file_name().to_string_lossy());
            texts.push(SchemaText { path, json: fs::read_to_string(file.path())? });
        }
    }
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(texts)
}

/// Everything that does not hold: each file by itself, all versions of an event with each other
/// (FULL_TRANSITIVE), the newest with its struct, and files without struct and the reverse.
#[must_use]
pub fn check(texts: &[SchemaText]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut files: Vec<files::File> =
        texts.iter().filter_map(|text| files::read(text, &mut findings)).collect();
    files.sort_by(|a, b| (&a.stem, a.version).cmp(&(&b.stem, b.version)));
    for event in FleetEvent::types() {
        let stem = format!("{}/{}", event.topic, event.short_name());
        if !files.iter().any(|file| file.stem == stem)
            && !texts.iter().any(|text| text.path.starts_with(&format!("{stem}.v")))
        {
            let problem = format!("is missing: `{}` in crates/event has no schema", event.name);
            findings.push(Finding { path: format!("{stem}.v1.avsc"), problem });
        }
    }
    for versions in files.chunk_by(|a, b| a.stem == b.stem) {
        check_versions(&versions.iter().collect::<Vec<_>>(), &mut findings);
    }
    findings
}

fn check_versions(versions: &[&files::File], findings: &mut Vec<Finding>) {
    let finding = |file: &files::File, problem| Finding { path: file.path.clone(), problem };
    for (n, file) in versions.iter().enumerate() {
        if file.version as usize != n + 1 {
            findings.push(finding(file, format!("version {} is missing before it", n + 1)));
            return;
        }
    }
    for reader in versions {
        for writer in versions.iter().filter(|writer| writer.version != reader.version) {
            for problem in unreadable(&writer.schema, &reader.schema) {
                let problem = format!("does not read what version {} writes: {problem}", writer.version);
                findings.push(finding(reader, problem));
            }
        }
    }
    let Some(newest) = versions.last() else { return };
    if !FleetEvent::types().any(|event| event.name == newest.name) {
        let problem =
            format!("there is no struct for `{}` in crates/event, or it is in no event set", newest.name);
        findings.push(finding(newest, problem));
        return;
    }
    let problems = structs::check(&newest.name, versions);
    findings.extend(
        problems.into_iter().map(|(version, problem)| finding(versions[version as usize - 1], problem)),
    );
}

/// `robot/Connected` and `2` of `robot/Connected.v2.avsc`.
fn parts_of(path: &str) -> Option<(&str, u32)> {
    let version = file_version(path)?;
    let (stem, _) = path.strip_suffix(".avsc")?.rsplit_once(".v")?;
    let (topic, event) = stem.split_once('/')?;
    (!topic.is_empty() && !event.is_empty() && !event.contains('/')).then_some((stem, version))
}

#[cfg(test)]
#[path = "compat/tests.rs"]
mod tests;
