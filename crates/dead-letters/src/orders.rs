//! Commands to lanes beside a redrive: entities folded anew, a position passed. They are sent to the lanes' inboxes, and
//! waited for until the lanes have answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetlog_event::{EntityKey, LogId, Reason};
use fleetlog_kafka::Admin;
use fleetlog_producer::RawProducer;
use fleetlog_projection::{Act, Command, Record, Version};

use crate::redrive::{
    Answered, Awaited, LaneRef, Lanes, LogFacts, Message, Reader, Trouble, await_answers, fold_anew, in_time,
    send_messages,
};

/// How commands get to lanes.
pub trait Orders: Send + Sync {
    /// Those of these topics (physical names) that there are.
    fn logs(
        &self,
        topics: &BTreeSet<&str>,
    ) -> impl Future<Output = Result<BTreeMap<String, LogFacts>, Trouble>> + Send;

    /// Sends commands, in order, and says what their lanes are to be waited for.
    fn send(
        &self,
        messages: &[Message],
    ) -> impl Future<Output = Result<BTreeMap<LaneRef, Awaited>, Trouble>> + Send;
}

/// [`Orders`] over Kafka.
pub struct KafkaOrders {
    /// To ask for topics.
    pub admin: Admin,
    /// What sends; its settings have to take records as large as the topics do.
    pub producer: RawProducer,
}

impl Orders for KafkaOrders {
    async fn logs(&self, topics: &BTreeSet<&str>) -> Result<BTreeMap<String, LogFacts>, Trouble> {
        LogFacts::of(&self.admin, &topics.iter().copied().collect::<Vec<_>>()).await
    }

    async fn send(&self, messages: &[Message]) -> Result<BTreeMap<LaneRef, Awaited>, Trouble> {
        send_messages(&self.producer, messages).await
    }
}

/// Why commands were not carried out, as far as one knows.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such topic.
    #[error("the cluster has no topic {0}")]
    NoTopic(String),
    /// Lanes did not answer. The commands stay in their inboxes, and will be carried out.
    #[error("no answer from {}{}", told(.lanes), .trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default())]
    Stalled {
        /// The lanes.
        lanes: Vec<LaneRef>,
        /// What a server said meanwhile.
        trouble: Option<String>,
    },
    /// A server, or a store.
    #[error(transparent)]
    Port(#[from] Trouble),
}

fn told(lanes: &[LaneRef]) -> String {
    lanes.iter().map(LaneRef::to_string).collect::<Vec<_>>().join(", ")
}

/// Who commands whom, and how long it waits.
pub struct Commander<'a, L, O> {
    /// The lanes.
    pub lanes: &'a L,
    /// The way to them.
    pub orders: &'a O,
    /// How long to wait without any progress.
    pub patience: Duration,
    /// Names what is asked in the commands and in the logs of whoever carries them out.
    pub job: String,
    /// Told of each group that no process runs: its commands wait until one does.
    pub unmanned: &'a (dyn Fn(&str) + Sync),
}

/// Which entities of a projection are to be folded anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairRequest {
    /// The projection's group and topic.
    pub reader: Reader,
    /// The entities.
    pub keys: Vec<EntityKey>,
}

/// An entity in one projection, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The projection's group.
    pub group: String,
    /// The entity.
    pub key: EntityKey,
    /// Its version before; none if the projection did not know it.
    pub before: Option<Version>,
    /// Its version now.
    pub after: Option<Version>,
}

impl Repaired {
    /// Nobody knows it, or its state was folded anew.
    #[must_use]
    pub fn is_well(&self) -> bool {
        match (self.before, self.after) {
            (None, None) => true,
            (before, Some(after)) => before.is_none_or(|before| after.revision > before.revision),
            (Some(_), None) => false,
        }
    }
}

/// A position that its lane is to pass without taking what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipRequest {
    /// The lane.
    pub lane: LaneRef,
    /// The inbox that it follows, physical name.
    pub inbox: String,
    /// The log that the position is of.
    pub log: LogId,
    /// The record that lies there.
    pub record: Record,
    /// Why.
    pub why: String,
}

