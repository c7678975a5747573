//! From a candidate and what hot state shows of it to an event.

use fleetlog_event::{
    EventId, EventMeta, TimestampMs, UnitKey,
    robot::{Connected, DisconnectReason, Disconnected, RobotEvent},
};

/// Who made the events: stands in `meta.source`.
const SOURCE: &str = concat!("fleetlog-presence/", env!("CARGO_PKG_VERSION"));

/// What a unit is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It is heard while it does not count as connected.
    Back,
    /// It counts as connected and was not heard for the timeout.
    Silent,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Back, Self::Silent];

    /// The event that it becomes: metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Back => "connected",
            Self::Silent => "timeout",
        }
    }
}

/// A unit that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its site, as its source names it.
    pub site_uid: String,
    /// Its key, `s{site}.u{unit}`.
    pub unit: String,
    /// For what.
    pub kind: Kind,
    /// `Silent`: when it was last heard. `Back`: when it was first heard again. By its `recorded_at`.
    pub heard_at: TimestampMs,
}

/// Whether a unit counts as connected, as far as presence minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nobody ever said that it is, or is not.
    Unknown,
    /// Connected.
    Online,
    /// Broken, silent, or for a reason that this version does not know: it is back once it is heard.
    Lost,
    /// It said itself that it goes, or sleeps: it will say itself that it is back.
    SignedOff,
    /// It left the fleet.
    Decommissioned,
}

/// What the hash `unit:{unit}` says of a unit's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it counts as connected.
    pub shown: Shown,
    /// Which of its connections this is, or its last one was: the same for every worker that looks.
    episode: String,
}

impl Status {
    /// Fields of the hash that [`Self::read`] needs, in its order.
    pub const FIELDS: [&'static str; 4] = ["connection", "disconnect_reason", "connects", "connection_since"];

    /// Reads the fields; an absent hash is a unit of which nothing was told.
    #[must_use]
    pub fn read(fields: &[Option<String>]) -> Self {
        let field = |index: usize| fields.get(index).and_then(Option::as_deref);
        let shown = match (field(0), field(1)) {
            (None | Some("unknown"), _) => Shown::Unknown,
            (Some("online"), _) => Shown::Online,
            (Some("offline"), Some("graceful" | "hibernating")) => Shown::SignedOff,
            (Some("offline"), _) => Shown::Lost,
            // `decommissioned`, or what a later version writes: nothing to meddle with.
            (Some(_), _) => Shown::Decommissioned,
        };
        let episode: Vec<&str> = (1..4).map(|index| field(index).unwrap_or_default()).collect();
        Self { shown, episode: episode.join("|") }
    }
}

/// The event that a candidate becomes; none where hot state says otherwise, or the unit is to be left alone.
///
/// Its id is derived from the unit, the kind, the connection that it ends or follows, and for a silence from when the
/// unit was last heard: two workers that are active at once say the same event, which counts once.
#[must_use]
pub fn decide(candidate: &Candidate, status: &Status) -> Option<RobotEvent> {
    let unit = UnitKey::parse(&candidate.unit).ok()?;
    let Candidate { kind, heard_at, .. } = candidate;
    let what = match (kind, status.shown) {
        (Kind::Silent, Shown::Online) => format!("{}@{}", kind.as_str(), heard_at.0),
        // When it was first heard again depends on who listened.
        (Kind::Back, Shown::Lost | Shown::Unknown) => kind.as_str().to_owned(),
        _ => return None,
    };
    let meta = EventMeta {
        event_id: EventId::derived(&format!("presence:{}:{what}:{}", candidate.unit, status.episode), 0),
        occurred_at: *heard_at,
        // Filled in by the producer: the wall clock stands only where it is recorded.
        recorded_at: TimestampMs(0),
        site_uid: unit.site_uid,
        unit_uid: Some(unit.unit_uid),
        sequence: None,
        sequence_scope: None,
        source: SOURCE.to_owned(),
        correlation_id: None,
        causation_id: None,
    };
    Some(match kind {
        Kind::Silent => Disconnected { meta, reason: DisconnectReason::Timeout }.into(),
        Kind::Back => Connected { meta, protocol: None }.into(),
    })
}

#[cfg(test)]
mod tests {
    use fleetlog_event::EventSet;

