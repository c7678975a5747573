//! The MQTT topic: who a message is about, and what kind it is of.

use std::fmt;

use crate::DeadReason;

/// The kinds of message, as the last level of the topic names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// How the vehicle is; on change and on a timer.
    State,
    /// Where the vehicle is; more often than its state.
    Visualization,
    /// Whether the vehicle is connected.
    Connection,
    /// What the vehicle is to do.
    Order,
    /// What the vehicle is to do at once.
    InstantActions,
    /// What the vehicle is.
    Factsheet,
    /// VDA 5050 3.0: zones for the vehicle. No event says it.
    ZoneSet,
    /// VDA 5050 3.0: answers to the vehicle's requests. No event says it.
    Responses,
    /// Not a topic of VDA 5050, or no message at all.
    Other,
}

impl MessageKind {
    /// Every kind, in the order of a report.
    pub const ALL: [Self; 9] = [
        Self::State,
        Self::Visualization,
        Self::Connection,
        Self::Order,
        Self::InstantActions,
        Self::Factsheet,
        Self::ZoneSet,
        Self::Responses,
        Self::Other,
    ];

    /// The kind's level in the topic; `other` for [`Self::Other`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Visualization => "visualization",
            Self::Connection => "connection",
            Self::Order => "order",
            Self::InstantActions => "instantActions",
            Self::Factsheet => "factsheet",
            Self::ZoneSet => "zoneSet",
            Self::Responses => "responses",
            Self::Other => "other",
        }
    }

    fn parse(level: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind != Self::Other && kind.as_str() == level)
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A topic taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    pub(crate) interface: &'a str,
    /// Such as `v2`; the payload's `version` is what counts, if there is one.
    pub(crate) version: &'a str,
    pub(crate) manufacturer: &'a str,
    pub(crate) serial_number: &'a str,
    pub(crate) kind: MessageKind,
}

/// Longest identity in bytes; what the events allow (`fleetlog_event`: identifying texts).
const IDENTITY_BYTES_MAX: usize = 512;

impl<'a> Address<'a> {
    pub(crate) fn parse(topic: &'a str) -> Result<Self, (DeadReason, String)> {
        let wrong = |why: &str| {
            let form = "<interface>/v<major>/<manufacturer>/<serial number>/<kind>";
            (DeadReason::NotVdaTopic, format!("the topic {why}, expected `{form}`"))
        };
        let levels: Vec<&str> = topic.split('/').collect();
        let [interface, version, manufacturer, serial_number, kind] = levels[..] else {
            return Err(wrong(&format!("has {} levels", levels.len())));
        };
        let kind = MessageKind::parse(kind).ok_or_else(|| wrong("ends in no known kind of message"))?;
        if interface.is_empty() || manufacturer.is_empty() || serial_number.is_empty() {
            return Err(wrong("has an empty level"));
        }
        let unit_bytes = manufacturer.len() + 1 + serial_number.len();
        if interface.len() > IDENTITY_BYTES_MAX || unit_bytes > IDENTITY_BYTES_MAX {
            let detail = format!("the topic names a vehicle in more than {IDENTITY_BYTES_MAX} bytes");
            return Err((DeadReason::TooLong, detail));
        }
        Ok(Self { interface, version, manufacturer, serial_number, kind })
    }

    /// The unit's id: the serial number alone is not unique.
    pub(crate) fn unit_uid(&self) -> String {
        format!("{}/{}", self.manufacturer, self.serial_number)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_vehicle_and_kind_with_spaces_umlauts_and_marks() {
        let address = Address::parse("hub nörd/v2/Kranich Robotik/kr_07:a.8/state").unwrap();
        assert_eq!(
            (address.interface, address.unit_uid().as_str(), address.kind),
            ("hub nörd", "Kranich Robotik/kr_07:a.8", MessageKind::State)
        );
    }

    #[test]
    fn other_topics_are_told() {
        for topic in ["", "a/v2/b/c", "a/v2/b/c/d", "a/v2/b/c/other", "a/v2/b/c/state/x", "a/v2//c/state"] {
            assert_eq!(Address::parse(topic).unwrap_err().0, DeadReason::NotVdaTopic, "{topic}");
        }
        let topic = format!("a/v2/{}/c/state", "x".repeat(600));
        assert_eq!(Address::parse(&topic).unwrap_err().0, DeadReason::TooLong);
    }
}