impl<L: Lanes, O: Orders> Commander<'_, L, O> {
    /// Has entities folded anew from the log, with the next revision, by the lanes that own them. Versions are told in the
    /// order of the request.
    ///
    /// # Errors
    /// [`OrderError`]; what was sent is carried out all the same.
    pub async fn repair(&self, requests: &[RepairRequest]) -> Result<Vec<Repaired>, OrderError> {
        let logs = self.logs(requests.iter().map(|request| request.reader.topic.as_str())).await?;
        let mut messages = Vec::new();
        for RepairRequest { reader, keys } in requests {
            let facts = logs[&reader.topic];
            messages.extend(keys.iter().map(|key| (key, fold_anew(reader, facts, key.clone(), &self.job))));
        }
        let before = self.versions(&messages).await?;
        let sent: Vec<Message> = messages.iter().map(|(_, message)| message.clone()).collect();
        self.give(&sent).await?;
        let after = self.versions(&messages).await?;
        let versions = before.into_iter().zip(after);
        let repaired = messages.iter().zip(versions).map(|((key, message), (before, after))| Repaired {
            group: message.lane.group.clone(),
            key: (*key).clone(),
            before,
            after,
        });
        Ok(repaired.collect())
    }

    /// Has a lane pass the position that it stands at; false if it did not stand there any more.
    ///
    /// # Errors
    /// [`OrderError`]; what was sent is carried out all the same.
    pub async fn skip(&self, request: SkipRequest) -> Result<bool, OrderError> {
        let SkipRequest { lane, inbox, log, record, why } = request;
        let offset = record.offset;
        let command = Command { job: self.job.clone(), log, act: Act::Skip { record, why } };
        self.give(&[Message { lane: lane.clone(), inbox, command }]).await?;
        let entries = self.lanes.entries(&lane, log, &[offset]).await?;
        Ok(entries.get(&offset).is_some_and(|entry| entry.reject.reason == Reason::Skipped))
    }

    /// Sends commands, and returns once all of them are answered.
    async fn give(&self, messages: &[Message]) -> Result<(), OrderError> {
        self.logs(messages.iter().map(|message| message.inbox.as_str())).await?;
        for group in messages.iter().map(|message| message.lane.group.as_str()).collect::<BTreeSet<_>>() {
            if self.lanes.members(group).await? == 0 {
                (self.unmanned)(group);
            }
        }
        // Once: what was not acknowledged may lie there all the same.
        let sending = self.orders.send(messages);
        let awaited = in_time(self.patience, "sending commands", None, sending).await?;
        match await_answers(self.lanes, &awaited, self.patience, async || Ok(())).await? {
            Answered::All => Ok(()),
            Answered::Stalled { lanes, trouble, .. } => Err(OrderError::Stalled { lanes, trouble }),
        }
    }

    /// Topics as they are now; all of them are there.
    async fn logs<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t str>,
    ) -> Result<BTreeMap<String, LogFacts>, OrderError> {
        let topics: BTreeSet<&str> = topics.into_iter().collect();
        let logs = self.orders.logs(&topics).await?;
        match topics.into_iter().find(|topic| !logs.contains_key(*topic)) {
            Some(missing) => Err(OrderError::NoTopic(missing.to_owned())),
            None => Ok(logs),
        }
    }

    /// The versions that are stored, in the order of what is sent.
    async fn versions(&self, messages: &[(&EntityKey, Message)]) -> Result<Vec<Option<Version>>, OrderError> {
        let mut by_lane: BTreeMap<&LaneRef, Vec<EntityKey>> = BTreeMap::new();
        for (key, message) in messages {
            by_lane.entry(&message.lane).or_default().push((*key).clone());
        }
        let mut found = BTreeMap::new();
        for (lane, keys) in by_lane {
            let versions = self.lanes.versions(lane, &keys).await?;
            found.extend(keys.into_iter().zip(versions).map(|(key, version)| ((lane, key), version)));
        }
        let versions =
            messages.iter().map(|(key, message)| found.get(&(&message.lane, (*key).clone())).copied());
        Ok(versions.map(Option::flatten).collect())
    }
}
