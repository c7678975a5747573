//! Which projections stand still, out of the events of topic `ops`.

use fleetlog_event::{
    EventId, EventMeta, TimestampMs,
    ops::{CircuitChanged, HaltCause, OpsEvent, ProjectionHalted, ProjectionResumed},
};

use crate::Halts;

fn meta(n: u32) -> EventMeta {
    EventMeta::of_ops(EventId::derived("halting", n), "test/1", TimestampMs(1_000))
}

fn halted(n: u32, group: &str, why: &str) -> OpsEvent {
    let halt = ProjectionHalted {
        meta: meta(n),
        group: group.into(),
        projection: "unit-status".into(),
        version: 1,
        why: why.into(),
        who: "worker-1".into(),
        topic: None,
        partition: None,
        offset: None,
        detail: "a flood".into(),
    };
    halt.into()
}

fn resumed(n: u32, group: &str, set_asides_max: Option<i64>) -> OpsEvent {
    let resume = ProjectionResumed {
        meta: meta(n),
        group: group.into(),
        projection: "unit-status".into(),
        operator: "anna@control-1".into(),
        why: "it is mended".into(),
        halt: None,
        set_asides_max,
    };
    resume.into()
}

fn folded(events: Vec<OpsEvent>) -> Halts {
    let mut halts = Halts::default();
    events.into_iter().for_each(|event| halts.take(event));
    halts
}

#[test]
fn a_group_is_halted_from_its_halt_to_the_next_resume_and_no_other_group_is() {
    let halts = folded(vec![halted(1, "a", "set_aside_ratio"), halted(2, "a", "set_asides_in_a_row")]);
    let state = halts.of("a");
    assert_eq!(state.halt.map(|halt| halt.cause()), Some(HaltCause::SetAsidesInARow), "the newest");
    assert_eq!((halts.of("b").halt, state.resumes), (None, 0));
    // One resume answers all halts before it.
    let halts = folded(vec![
        halted(1, "a", "x"),
        halted(2, "a", "x"),
        resumed(3, "a", Some(5_000)),
        halted(4, "b", "x"),
    ]);
    let state = halts.of("a");
    assert_eq!((state.halt, state.resumes, state.set_asides_max), (None, 1, 5_000));
    assert!(halts.of("b").halt.is_some());
}

#[test]
fn what_a_resume_lets_pass_ends_with_the_next_halt_or_resume() {
    let halts = folded(vec![resumed(1, "a", Some(9)), halted(2, "a", "x"), resumed(3, "a", None)]);
    assert_eq!((halts.of("a").resumes, halts.of("a").set_asides_max), (2, 0));
    assert_eq!(folded(vec![resumed(1, "a", Some(9)), halted(2, "a", "x")]).of("a").set_asides_max, 0);
    assert_eq!(folded(vec![resumed(1, "a", Some(-9))]).of("a").set_asides_max, 0);
}

#[test]
fn a_halt_that_was_sent_twice_does_not_come_back_after_its_answer() {
    let halts = folded(vec![halted(1, "a", "x"), resumed(2, "a", None), halted(1, "a", "x")]);
    assert_eq!(halts.of("a").halt, None);
}

#[test]
fn a_cause_that_is_not_known_here_halts_all_the_same() {
    let halts = folded(vec![halted(1, "a", "of_tomorrow")]);
    assert_eq!(halts.of("a").halt.map(|halt| halt.cause()), Some(HaltCause::Failed));
}

fn circuit(n: u32, group: &str, who: &str, state: &str) -> OpsEvent {
    let change = CircuitChanged {
        meta: meta(n),
        group: group.into(),
        handler: "webhook-orders".into(),
        state: state.into(),
        who: who.into(),
        detail: "HTTP 503".into(),
    };
    change.into()
}

#[test]
fn a_circuit_is_open_in_each_process_that_said_so_until_that_one_takes_it_back() {
    let open = |halts: &Halts, group: &str| -> Vec<String> {
        halts.open_circuits(group).map(|change| change.who.clone()).collect()
    };
    let mut halts = folded(vec![
        circuit(1, "a", "worker-1", "open"),
        circuit(2, "a", "worker-2", "open"),
        circuit(3, "b", "worker-1", "open"),
        circuit(4, "a", "worker-1", "open"),
        circuit(5, "a", "worker-1", "closed"),
        circuit(6, "b", "worker-2", "closed"),
    ]);
    assert_eq!((open(&halts, "a"), open(&halts, "b")), (vec!["worker-2".into()], vec!["worker-1".into()]));
    assert_eq!(halts.of("a").halt, None);
    halts.take(circuit(7, "b", "worker-1", "half_of_tomorrow"));
    assert_eq!(open(&halts, "b"), ["worker-1"], "what is not known here is not closed");
}
