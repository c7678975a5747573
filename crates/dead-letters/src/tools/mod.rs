//! The tools as library calls: typed requests in, typed results out. The command line is one caller, others follow.
//!
//! They read the dead-letter topics, and topic `ops` for what became of the letters; no database is asked. Memory holds ids of
//! all letters and the letters that are wanted, never their payloads.

mod error;
mod halts;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleetlog_codec::{AnyEvent, Decoder};
use fleetlog_event::{Decode, EventSet, TimestampMs, catalogue::Catalogue, ops::OpsEvent};
use fleetlog_kafka::{KafkaSettings, OwnedRecord};
use fleetlog_producer::EventProducer;

pub use error::ToolError;
pub use halts::HaltsReader;

use crate::{
    ActionHead, Actions, DiscardRequest, Distinct, ExportLine, Inside, Letter, Place, RawLetter, Selector,
    State, Stats, discard::discarded,
};
use scan::Scan;

/// Longest text of a reason or operator, in bytes: what an identifying text of an event may have.
const TEXT_BYTES_MAX: usize = 512;

/// Which letters by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateFilter {
    /// Those that wait for somebody.
    #[default]
    Open,
    /// Those that nobody will process.
    Discarded,
    /// All.
    Any,
}

impl StateFilter {
    fn takes(self, state: &State) -> bool {
        match self {
            Self::Any => true,
            Self::Open => *state == State::Open,
            Self::Discarded => matches!(state, State::Discarded(_)),
        }
    }
}

/// Letters that match, and what was read for it.
#[derive(Debug)]
pub struct Found {
    /// The letters, the oldest first; no more than were asked for.
    pub letters: Vec<(Letter, State)>,
    /// How many match, also beyond what was asked for.
    pub matched: usize,
    /// Whether no open letter of what was read is left out of `matched`.
    pub is_all_open: bool,
    /// How many would match but for their state.
    pub in_other_states: usize,
    /// Records on the topics, repeated ones included.
    pub seen: u64,
    /// Dead-letter topics that the cluster does not have, physical names.
    pub missing_topics: Vec<String>,
    /// Events of topic `ops` that this version cannot read: states may be older than they seem.
    pub unreadable_actions: u64,
}

/// One letter with its record.
#[derive(Debug)]
pub struct Shown {
    /// The record as it lies on the topic.
    pub record: OwnedRecord,
    /// What is known of it.
    pub letter: Letter,
    /// What has become of it.
    pub state: State,
}

/// What came of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Letters written.
    pub letters: usize,
    /// Letters that retention took away meanwhile.
    pub gone: usize,
}

/// A dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Topic {
    /// As the cluster names it.
    name: String,
    /// As people read it: without the prefix where it is one of fleetlog's own.
    shown: String,
    is_own: bool,
}

/// What is read of which topics.
struct Reading<'a> {
    topics: &'a [Topic],
    since: Option<TimestampMs>,
}

/// The dead letters of a deployment.
pub struct Tools {
    kafka: KafkaSettings,
    topics: Vec<Topic>,
    known_groups: BTreeSet<String>,
    decoder: Arc<Decoder>,
}

/// What was done to letters, and how much of that could be read.
struct Past {
    actions: Actions,
    is_there: bool,
    unreadable: u64,
}

impl Tools {
    /// Tools for the dead-letter topics of the catalogue. `known_groups` are groups that there are, whether or not they
    /// have dead letters; `decoder` reads actions, and events where a selector asks for what stands in them.
    #[must_use]
    pub fn new(
        kafka: KafkaSettings,
        catalogue: &Catalogue,
        known_groups: impl IntoIterator<Item = String>,
        decoder: Arc<Decoder>,
    ) -> Self {
        let specs = catalogue.expand("", None).into_iter().filter(|spec| spec.name.ends_with("-dlq"));
        let own = |shown: String| Topic { name: kafka.topic(&shown), shown, is_own: true };
        let topics = specs.map(|spec| own(spec.name)).collect();
        Self { kafka, topics, known_groups: known_groups.into_iter().collect(), decoder }
    }

    /// The same for these topics instead, named as the cluster names them: of other tools, say.
    #[must_use]
    pub fn on_topics(mut self, names: &[String]) -> Self {
        let own = std::mem::take(&mut self.topics);
        let topic = |name: &String| match own.iter().find(|topic| topic.name == *name) {
            Some(own) => own.clone(),
            None => Topic { name: name.clone(), shown: name.clone(), is_own: false },
        };
        self.topics = names.iter().map(topic).collect();
        self
    }

    /// Letters that match and are in that state.
    ///
    /// # Errors
    /// The selectors contradict each other or name what there is not, a topic is missing, or a server does not answer.
    pub async fn find(&self, selector: &Selector, states: StateFilter) -> Result<Found, ToolError> {
        let topics = self.topics_of(selector)?;
        // What lies before `since` is older than all that is meant, so it stands for none of them.
        let reading = Reading { topics: &topics, since: selector.since };
        self.find_on(&reading, selector, states, &self.past().await?).await
    }

