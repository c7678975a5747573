//! Given a task's events, and hot state that lags: what is said, and when. Hot state is what `task-state` makes of the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use fleetlog_event::{
    EventMeta, EventSet, LogId, Position, Recorded,
    task::{Completed, Created, Paused, Resumed, Started, StepChanged, StepStatus},
};
use fleetlog_handler::{
    RetryPolicy,
    given::{Given, START, Then, given, unit_meta},
};
use fleetlog_projection::{FoldProjector, HotWrite};
use fleetlog_projections::task_state::{TaskState, TaskStateProjector};
use proptest::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::Policy;

const TIMEOUT_MS: u64 = 60_000;

/// When hot state is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It shows nothing of what came since the beginning of the trouble.
    Lags,
    /// It does not answer.
    IsAway,
    /// What is said is not acknowledged.
    IsMute,
}

/// A log, and hot state behind it. Time is tokio's, from the beginning on.
#[derive(Debug)]
struct Fleet {
    begun: Instant,
    /// By the time at which they were taken in, in ms. What is to come lies here already, and is not seen before.
    events: Mutex<BTreeMap<(u64, usize), TaskEvent>>,
    /// From when to when, in ms.
    troubles: Vec<(u64, u64, Trouble)>,
}

impl Fleet {
    fn new(
        events: impl IntoIterator<Item = (u64, TaskEvent)>,
        troubles: Vec<(u64, u64, Trouble)>,
    ) -> Arc<Self> {
        let numbered = events.into_iter().enumerate().map(|(n, (at_ms, event))| ((at_ms, n), event));
        Arc::new(Self { begun: Instant::now(), events: Mutex::new(numbered.collect()), troubles })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).expect("short")
    }

    /// Since when a trouble lasts.
    fn since(&self, trouble: Trouble) -> Option<u64> {
        let now_ms = self.now_ms();
        let mut lasting =
            self.troubles.iter().filter(|(from, to, of)| *of == trouble && (*from..*to).contains(&now_ms));
        lasting.next().map(|(from, ..)| *from)
    }

    /// What is shown of the task if all up to that time is folded; and how many events that are.
    fn folded(&self, until_ms: u64) -> (Option<Shown>, usize) {
        let (mut state, mut next) = (TaskState::default(), 0);
        let events = self.events.lock().expect("not poisoned");
        let mut count = 0;
        for (offset, ((at_ms, _), event)) in (0..).zip(events.range(..=(until_ms, usize::MAX))) {
            let recorded = recorded(*at_ms, offset, event.clone());
            let mut after = state.clone();
            if TaskStateProjector.apply(&mut after, &recorded).is_ok() {
                (state, next) = (after, offset + 1);
            }
            count += 1;
        }
        if next == 0 {
            return (None, count);
        }
        let mut writes = Vec::new();
        TaskStateProjector.writes(&"T1".into(), &state, &mut writes);
        let field = |name: &&str| {
            writes.iter().find_map(|write| match write {
                HotWrite::Field { name: of, value } if of == name => value.clone(),
                _ => None,
            })
        };
        let fields: Vec<Option<String>> = Shown::FIELDS.iter().map(field).collect();
        (Some(Shown::read(0, next, &fields).expect("as it is written")), count)
    }

    fn shown(&self) -> Result<(Option<Shown>, usize), Unknowable> {
        if self.since(Trouble::IsAway).is_some() {
            return Err(Unknowable::Away("no answer".to_owned()));
        }
        Ok(self.folded(self.since(Trouble::Lags).unwrap_or_else(|| self.now_ms())))
    }

    /// What was said, with when, in ms.
    fn said(&self) -> Vec<(u64, TaskEvent)> {
        let events = self.events.lock().expect("not poisoned");
        let of_watch = |event: &TaskEvent| event.meta().source.starts_with("fleetlog-task-watch/");
        let said = events.iter().filter(|(_, event)| of_watch(event));
        said.map(|((at_ms, _), event)| (*at_ms, event.clone())).collect()
    }
}

