//! Commands beside a redrive: an entity folded anew, a position passed.

use std::collections::BTreeMap;

use fleetlog_event::{EntityKey, partition_of};
use fleetlog_producer::{RawProducer, RawRecord};
use fleetlog_projection::{Act, Command, Fault};

use super::{Awaited, LaneRef, LogFacts, Reader, Trouble};

/// A command on its way to a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The lane.
    pub lane: LaneRef,
    /// The inbox that the lane follows, physical name.
    pub inbox: String,
    /// What it is to do.
    pub command: Command,
}

impl Message {
    /// The record to be put on the inbox.
    #[must_use]
    pub fn record(&self) -> RawRecord {
        let written = self.command.write();
        RawRecord {
            topic: self.inbox.clone(),
            partition: Some(self.lane.partition),
            key: written.key,
            value: written.value,
            timestamp: None,
            headers: written.headers.into_iter().map(|(name, value)| ((&name[..]).into(), value)).collect(),
        }
    }

    fn position(&self) -> Option<i64> {
        self.command.offset()
    }
}

/// Sends commands, in order, and says what their lanes are to be waited for.
///
/// # Errors
/// When one was not acknowledged. It may lie on the inbox all the same.
pub(crate) async fn send_messages(
    producer: &RawProducer,
    messages: &[Message],
) -> Result<BTreeMap<LaneRef, Awaited>, Trouble> {
    let sent = producer.send_all(messages.iter().map(Message::record)).await;
    let delivered = sent.all().await.map_err(|error| Trouble {
        fault: Fault::Transient,
        what: format!("a command was not acknowledged: {error}"),
    })?;
    let mut awaited = BTreeMap::new();
    for (message, delivered) in messages.iter().zip(delivered) {
        await_also(&mut awaited, &message.lane, delivered.offset, message.position());
    }
    Ok(awaited)
}

/// Waits for one more command to a lane.
pub(crate) fn await_also(
    awaited: &mut BTreeMap<LaneRef, Awaited>,
    lane: &LaneRef,
    command: i64,
    position: Option<i64>,
) {
    let of_lane = awaited.entry(lane.clone()).or_insert(Awaited { command, position });
    of_lane.command = of_lane.command.max(command);
    of_lane.position = of_lane.position.max(position);
}

/// Folds an entity anew: for the lane that its key belongs to.
#[must_use]
pub(crate) fn fold_anew(reader: &Reader, facts: LogFacts, key: EntityKey, job: &str) -> Message {
    let partition = partition_of(key.as_str().as_bytes(), facts.partitions);
    let lane = LaneRef { group: reader.group.clone(), topic: reader.topic.clone(), partition };
    let command = Command { job: job.to_owned(), log: facts.log, act: Act::FoldAnew { key } };
    Message { lane, inbox: reader.inbox.clone(), command }
}