    /// Counts of the letters that match and are in that state; [`Stats::states`] counts all states.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn stats(&self, selector: &Selector, states: StateFilter) -> Result<(Stats, Found), ToolError> {
        let found = self.find(selector, StateFilter::Any).await?;
        let mut stats = Stats::default();
        for (letter, state) in &found.letters {
            if states.takes(state) {
                stats.add(letter, state);
            } else {
                *stats.states.entry(state.name().to_owned()).or_default() += 1;
            }
        }
        Ok((stats, found))
    }

    /// The letter at a place.
    ///
    /// # Errors
    /// [`ToolError::NoLetter`], or a server does not answer.
    pub async fn show(&self, place: &Place) -> Result<Shown, ToolError> {
        let own = self.topics.iter().find(|topic| topic.shown == place.topic);
        let name = own.map_or(&place.topic, |topic| &topic.name);
        let scan = Scan::at(&self.kafka, name, place.partition, place.offset).await?;
        let mut scan = scan.ok_or_else(|| ToolError::NoTopics { topics: vec![name.clone()] })?;
        let record = scan.next().await?.ok_or_else(|| ToolError::NoLetter(place.clone()))?;
        let letter = Letter::read(&record, &place.topic);
        let state = self.past().await?.actions.state(&letter);
        Ok(Shown { record, letter, state })
    }

    /// Hands the letters that match to `write`, each with its record, in the order of the topics.
    ///
    /// # Errors
    /// As [`find`](Self::find), or the first error of `write`.
    pub async fn export<E: From<ToolError>>(
        &self,
        selector: &Selector,
        states: StateFilter,
        mut write: impl FnMut(&ExportLine<'_>) -> Result<(), E>,
    ) -> Result<(Exported, Found), E> {
        let mut found = self.find(selector, states).await?;
        let wanted: BTreeMap<Place, (Letter, State)> =
            found.letters.drain(..).map(|(letter, state)| (letter.place.clone(), (letter, state))).collect();
        let mut letters = 0;
        for topic in self.topics_of(selector)? {
            if !wanted.keys().any(|place| place.topic == topic.shown) {
                continue;
            }
            let Some(mut scan) = Scan::of(&self.kafka, &topic.name, selector.since).await? else { continue };
            while let Some(record) = scan.next().await? {
                let (partition, offset) = (record.partition, record.offset);
                let place = Place { topic: topic.shown.clone(), partition, offset };
                if let Some((letter, state)) = wanted.get(&place) {
                    write(&ExportLine { letter, state, record: RawLetter::of(&record) })?;
                    letters += 1;
                }
            }
        }
        Ok((Exported { letters, gone: wanted.len() - letters }, found))
    }

    /// The open letters that a request would discard. Nothing is changed. None are left where all that match have been
    /// discarded before.
    ///
    /// # Errors
    /// As [`find`](Self::find); [`ToolError::NothingMatches`], [`ToolError::MatchesAll`] where that is not said to be meant,
    /// [`ToolError::NoOpsTopic`], [`ToolError::Text`].
    pub async fn plan_discard(&self, request: &DiscardRequest) -> Result<Found, ToolError> {
        for (what, text) in [("the reason", &request.why), ("the operator's name", &request.operator)] {
            if !(1..=TEXT_BYTES_MAX).contains(&text.len()) {
                return Err(ToolError::Text { what, bytes: text.len() });
            }
        }
        let selector = &request.selector;
        self.topics_of(selector)?;
        let past = self.past().await?;
        if !past.is_there {
            return Err(ToolError::NoOpsTopic(self.kafka.topic(OpsEvent::TOPICS[0])));
        }
        // Everything, so that it is known whether this is all there is.
        let reading = Reading { topics: &self.topics, since: None };
        let found = self.find_on(&reading, selector, StateFilter::Open, &past).await?;
        let selection = selector.to_string();
        if found.matched == 0 && found.in_other_states == 0 {
            return Err(ToolError::NothingMatches { selection, seen: found.seen });
        }
        if found.takes_all(selector) && !request.all_is_meant {
            return Err(ToolError::MatchesAll { letters: found.matched, selection });
        }
        Ok(found)
    }

    /// Writes down that the letters of a plan are discarded; returns when every event is acknowledged. A command that dies
    /// in between has discarded the letters of the events that are there; run again, it takes the rest.
    ///
    /// # Errors
    /// [`ToolError::NotSent`].
    pub async fn discard(
        &self,
        request: &DiscardRequest,
        letters: &[Letter],
        head: &ActionHead,
        producer: &EventProducer,
    ) -> Result<usize, ToolError> {
        let events = discarded(request, letters, head);
        let count = events.len();
        let outcomes = producer.send_all(events).await.outcomes().await;
        let acknowledged = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        match outcomes.into_iter().find_map(Result::err) {
            Some(first) => Err(ToolError::NotSent { acknowledged, events: count, source: Box::new(first) }),
            None => Ok(count),
        }
    }

    /// The dead-letter topics to be read.
    fn topics_of(&self, selector: &Selector) -> Result<Vec<Topic>, ToolError> {
        selector.check()?;
        let is_of = |topic: &Topic, stem: &String| topic.shown.strip_suffix("-dlq") == Some(stem.as_str());
        let unknown = selector
            .topics
            .iter()
            .find(|stem| !self.topics.iter().any(|topic| is_of(topic, stem) || !topic.is_own));
        if let Some(unknown) = unknown {
            let known = self.topics.iter().filter_map(|topic| topic.shown.strip_suffix("-dlq"));
            let known = known.map(str::to_owned).collect();
            return Err(ToolError::UnknownTopic { topic: unknown.clone(), known });
        }
        let is_wanted = |topic: &&Topic| {
            selector.topics.is_empty()
                || !topic.is_own
                || selector.topics.iter().any(|stem| is_of(topic, stem))
        };
        Ok(self.topics.iter().filter(is_wanted).cloned().collect())
    }

    async fn find_on(
        &self,
        reading: &Reading<'_>,
        selector: &Selector,
        states: StateFilter,
        past: &Past,
    ) -> Result<Found, ToolError> {
        let (mut distinct, mut groups) = (Distinct::default(), self.known_groups.clone());
        let mut missing_topics = Vec::new();
        for topic in reading.topics {
            let Some(mut scan) = Scan::of(&self.kafka, &topic.name, reading.since).await? else {
                missing_topics.push(topic.name.clone());
                continue;
            };
            while let Some(record) = scan.next().await? {
                let letter = Letter::read(&record, &topic.shown);
                let state = past.actions.state(&letter);
                let inside = self.inside(selector, &letter, &record).await?;
                let is_open = state == State::Open;
                let is_meant = selector.matches(&letter, &self.kafka.topic_prefix, &inside);
                groups.insert(letter.group.clone());
                let kept = (is_meant && states.takes(&state)).then(|| (letter.clone(), state));
                distinct.add(&letter, Tag { is_open, is_meant, kept });
            }
        }
        if missing_topics.len() == reading.topics.len() {
            return Err(ToolError::NoTopics { topics: missing_topics });
        }
        if let Some(unknown) = selector.groups.iter().find(|group| !groups.contains(*group)) {
            return Err(ToolError::UnknownGroup {
                group: unknown.clone(),
                known: groups.into_iter().collect(),
            });
        }
        let found = Found { missing_topics, unreadable_actions: past.unreadable, ..counted(distinct) };
        Ok(found.cut(selector.max))
    }

    /// What of the event a selector needs, beyond headers and key; nothing where the event cannot be decoded.
    async fn inside(
        &self,
        selector: &Selector,
        letter: &Letter,
        record: &OwnedRecord,
    ) -> Result<Inside, ToolError> {
        if !selector.needs_inside(letter) {
            return Ok(Inside::default());
        }
        let value = record.value.as_deref();
        Ok(match self.decoder.prepare([value]).await?.decode_any(value) {
            Ok(AnyEvent::Fleet(event)) => Inside {
                site_uid: Some(event.meta().site_uid.clone()),
                event_type: Some(event.event_type().name.to_owned()),
            },
            Ok(AnyEvent::Foreign { name, .. }) => Inside { site_uid: None, event_type: Some(name) },
            Err(_) => Inside::default(),
        })
    }

    /// Reads topic `ops`.
    async fn past(&self) -> Result<Past, ToolError> {
        let mut past = Past { actions: Actions::default(), is_there: true, unreadable: 0 };
        let Some(mut scan) = Scan::of(&self.kafka, &self.kafka.topic(OpsEvent::TOPICS[0]), None).await?
        else {
            return Ok(Past { is_there: false, ..past });
        };
        while let Some(record) = scan.next().await? {
            let value = record.value.as_deref();
            match self.decoder.prepare([value]).await?.decode::<OpsEvent>(value) {
                Ok(event) => past.actions.take(event),
                Err(_) => past.unreadable += 1,
            }
        }
        Ok(past)
    }
}

