//! Which dead letters are meant.

use std::fmt;

use fleetlog_event::{TimestampMs, UnitKey, catalogue::PARKING};
use fleetlog_letter::time_text;
use serde::Serialize;

use crate::{Letter, Origin, Place};

/// Which dead letters are meant: those for which all of it holds; of a list, one entry has to. Nothing asked for means
/// all of them ([`is_everything`](Self::is_everything)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Source topics, without the deployment's prefix: `robot`.
    pub topics: Vec<String>,
    /// The partition of the source topic. Needs one topic.
    pub partition: Option<i32>,
    /// The first offset of the source topic. Needs a partition.
    pub offset_from: Option<i64>,
    /// The last offset of the source topic. Needs a partition.
    pub offset_to: Option<i64>,
    /// Reasons, such as `unknown_schema`.
    pub reasons: Vec<String>,
    /// Classes: `reject`, `refused`, or a stage of Kafka Connect.
    pub classes: Vec<String>,
    /// Event types, in full or the last part: `fleetlog.robot.Connected`, `Connected`.
    pub event_types: Vec<String>,
    /// Consumer groups.
    pub groups: Vec<String>,
    /// Keys of records.
    pub keys: Vec<String>,
    /// Sites, as their sources name them (not percent-encoded).
    pub sites: Vec<String>,
    /// Set aside at or after this time.
    pub since: Option<TimestampMs>,
    /// Set aside before this time.
    pub until: Option<TimestampMs>,
    /// Places on dead-letter topics. Stand alone.
    pub ids: Vec<Place>,
    /// No more than so many, the oldest first.
    pub max: Option<usize>,
}

