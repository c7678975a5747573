//! A fold at work, whose projector is broken until it is fixed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use fleetlog_codec::{Decoder, NoSource};
use fleetlog_event::{EntityKey, Reason, Recorded, Reject, catalogue::Catalogue, robot::RobotEvent};
use fleetlog_kafka::KafkaSettings;
use fleetlog_projection::{Fold, FoldProjector, HotWrite, LaneId, MemorySink, Record};
use tokio_util::sync::CancellationToken;

use super::super::{
    fake::{FakeDeadLetters, FakeGroup, FakeInbox, PATIENCE, quick, until},
    lane,
};
use crate::{End, ProjectionRunner, ProjectionRuntime, RunMode, RunnerParts, metrics::EngineMetrics};

/// The offsets of a unit's events; while it is broken, every eleventh of the log is rejected.
#[derive(Clone, Default)]
pub(super) struct Fixable {
    fixed: Arc<AtomicBool>,
    /// The offset that makes it panic; 0 for none.
    panics_at: Arc<AtomicI64>,
}

impl Fixable {
    pub(super) fn fix(&self) {
        self.fixed.store(true, Ordering::SeqCst);
    }

    pub(super) fn panic_at(&self, offset: i64) {
        self.panics_at.store(offset, Ordering::SeqCst);
    }
}

/// Prime to the number of units: each has such events between others.
fn is_eleventh(offset: i64) -> bool {
    offset % 11 == 10
}

impl FoldProjector for Fixable {
    const ID: &'static str = "fixable";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = Vec<i64>;

    fn home(&self, key: &EntityKey) -> String {
        key.as_str().to_owned()
    }
    fn apply(&self, state: &mut Vec<i64>, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        state.push(event.position.offset);
        let panics_at = self.panics_at.load(Ordering::SeqCst);
        assert!(panics_at == 0 || event.position.offset != panics_at, "asked to panic");
        if is_eleventh(event.position.offset) && !self.fixed.load(Ordering::SeqCst) {
            return Err(Reject::new(Reason::ImpossibleTransition, "the eleventh"));
        }
        Ok(())
    }
    fn writes(&self, _: &EntityKey, state: &Vec<i64>, out: &mut Vec<HotWrite>) {
        out.push(HotWrite::field("count", state.len().to_string()));
    }
}

/// A fold at work.
pub(super) struct Folding {
    pub(super) group: FakeGroup,
    pub(super) sink: MemorySink<HotWrite>,
    pub(super) inbox: FakeInbox,
    pub(super) letters: Arc<FakeDeadLetters>,
    pub(super) projector: Fixable,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<End>,
}

impl Folding {
    pub(super) fn start() -> Self {
        let (group, sink) = (FakeGroup::new(1), MemorySink::with_history(2));
        let (inbox, projector) = (FakeInbox::default(), Fixable::default());
        let letters = Arc::new(FakeDeadLetters::default());
        let stop = CancellationToken::new();
        let ended = Self::run(&group, &sink, &inbox, &letters, &projector, &stop, RunMode::Continuous);
        Self { group, sink, inbox, letters, projector, stop, ended }
    }

    /// Runs it, after it was stopped, as far as there was something to do at the start.
    pub(super) async fn run_once(&self) -> End {
        let Self { group, sink, inbox, letters, projector, .. } = self;
        let stop = CancellationToken::new();
        let ended = Self::run(group, sink, inbox, letters, projector, &stop, RunMode::Once);
        tokio::time::timeout(PATIENCE, ended).await.expect("ends in time").expect("no panic")
    }

    fn run(
        group: &FakeGroup,
        sink: &MemorySink<HotWrite>,
        inbox: &FakeInbox,
        letters: &Arc<FakeDeadLetters>,
        projector: &Fixable,
        stop: &CancellationToken,
        mode: RunMode,
    ) -> tokio::task::JoinHandle<End> {
        let runner = ProjectionRunner::new(RunnerParts {
            projection: Fold::new(projector.clone()),
            sink: sink.clone(),
            schemas: Decoder::new(Arc::new(NoSource)),
            dead_letters: Arc::clone(letters) as Arc<dyn crate::ports::DeadLetters>,
            logs: Arc::new(group.clone()),
            inbox: Arc::new(inbox.clone()),
            kafka: KafkaSettings::default(),
            catalogue: Arc::new(Catalogue::builtin()),
            config: quick(),
            metrics: EngineMetrics::register(&prometheus::Registry::new()).expect("a new registry"),
            runtime: ProjectionRuntime::new("fixable", 2).expect("threads"),
        })
        .expect("good settings");
        let (stopped, membership) = (stop.clone(), group.clone());
        tokio::spawn(async move { runner.run_on(&membership, mode, &stopped).await })
    }

    pub(super) fn lane() -> LaneId {
        LaneId { projection: "fixable".into(), ..lane(0) }
    }

    /// Every event is taken or set aside.
    pub(super) async fn until_all(&self) {
        let end = i64::try_from(self.group.len()).expect("few");
        let main = || self.sink.lane(&Self::lane()).progress.map_or(0, |progress| progress.main);
        until("all events", || main() >= end).await;
    }

    pub(super) async fn until_carried_out(&self, at: i64) {
        let inbox = || self.sink.lane(&Self::lane()).progress.map_or(0, |progress| progress.inbox);
        until("the command", || inbox() > at).await;
    }

    pub(super) fn record(&self, offset: i64) -> Record {
        self.group.records(0).into_iter().find(|record| record.offset == offset).expect("there")
    }

    /// Every state is the fold of the log without what the ledger says was not taken.
    pub(super) fn assert_folded(&self) {
        let view = self.sink.lane(&Self::lane());
        let is_taken = |offset: i64| view.ledger.get(&offset).is_none_or(|entry| entry.state.is_taken());
        for (home, entity) in self.sink.entities() {
            let log = self.group.records(0).into_iter();
            let of_entity = log.filter(|record| record.key_text() == Some(&home)).map(|record| record.offset);
            let expected: Vec<i64> = of_entity.filter(|offset| is_taken(*offset)).collect();
            let offsets: Vec<i64> = serde_json::from_slice(&entity.state).expect("a state");
            assert_eq!(offsets, expected, "{home}");
        }
    }

    pub(super) fn revision(&self, record: &Record) -> u32 {
        self.sink.entity(record.key_text().expect("a key")).expect("there").version.revision
    }

    pub(super) async fn stop(mut self) {
        self.halt().await;
    }

    /// Stops it; what it left stays.
    pub(super) async fn halt(&mut self) {
        self.stop.cancel();
        assert_eq!((&mut self.ended).await.expect("no panic"), End::Stopped);
    }
}
