//! A command to a lane: a record on the inbox of its consumer group (DESIGN §3).
//!
//! Its key, value and headers are those of the event it is about, byte for byte; what is to be done stands in headers
//! of our own, which are taken away before the event is looked at:
//!
//! | header | |
//! |---|---|
//! | `fleetlog-command` | `redrive`, `emitted-anew`, `fold-anew` or `skip` |
//! | `fleetlog-command-job` | of which job: a UUID |
//! | `fleetlog-command-log`, `-offset`, `-timestamp` | where the event lies, and when it was recorded, in ms |
//! | `fleetlog-command-replays-max` | `redrive`: after how many rejections the event is parked |
//! | `fleetlog-command-why` | `skip`: why, in the operator's words |
//!
//! The partition is that of the inbox.

use bytes::Bytes;
use fleetlog_event::{EntityKey, LogId, TimestampMs};

use crate::{Headers, Record};

const PREFIX: &str = "fleetlog-command";
const ACT: &str = "fleetlog-command";
const JOB: &str = "fleetlog-command-job";
const LOG: &str = "fleetlog-command-log";
const OFFSET: &str = "fleetlog-command-offset";
const TIMESTAMP: &str = "fleetlog-command-timestamp";
const REPLAYS_MAX: &str = "fleetlog-command-replays-max";
const WHY: &str = "fleetlog-command-why";
/// The act that is looked for among all that lies in an inbox.
const SKIP: &str = "skip";

/// The name of an inbox: of one consumer group, for one of the topics it reads.
#[must_use]
pub fn inbox_name(group: &str, topic_stem: &str) -> String {
    format!("{group}-{topic_stem}-inbox")
}

/// A command to a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// The job that it is part of: a UUID's text.
    pub job: String,
    /// The log that it is about.
    pub log: LogId,
    /// What to do.
    pub act: Act,
}

/// What a command wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Take an event that was set aside, in its place.
    Redrive {
        /// The record as it lies on the log (or lay: retention may have deleted it).
        record: Record,
        /// After how many rejections it is parked.
        replays_max: u32,
    },
    /// Close the entry of an event that was emitted anew under its right key, in the transaction that carries this.
    EmittedAnew {
        /// Its offset.
        offset: i64,
    },
    /// Fold an entity anew.
    FoldAnew {
        /// The entity.
        key: EntityKey,
    },
    /// Set the very next record aside without looking at it.
    Skip {
        /// The record.
        record: Record,
        /// Why.
        why: String,
    },
}

/// A record of an inbox is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACommand {
    /// A header is missing, or says something that no command says.
    #[error("header `{0}` is missing or wrong")]
    Header(&'static str),
    /// An entity is to be folded anew, and the key is none of an entity.
    #[error("the key names no entity")]
    Key,
}

impl Command {
    /// Reads a record of an inbox.
    ///
    /// # Errors
    /// When it is no command of this version.
    pub fn read(inbox: &Record) -> Result<Self, NotACommand> {
        let text = |name: &'static str| {
            let value = inbox.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
            value.ok_or(NotACommand::Header(name))
        };
        let number = |name: &'static str| text(name)?.parse::<i64>().map_err(|_| NotACommand::Header(name));
        let log: LogId = text(LOG)?.parse().map_err(|_| NotACommand::Header(LOG))?;
        let record = || {
            let foreign = inbox.headers.iter().filter(|(name, _)| !is_ours(name));
            Ok(Record {
                offset: number(OFFSET)?,
                timestamp: TimestampMs(number(TIMESTAMP)?),
                key: inbox.key.clone(),
                value: inbox.value.clone(),
                headers: Headers::pack(foreign),
            })
        };
        let act = match text(ACT)? {
            "redrive" => {
                let replays_max = text(REPLAYS_MAX)?.parse().map_err(|_| NotACommand::Header(REPLAYS_MAX))?;
                Act::Redrive { record: record()?, replays_max }
            }
            "emitted-anew" => Act::EmittedAnew { offset: number(OFFSET)? },
            "fold-anew" => Act::FoldAnew { key: inbox.key_text().ok_or(NotACommand::Key)?.into() },
            SKIP => Act::Skip { record: record()?, why: text(WHY)?.to_owned() },
            _ => return Err(NotACommand::Header(ACT)),
        };
        Ok(Self { job: text(JOB)?.to_owned(), log, act })
    }

    /// Whether a record of an inbox wants a position skipped. Looks at that alone: it is asked of all that lie there,
    /// again and again.
    #[must_use]
    pub fn is_skip(inbox: &Record) -> bool {
        inbox.headers.get(ACT) == Some(SKIP.as_bytes())
    }

    /// The position that the command is about; none if it is about an entity.
    #[must_use]
    pub fn offset(&self) -> Option<i64> {
        match &self.act {
            Act::Redrive { record, .. } | Act::Skip { record, .. } => Some(record.offset),
            Act::EmittedAnew { offset } => Some(*offset),
            Act::FoldAnew { .. } => None,
        }
    }

    /// The record to be put on the inbox.
    #[must_use]
    pub fn write(&self) -> InboxRecord {
        let (name, key, value, foreign) = match &self.act {
            Act::Redrive { record, .. } => {
                ("redrive", record.key.clone(), record.value.clone(), Some(record))
            }
            Act::Skip { record, .. } => (SKIP, record.key.clone(), record.value.clone(), Some(record)),
            Act::EmittedAnew { .. } => ("emitted-anew", None, None, None),
            Act::FoldAnew { key } => {
                ("fold-anew", Some(Bytes::copy_from_slice(key.as_str().as_bytes())), None, None)
            }
        };
        let kept = foreign.into_iter().flat_map(|record| record.headers.iter());
        let mut headers: Vec<(Bytes, Option<Bytes>)> = kept
            .filter(|(name, _)| !is_ours(name))
            .map(|(name, value)| (Bytes::copy_from_slice(name), value.map(Bytes::copy_from_slice)))
            .collect();
        let mut ours = |name: &'static str, value: String| {
            headers.push((Bytes::from_static(name.as_bytes()), Some(Bytes::from(value))));
        };
        ours(ACT, name.to_owned());
        ours(JOB, self.job.clone());
        ours(LOG, self.log.to_string());
        if let Some(offset) = self.offset() {
            ours(OFFSET, offset.to_string());
        }
        if let Some(record) = foreign {
            ours(TIMESTAMP, record.timestamp.0.to_string());
        }
        match &self.act {
            Act::Redrive { replays_max, .. } => ours(REPLAYS_MAX, replays_max.to_string()),
            Act::Skip { why, .. } => ours(WHY, why.clone()),
            Act::EmittedAnew { .. } | Act::FoldAnew { .. } => {}
        }
        InboxRecord { key, value, headers }
    }
}