/// What a letter is given while letters are counted.
struct Tag {
    is_open: bool,
    is_meant: bool,
    kept: Option<(Letter, State)>,
}

fn counted(distinct: Distinct<Tag>) -> Found {
    let seen = distinct.seen();
    let (mut letters, mut is_all_open, mut in_other_states) = (Vec::new(), true, 0);
    for Tag { is_open, is_meant, kept } in distinct.into_newest() {
        is_all_open &= kept.is_some() || !is_open;
        in_other_states += usize::from(is_meant && kept.is_none());
        letters.extend(kept);
    }
    letters.sort_by(|(a, _), (b, _)| (a.set_aside_at, &a.place).cmp(&(b.set_aside_at, &b.place)));
    let matched = letters.len();
    Found {
        letters,
        matched,
        is_all_open,
        in_other_states,
        seen,
        missing_topics: Vec::new(),
        unreadable_actions: 0,
    }
}

impl Found {
    /// Whether these are all open letters, and nobody named them one by one.
    #[must_use]
    pub fn takes_all(&self, selector: &Selector) -> bool {
        self.is_all_open && self.matched > 0 && self.letters.len() == self.matched && selector.ids.is_empty()
    }

    fn cut(mut self, max: Option<usize>) -> Self {
        self.letters.truncate(max.unwrap_or(usize::MAX));
        self
    }
}