fn recorded(at_ms: u64, offset: i64, event: TaskEvent) -> Recorded<TaskEvent> {
    let at = TimestampMs(START.0 + i64::try_from(at_ms).expect("small"));
    let position = Position { log: LogId(Uuid::from_u128(0x91e5)), partition: 0, offset };
    Recorded { position, recorded_at: at, key: event.entity(), event }
}

impl HotTasks for Arc<Fleet> {
    async fn glance(&self, _: &EntityKey) -> Result<Option<Shown>, Unknowable> {
        Ok(self.shown()?.0)
    }

    async fn look(&self, _: &EntityKey, partition: i32) -> Result<Option<Shown>, Unknowable> {
        assert_eq!(partition, 0);
        let (shown, count) = self.shown()?;
        let end = self.folded(self.now_ms()).1;
        if count < end { Err(Unknowable::Behind(format!("{count} of {end}"))) } else { Ok(shown) }
    }
}

impl Say for Arc<Fleet> {
    async fn say(&self, event: TaskEvent) -> Result<(), String> {
        // Without its acknowledgement it may lie there all the same.
        let now_ms = self.now_ms();
        let is_mute = self.since(Trouble::IsMute).is_some();
        if !is_mute || now_ms.is_multiple_of(2) {
            let mut events = self.events.lock().expect("not poisoned");
            let number = events.len();
            events.insert((now_ms, number), event);
        }
        if is_mute { Err("no acknowledgement".to_owned()) } else { Ok(()) }
    }
}

fn watch(fleet: &Arc<Fleet>, policy: Policy, while_paused: bool) -> TaskWatch<Arc<Fleet>, Arc<Fleet>> {
    let timeouts_ms = [("DELIVERY".to_owned(), TIMEOUT_MS)].into();
    let rules = Rules { timeouts_ms, policy, while_paused, ..Rules::default() };
    let clock = Arc::clone(fleet);
    let now = move || TimestampMs(START.0 + i64::try_from(clock.now_ms()).expect("small"));
    TaskWatch::new(rules, Arc::clone(fleet), Arc::clone(fleet), Box::new(now))
}

/// The tiers of the settings' defaults.
fn tiers() -> RetryPolicy {
    RetryPolicy::new([1, 2, 4, 8, 16, 30].map(Duration::from_secs).to_vec()).expect("sound")
}

fn followed(fleet: &Arc<Fleet>, policy: Policy) -> Given<TaskWatch<Arc<Fleet>, Arc<Fleet>>> {
    given(watch(fleet, policy, false)).policy(tiers())
}

fn meta() -> EventMeta {
    unit_meta("504", "7")
}

fn id() -> String {
    "T1".to_owned()
}

fn created() -> TaskEvent {
    let (task_id, task_type) = (id(), "DELIVERY".to_owned());
    let (steps, parameters) = (Vec::new(), BTreeMap::new());
    Created { meta: meta(), task_id, task_type, priority: 0, external_id: None, steps, parameters }.into()
}

fn assigned() -> TaskEvent {
    fleetlog_event::task::Assigned { meta: meta(), task_id: id() }.into()
}

fn started() -> TaskEvent {
    Started { meta: meta(), task_id: id() }.into()
}

fn step() -> TaskEvent {
    let status = StepStatus::Running;
    StepChanged { meta: meta(), task_id: id(), step_id: "s".into(), step_type: None, status, result: None }
        .into()
}

fn paused() -> TaskEvent {
    Paused { meta: meta(), task_id: id(), reason: None }.into()
}

fn resumed() -> TaskEvent {
    Resumed { meta: meta(), task_id: id() }.into()
}

fn completed() -> TaskEvent {
    Completed { meta: meta(), task_id: id(), failed_steps: 0 }.into()
}

