//! Where schemas are looked up, and whether they are there.

use std::collections::BTreeSet;

use fleetlog_codec::{Fingerprint, SchemaRef};

use crate::{Area, Check, Finding, brokers::count};

/// Puts the schemas where readers look.
const PUBLISH: &str = "fleetlog schemas publish";
/// Most names that one finding lists.
const SHOWN_MAX: usize = 5;

/// An event's newest schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Full name of the event.
    pub event: String,
    /// The schema's fingerprint.
    pub fingerprint: Fingerprint,
    /// Whether it is where readers look.
    pub is_there: bool,
}

/// A schema that a recent record names, and that nobody could find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// How the record names it.
    pub schema: SchemaRef,
    /// Where such a record lies, as `topic/partition/offset`.
    pub place: String,
}

/// Where schemas go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// A registry at that address (without password).
    Registry(String),
    /// The topic of that name.
    Topic(String),
}

/// What is known of schemas.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where they go.
    pub home: Home,
    /// Whether any events lie on the log.
    pub has_records: bool,
    /// Each event's newest schema; or why the home could not be asked.
    pub newest: Result<Vec<Newest>, String>,
    /// Fingerprints by which the newest records name their schemas.
    pub used: BTreeSet<Fingerprint>,
    /// What the newest records name and nobody could find.
    pub unknown: Vec<Unknown>,
}

/// Judges them.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![home(facts)];
    if let Ok(newest) = &facts.newest {
        findings.push(coverage(facts, newest));
        findings.push(unknown(facts));
    }
    findings
}

fn home(facts: &Facts) -> Finding {
    match (&facts.home, &facts.newest) {
        (Home::Topic(topic), Ok(_)) => {
            Check::SchemasRegistry.ok(format!("no registry is configured, schemas go to topic `{topic}`"))
        }
        (Home::Topic(topic), Err(error)) => Area::Schemas
            .unseen()
            .error(format!("the schema topic `{topic}` cannot be read: {error}"))
            .cure("if it does not exist, create it")
            .by("fleetlog topics apply"),
        (Home::Registry(url), Ok(_)) => Check::SchemasRegistry.ok(format!("the registry at {url} answers")),
        (Home::Registry(url), Err(error)) => Check::SchemasRegistry
            .error(format!("the registry at {url} cannot be asked: {error}"))
            .cure("start it, or correct `registry.url` and its credentials"),
    }
}

fn coverage(facts: &Facts, newest: &[Newest]) -> Finding {
    let place = match &facts.home {
        Home::Registry(_) => "in the registry".to_owned(),
        Home::Topic(topic) => format!("on topic `{topic}`"),
    };
    let missing: Vec<&Newest> = newest.iter().filter(|newest| !newest.is_there).collect();
    if missing.is_empty() {
        return Check::SchemasCoverage
            .ok(format!("the newest schemas of {} events are {place}", newest.len()));
    }
    if missing.len() == newest.len() && !facts.has_records {
        return Check::SchemasCoverage
            .info(format!("no schemas are {place}, and no events on the log: nothing was produced yet"))
            .cure("nothing: a producer puts them there before its first event; or do it now")
            .by(PUBLISH);
    }
    let in_use = missing.iter().any(|missing| facts.used.contains(&missing.fingerprint));
    let shown: Vec<&str> = missing.iter().take(SHOWN_MAX).map(|missing| missing.event.as_str()).collect();
    let more = match missing.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let found = format!("the newest schemas of {}{more} are not {place}", shown.join(", "));
    let finding = if in_use {
        Check::SchemasCoverage
            .error(format!("{found}, though records on the log were written with one of them"))
    } else {
        Check::SchemasCoverage.warning(found)
    };
    finding.cure("put them there").by(PUBLISH)
}

fn unknown(facts: &Facts) -> Finding {
    let Some(first) = facts.unknown.first() else {
        return Check::SchemasUnknown.ok("the newest records name schemas that can be looked up");
    };
    Check::SchemasUnknown
        .error(format!(
            "{} named by recent records cannot be found, such as {} of {}",
            count(facts.unknown.len(), "schema"),
            first.schema,
            first.place
        ))
        .cure(
            "find out who wrote them (`fleetlog events`, header ce_source): a producer puts its schemas where readers look \
             before its first event; if the registry or the schema topic lost them, start it anew",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    fn facts(there: [bool; 2]) -> Facts {
        let newest =
            |(n, is_there): (u64, bool)| Newest { event: format!("fleet.E{n}"), fingerprint: n, is_there };
        Facts {
            home: Home::Topic("p-schemas".into()),
            has_records: true,
            newest: Ok((1..).zip(there).map(newest).collect()),
            used: BTreeSet::new(),
            unknown: Vec::new(),
        }
    }

    fn told(facts: &Facts, check: Check) -> (Severity, String) {
        let found = judge(facts).into_iter().find(|finding| finding.check == check).unwrap();
        (found.severity, found.found)
    }

    #[test]
    fn a_schema_that_is_missing_weighs_more_where_records_use_it() {
        assert_eq!(told(&facts([true, true]), Check::SchemasCoverage).0, Severity::Ok);
        let mut missing = facts([true, false]);
        assert_eq!(told(&missing, Check::SchemasCoverage).0, Severity::Warning);
        missing.used.insert(2);
        let (severity, text) = told(&missing, Check::SchemasCoverage);
        assert_eq!(severity, Severity::Error);
        assert!(text.contains("fleet.E2") && text.contains("p-schemas"), "{text}");
        let mut fresh = facts([false, false]);
        fresh.has_records = false;
        assert_eq!(told(&fresh, Check::SchemasCoverage).0, Severity::Info);
    }

    #[test]
    fn a_registry_that_is_away_and_a_schema_that_nobody_has_are_found() {
        let mut away = facts([true, true]);
        away.home = Home::Registry("http://r:8081".into());
        away.newest = Err("connection refused".into());
        assert_eq!(told(&away, Check::SchemasRegistry).0, Severity::Error);
        let mut foreign = facts([true, true]);
        foreign.unknown.push(Unknown { schema: SchemaRef::Id(7), place: "p-task/1/9".into() });
        let (severity, text) = told(&foreign, Check::SchemasUnknown);
        assert_eq!(severity, Severity::Error);
        assert!(text.contains("schema id 7") && text.contains("p-task/1/9"), "{text}");
    }
}