/// Why a selector can match nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The range of times is empty.
    #[error("nothing is set aside from {since} and before {until}: the first has to be the earlier")]
    Times {
        /// Its begin.
        since: String,
        /// Its end.
        until: String,
    },
    /// The range of offsets is empty.
    #[error("there is no offset from {from} to {to}")]
    Offsets {
        /// Its begin.
        from: i64,
        /// Its end.
        to: i64,
    },
    /// A number below 0.
    #[error("{what} {value} cannot be: they begin at 0")]
    Negative {
        /// Of what.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// A part of a place without the rest.
    #[error("{what} say nothing without {needs}")]
    Incomplete {
        /// What was given.
        what: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// A unit of another site.
    #[error("key {key} is a unit of site {of}, which is none of the sites asked for ({sites})")]
    OtherSite {
        /// The key.
        key: String,
        /// Its site.
        of: String,
        /// The sites asked for.
        sites: String,
    },
    /// Places name letters one by one; nothing else can be meant.
    #[error("places name letters one by one: give no other selector beside them")]
    IdsAndMore,
    /// None of them.
    #[error("at most 0 letters are none")]
    MaxZero,
    /// An empty text in a list: a variable of a script that was not set.
    #[error("an empty {0} matches nothing")]
    Empty(&'static str),
}

/// What of an event a selector may need beside the letter's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// The event's site.
    pub site_uid: Option<String>,
    /// The event's full name.
    pub event_type: Option<String>,
}

impl Selector {
    /// Whether nothing is asked for: all letters are meant, up to `max`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        Self { max: None, ..self.clone() } == Self::default()
    }

    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first one, with the values.
    pub fn check(&self) -> Result<(), SelectorError> {
        self.check_lists()?;
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(SelectorError::Times { since: time_text(since), until: time_text(until) });
        }
        let offsets = [self.offset_from, self.offset_to];
        let partition = self.partition.map(i64::from);
        for (what, value) in [("partition", partition), ("offset", offsets[0]), ("offset", offsets[1])] {
            if let Some(value) = value.filter(|value| *value < 0) {
                return Err(SelectorError::Negative { what, value });
            }
        }
        if let (Some(from), Some(to)) = (self.offset_from, self.offset_to)
            && from > to
        {
            return Err(SelectorError::Offsets { from, to });
        }
        if offsets.iter().any(Option::is_some) && self.partition.is_none() {
            return Err(SelectorError::Incomplete { what: "offsets", needs: "a partition" });
        }
        if self.partition.is_some() && self.topics.len() != 1 {
            return Err(SelectorError::Incomplete { what: "partitions", needs: "one topic" });
        }
        if self.max == Some(0) {
            return Err(SelectorError::MaxZero);
        }
        let ids_alone = Self { ids: self.ids.clone(), ..Self::default() };
        if !self.ids.is_empty() && *self != ids_alone {
            return Err(SelectorError::IdsAndMore);
        }
        Ok(())
    }

    fn check_lists(&self) -> Result<(), SelectorError> {
        for (what, values) in self.lists() {
            if values.iter().any(String::is_empty) {
                return Err(SelectorError::Empty(what));
            }
        }
        let foreign = |key: &String| {
            let of = UnitKey::parse(key).ok()?.site_uid;
            (!self.sites.contains(&of)).then(|| (key.clone(), of))
        };
        // Keys that are no unit's may be of any site; and with several keys one that fits is enough.
        if self.sites.is_empty() || self.keys.is_empty() {
            return Ok(());
        }
        match self.keys.iter().map(foreign).collect::<Option<Vec<_>>>() {
            Some(all) => {
                let (key, of) = all.into_iter().next().unwrap_or_default();
                Err(SelectorError::OtherSite { key, of, sites: self.sites.join(", ") })
            }
            None => Ok(()),
        }
    }

    fn lists(&self) -> [(&'static str, &Vec<String>); 7] {
        [
            ("topic", &self.topics),
            ("reason", &self.reasons),
            ("class", &self.classes),
            ("type", &self.event_types),
            ("group", &self.groups),
            ("key", &self.keys),
            ("site", &self.sites),
        ]
    }

    /// Whether it has to be known what is inside the letter, beyond its headers and key, before it can be said whether it is
    /// meant.
    #[must_use]
    pub fn needs_inside(&self, letter: &Letter) -> bool {
        let site = !self.sites.is_empty() && letter.site_of_key().is_none();
        let event_type = !self.event_types.is_empty() && letter.event_type.is_none();
        (site || event_type) && self.matches_outside(letter)
    }

    /// Whether the letter is meant; `topic_prefix` is the deployment's. `max` is not asked here.
    #[must_use]
    pub fn matches(&self, letter: &Letter, topic_prefix: &str, inside: &Inside) -> bool {
        let event_type = letter.event_type.as_deref().or(inside.event_type.as_deref());
        let site = letter.site_of_key().or_else(|| inside.site_uid.clone());
        self.matches_outside(letter)
            && self.matches_source(letter, topic_prefix)
            && (self.sites.is_empty() || site.is_some_and(|site| self.sites.contains(&site)))
            && (self.event_types.is_empty() || event_type.is_some_and(|name| self.names_type(name)))
    }

    fn matches_outside(&self, letter: &Letter) -> bool {
        let one_of =
            |list: &Vec<String>, value: &str| list.is_empty() || list.iter().any(|entry| entry == value);
        one_of(&self.reasons, &letter.reason)
            && (self.classes.is_empty() || letter.class.as_ref().is_some_and(|it| self.classes.contains(it)))
            && one_of(&self.groups, &letter.group)
            && (self.keys.is_empty()
                || self.keys.iter().any(|key| Some(key.as_bytes()) == letter.key.as_deref()))
            && self.since.is_none_or(|since| letter.set_aside_at >= since)
            && self.until.is_none_or(|until| letter.set_aside_at < until)
            && (self.ids.is_empty() || self.ids.contains(&letter.place))
    }

    /// The source topic by its stem, or the dead-letter topic that is called after it.
    fn matches_source(&self, letter: &Letter, topic_prefix: &str) -> bool {
        let source = letter.source_topic.as_deref().unwrap_or_default();
        let source = source.strip_prefix(topic_prefix).unwrap_or(source);
        let of_letters = stem_of(&letter.place.topic).unwrap_or(&letter.place.topic);
        let topic =
            self.topics.is_empty() || self.topics.iter().any(|topic| topic == source || topic == of_letters);
        let Some(wanted) = self.partition else { return topic };
        match letter.origin {
            Origin::Log { partition, offset, .. } => {
                topic
                    && partition == wanted
                    && self.offset_from.is_none_or(|from| offset >= from)
                    && self.offset_to.is_none_or(|to| offset <= to)
            }
            _ => false,
        }
    }

    fn names_type(&self, name: &str) -> bool {
        self.event_types.iter().any(|wanted| {
            name == wanted || name.strip_suffix(wanted.as_str()).is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

/// The source topic that a topic of letters is called after, where it is.
pub(crate) fn stem_of(letters: &str) -> Option<&str> {
    letters.strip_suffix("-dlq").or_else(|| letters.strip_suffix(PARKING))
}

impl fmt::Display for Selector {
    /// For the audit trail: `reason=unknown_task site=504 max=10`, or `everything`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        for (what, values) in self.lists() {
            parts.extend((!values.is_empty()).then(|| format!("{what}={}", values.join(","))));
        }
        let ids: Vec<String> = self.ids.iter().map(Place::to_string).collect();
        let number = |value: Option<i64>| value.map(|value| value.to_string());
        for (what, value) in [
            ("partition", number(self.partition.map(i64::from))),
            ("offset-from", number(self.offset_from)),
            ("offset-to", number(self.offset_to)),
            ("since", self.since.map(time_text)),
            ("until", self.until.map(time_text)),
            ("id", (!ids.is_empty()).then(|| ids.join(","))),
            ("max", self.max.map(|max| max.to_string())),
        ] {
            parts.extend(value.map(|value| format!("{what}={value}")));
        }
        if self.is_everything() {
            parts.insert(0, "everything".to_owned());
        }
        f.write_str(&parts.join(" "))
    }
}

impl Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[path = "selector/tests.rs"]
mod tests;