/// A task that is under way from the beginning, and what comes then, at so many seconds.
fn under_way(then: &[(u64, TaskEvent)]) -> Vec<(u64, TaskEvent)> {
    let begin = [created(), assigned(), started()].map(|event| (0, event));
    begin.into_iter().chain(then.iter().map(|(at_s, event)| (at_s * 1_000, event.clone()))).collect()
}

/// The types of what was said, with when, in s.
fn told(fleet: &Fleet) -> Vec<(u64, &'static str)> {
    fleet.said().iter().map(|(at_ms, event)| (at_ms / 1_000, event.event_type().short_name())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_task_that_stands_still_fails_at_its_time_and_is_watched_no_more() {
    let fleet = Fleet::new(under_way(&[]), Vec::new());
    let then = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    then.then_called_after_ms(&[0, 30_000, 60_000]);
    assert_eq!(told(&fleet), [(60, "Failed")]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_moves_is_left_alone_to_its_end() {
    let fleet =
        Fleet::new(under_way(&[(50, step()), (100, step()), (155, step()), (200, completed())]), Vec::new());
    let _ = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    assert_eq!(told(&fleet), []);
}

#[tokio::test(start_paused = true)]
async fn a_paused_task_is_left_alone_and_has_its_whole_time_when_it_goes_on() {
    let then = [(10, paused()), (400, resumed())];
    let fleet = Fleet::new(under_way(&then), Vec::new());
    let _ = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    let said = told(&fleet);
    assert!(matches!(said[..], [(460..=491, "Failed")]), "{said:?}");
    let fleet = Fleet::new(under_way(&then), Vec::new());
    let strict = given(watch(&fleet, Policy::Fail, true)).policy(tiers());
    let _ = strict.event(created()).await.then_done();
    let said = told(&fleet);
    assert!(matches!(said[..], [(70..=100, "Failed")]), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn of_each_standstill_is_told_once_and_the_watch_goes_on() {
    let fleet = Fleet::new(under_way(&[(300, step()), (900, completed())]), Vec::new());
    let _ = followed(&fleet, Policy::Alert).event(created()).await.then_done();
    let said = told(&fleet);
    assert!(matches!(said[..], [(60, "Stalled"), (360..=391, "Stalled")]), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn hot_state_that_lags_makes_nobody_silent_and_uses_up_nothing() {
    // It moved, and hot state does not show it before 200 s.
    let fleet = Fleet::new(
        under_way(&[(20, step()), (190, step()), (210, completed())]),
        vec![(10_000, 200_000, Trouble::Lags)],
    );
    let _ = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    assert_eq!(told(&fleet), []);
    // The same, and it did not move.
    let fleet = Fleet::new(under_way(&[(20, step())]), vec![(10_000, 200_000, Trouble::Lags)]);
    let _ = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    assert_eq!(told(&fleet), [(200, "Failed")]);
    // Away for an hour, and as long as nobody knows the task at all.
    let fleet = Fleet::new(under_way(&[]), vec![(0, 3_600_000, Trouble::IsAway)]);
    let _ = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    let said = told(&fleet);
    assert!(matches!(said[..], [(3_600..=3_608, "Failed")]), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_or_wants_is_done() {
    let fleet = Fleet::new([], Vec::new());
    let then = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    then.then_called_after_ms(&[0]);
    let TaskEvent::Created(other) = created() else { panic!("as it is made") };
    let parking = Created { task_type: "parking".to_owned(), ..other };
    for unwanted in [TaskEvent::from(parking), started()] {
        let then: Then<_> = followed(&fleet, Policy::Fail).event(unwanted).await.then_done();
        then.then_called_after_ms(&[]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_is_said_again_as_the_same_event() {
    let fleet = Fleet::new(under_way(&[]), vec![(60_000, 63_500, Trouble::IsMute)]);
    let then = followed(&fleet, Policy::Fail).event(created()).await.then_done();
    drop(then);
    let said = fleet.said();
    assert!(!said.is_empty());
    assert!(said.iter().all(|(_, event)| event.meta().event_id == said[0].1.meta().event_id), "{said:?}");
}

/// A task's events by when they come, and when hot state is out of order, in ms.
type Schedule = (Vec<(u64, TaskEvent)>, Vec<(u64, u64, Trouble)>);

fn schedules() -> impl Strategy<Value = Schedule> {
    let kinds = prop_oneof![4 => Just(step()), 1 => Just(paused()), 1 => Just(resumed())];
    let events = prop::collection::vec((1_u64..100_000, kinds), 0..12);
    let trouble = prop_oneof![Just(Trouble::Lags), Just(Trouble::IsAway)];
    let troubles = prop::collection::vec((0_u64..600_000, 1_u64..90_000, trouble), 0..4);
    (events, troubles).prop_map(|(events, troubles)| {
        let mut at_ms = 0;
        let mut all = under_way(&[]);
        for (after_ms, event) in events {
            at_ms += after_ms;
            all.push((at_ms, event));
        }
        let troubles = troubles.into_iter().map(|(from, ms, trouble)| (from, from + ms, trouble)).collect();
        (all, troubles)
    })
}

/// The stretches of time, in ms, at which nothing moved the task for its timeout, by the log alone.
fn silences(fleet: &Fleet, until_ms: u64) -> Vec<(u64, u64)> {
    let mut state = TaskState::default();
    let (mut silences, mut since) = (Vec::new(), None::<u64>);
    let events = fleet.events.lock().expect("not poisoned");
    let ours = |event: &TaskEvent| event.meta().source.starts_with("fleetlog-task-watch/");
    for (offset, ((at_ms, _), event)) in (0..).zip(events.iter().filter(|(_, event)| !ours(event))) {
        let mut after = state.clone();
        if TaskStateProjector.apply(&mut after, &recorded(*at_ms, offset, event.clone())).is_err() {
            continue;
        }
        silences.extend(
            since.filter(|since| since + TIMEOUT_MS < *at_ms).map(|since| (since + TIMEOUT_MS, *at_ms)),
        );
        let is_watched = after.paused_at.is_none() && !after.status.is_end();
        (state, since) = (after, is_watched.then_some(*at_ms));
    }
    silences.extend(
        since.filter(|since| since + TIMEOUT_MS < until_ms).map(|since| (since + TIMEOUT_MS, until_ms)),
    );
    silences
}

/// What looking again takes at most: the longest tier, once to see that it moved, and once until it is due.
const LATE_MS: u64 = 62_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Of each silence it is told once at most, and within it; and of one that hot state can show for long enough, it is.
    #[test]
    fn never_early_never_twice_and_never_silent_for_ever((events, troubles) in schedules()) {
        const END_MS: u64 = 2_000_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let fleet = runtime.expect("a runtime").block_on(async {
            let fleet = Fleet::new(events, troubles);
            let patience = Duration::from_millis(END_MS);
            drop(followed(&fleet, Policy::Alert).patience(patience).event(created()).await);
            fleet
        });
        let (said, silences) = (fleet.said(), silences(&fleet, END_MS));
        for (at_ms, event) in &said {
            let within = silences.iter().filter(|(from, to)| (*from..=*to).contains(at_ms)).count();
            prop_assert_eq!(within, 1, "{:?} at {}, silences {:?}", event, at_ms, silences);
        }
        for (from, to) in silences {
            let times = said.iter().filter(|(at_ms, _)| (from..=to).contains(at_ms)).count();
            prop_assert!(times <= 1, "told {times} times of {from}..{to}");
            let shown_from =
                fleet.troubles.iter().filter(|(begun, end, _)| *begun < to && *end > from).map(|(_, end, _)| *end);
            let looked_at = shown_from.max().unwrap_or(from).max(from) + LATE_MS;
            prop_assert!(times == 1 || looked_at >= to, "never told of {from}..{to}, {:?}", fleet.troubles);
        }
    }
}