/// What is put on an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRecord {
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// The event's own headers, then the command's.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl InboxRecord {
    /// The record as a lane reads it at that place of the inbox.
    #[must_use]
    pub fn at(&self, offset: i64, timestamp: TimestampMs) -> Record {
        let headers = self.headers.iter().map(|(name, value)| (name.as_ref(), value.as_deref()));
        let headers = Headers::pack::<[u8]>(headers);
        Record { offset, timestamp, key: self.key.clone(), value: self.value.clone(), headers }
    }
}

fn is_ours(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let headers: [(&[u8], Option<&[u8]>); 3] =
            [(b"a", Some(b"1")), (b"\xff", None), (b"fleetlog-dlq-replay-count", Some(b"2"))];
        Record {
            offset: 77,
            timestamp: TimestampMs(-5),
            key: Some(Bytes::from_static(b"s1.u\xff")),
            value: None,
            headers: Headers::pack(headers),
        }
    }

    fn command(act: Act) -> Command {
        Command {
            job: "0197c9a8-5a1e-7c43-9a52-3d6f0d2f9b11".into(),
            log: LogId(uuid::Uuid::from_u128(9)),
            act,
        }
    }

    #[test]
    fn what_was_written_is_read_with_the_event_untouched() {
        let acts = [
            Act::Redrive { record: record(), replays_max: 3 },
            Act::EmittedAnew { offset: 9 },
            Act::FoldAnew { key: "s1.u2".into() },
            Act::Skip { record: record(), why: "crashes the projector\nalways".into() },
        ];
        for act in acts {
            let command = command(act);
            let lying = command.write().at(1, TimestampMs(2));
            assert_eq!(Command::is_skip(&lying), matches!(command.act, Act::Skip { .. }));
            assert_eq!(Command::read(&lying), Ok(command));
        }
    }

    #[test]
    fn an_event_that_was_a_command_before_is_no_trap() {
        let mut inner = record();
        inner.headers = Headers::pack([("fleetlog-command", Some(&b"skip"[..])), ("b", None)]);
        let written = command(Act::Redrive { record: inner, replays_max: 3 }).write();
        let read = Command::read(&written.at(0, TimestampMs(0)));
        assert!(matches!(read.map(|command| command.act), Ok(Act::Redrive { record, .. })
            if record.headers.get("fleetlog-command").is_none()));
    }

    #[test]
    fn what_is_no_command_is_named() {
        let written = command(Act::Redrive { record: record(), replays_max: 3 }).write();
        for missing in [ACT, JOB, LOG, OFFSET, TIMESTAMP, REPLAYS_MAX] {
            let mut less = written.clone();
            less.headers.retain(|(name, _)| name != missing.as_bytes());
            assert_eq!(Command::read(&less.at(0, TimestampMs(0))), Err(NotACommand::Header(missing)));
        }
        let mut other = written;
        other.headers.iter_mut().filter(|(name, _)| name == ACT).for_each(|(_, value)| {
            *value = Some(Bytes::from_static(b"dance"));
        });
        assert_eq!(Command::read(&other.at(0, TimestampMs(0))), Err(NotACommand::Header(ACT)));
    }
}