    use super::*;

    fn status(connection: &str, reason: Option<&str>, connects: &str) -> Status {
        let text = |text: &str| Some(text.to_owned());
        Status::read(&[
            text(connection),
            reason.and_then(text),
            text(connects),
            text("2024-01-01T00:00:10.000Z"),
        ])
    }

    fn candidate(kind: Kind, heard_ms: i64) -> Candidate {
        Candidate {
            site_uid: "werk 1".to_owned(),
            unit: "swerk%201.uNordFTS%2F0001".to_owned(),
            kind,
            heard_at: TimestampMs(heard_ms),
        }
    }

    #[test]
    fn a_silent_unit_that_counts_as_connected_is_disconnected_since_it_was_last_heard() {
        let event = decide(&candidate(Kind::Silent, 1000), &status("online", None, "3")).expect("is due");
        let RobotEvent::Disconnected(lost) = &event else { panic!("{event:?}") };
        assert_eq!(lost.reason, DisconnectReason::Timeout);
        assert_eq!(lost.meta.occurred_at, TimestampMs(1000));
        assert_eq!(lost.meta.site_uid, "werk 1");
        assert_eq!(event.entity().as_str(), "swerk%201.uNordFTS%2F0001");
        assert_eq!(event.validate(), Ok(()));
    }

    #[test]
    fn a_unit_that_is_heard_is_connected_unless_it_went_by_itself() {
        let decided = |status: &Status| decide(&candidate(Kind::Back, 1000), status);
        for reason in ["broken", "timeout", "unknown"] {
            assert!(
                matches!(decided(&status("offline", Some(reason), "3")), Some(RobotEvent::Connected(_))),
                "{reason}"
            );
        }
        assert!(decided(&Status::read(&[None, None, None, None])).is_some(), "nobody told of it yet");
        for left_alone in [
            status("offline", Some("graceful"), "3"),
            status("offline", Some("hibernating"), "3"),
            status("decommissioned", None, "0"),
            status("online", None, "3"),
            status("of a later version", None, "3"),
        ] {
            assert_eq!(decided(&left_alone), None, "{left_alone:?}");
        }
    }

    #[test]
    fn who_is_not_connected_does_not_fall_silent() {
        for other in [
            status("offline", Some("broken"), "3"),
            status("offline", Some("graceful"), "3"),
            status("decommissioned", None, "0"),
            Status::read(&[]),
        ] {
            assert_eq!(decide(&candidate(Kind::Silent, 1000), &other), None, "{other:?}");
        }
    }

    #[test]
    fn two_workers_say_the_same_event_and_another_episode_is_another_event() {
        let id = |kind, heard_ms, status: &Status| {
            decide(&candidate(kind, heard_ms), status).expect("is due").meta().event_id
        };
        let (online, lost) = (status("online", None, "3"), status("offline", Some("broken"), "3"));
        assert_eq!(id(Kind::Silent, 1000, &online), id(Kind::Silent, 1000, &online));
        assert_ne!(id(Kind::Silent, 1000, &online), id(Kind::Silent, 2000, &online));
        assert_ne!(id(Kind::Silent, 1000, &online), id(Kind::Silent, 1000, &status("online", None, "4")));
        // One worker heard it a moment earlier than the other.
        assert_eq!(id(Kind::Back, 1000, &lost), id(Kind::Back, 2000, &lost));
        assert_ne!(
            id(Kind::Back, 1000, &lost),
            id(Kind::Back, 1000, &status("offline", Some("broken"), "4"))
        );
    }

    #[test]
    fn what_is_no_unit_is_left_alone() {
        let odd = Candidate { unit: "a key of another program".to_owned(), ..candidate(Kind::Silent, 1) };
        assert_eq!(decide(&odd, &status("online", None, "1")), None);
    }
}
