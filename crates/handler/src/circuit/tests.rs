//! Tests of the circuit.

use proptest::prelude::*;

use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn go(circuit: &mut Circuit, now: Instant) -> Ticket {
    match circuit.pass(now) {
        Passage::Go(ticket) => ticket,
        other => panic!("not let through: {other:?}"),
    }
}

/// A call that begins and ends.
fn call(circuit: &mut Circuit, outcome: Outcome, now: Instant) -> Verdict {
    let ticket = go(circuit, now);
    circuit.ended(ticket, outcome, now)
}

fn opened(now: Instant) -> Circuit {
    let mut circuit = Circuit::new(CircuitSettings::default());
    for _ in 0..4 {
        call(&mut circuit, Outcome::Failed, now);
    }
    assert!(circuit.open_until().is_some());
    circuit
}

#[test]
fn the_fourth_failure_in_a_row_opens_it_and_a_success_between_them_begins_anew() {
    let (mut circuit, now) = (Circuit::new(CircuitSettings::default()), Instant::now());
    for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Failed, Outcome::Done] {
        assert_eq!(call(&mut circuit, outcome, now), Verdict { counts: true, change: None });
    }
    for _ in 0..3 {
        assert_eq!(call(&mut circuit, Outcome::Failed, now).change, None);
        // Neither a failure nor a proof.
        assert_eq!(call(&mut circuit, Outcome::Rejected, now).change, None);
    }
    let fourth = call(&mut circuit, Outcome::Failed, now);
    assert_eq!(fourth, Verdict { counts: true, change: Some(Change::Opened) });
    assert_eq!(circuit.pass(now + secs(29)), Passage::Until(now + secs(30)));
}

#[test]
fn failures_count_in_the_order_in_which_they_end() {
    let (mut circuit, now) = (Circuit::new(CircuitSettings::default()), Instant::now());
    let calls: Vec<Ticket> = (0..5).map(|_| go(&mut circuit, now)).collect();
    for ticket in &calls[..3] {
        circuit.ended(*ticket, Outcome::Failed, now);
    }
    circuit.ended(calls[4], Outcome::Done, now);
    assert_eq!(circuit.ended(calls[3], Outcome::Failed, now).change, None);
}

#[test]
fn calls_in_flight_when_it_opens_are_not_used_up_and_say_nothing_later() {
    let (mut circuit, now) = (Circuit::new(CircuitSettings::default()), Instant::now());
    let early = go(&mut circuit, now);
    let other = go(&mut circuit, now);
    for _ in 0..4 {
        call(&mut circuit, Outcome::Failed, now);
    }
    assert_eq!(circuit.ended(early, Outcome::Failed, now), Verdict { counts: false, change: None });
    // It ends among the trials, and is none of them.
    let trial = go(&mut circuit, now + secs(30));
    assert_eq!(circuit.ended(other, Outcome::Done, now + secs(31)), Verdict { counts: false, change: None });
    assert_eq!(circuit.ended(trial, Outcome::Failed, now + secs(31)).change, Some(Change::OpenedAgain));
}

#[test]
fn after_its_time_five_trials_are_let_through_and_all_have_to_be_answered() {
    let start = Instant::now();
    let (mut circuit, now) = (opened(start), start + secs(30));
    let trials: Vec<Ticket> = (0..5).map(|_| go(&mut circuit, now)).collect();
    assert_eq!(circuit.pass(now), Passage::Trials);
    for ticket in &trials[..4] {
        assert_eq!(circuit.ended(*ticket, Outcome::Done, now).change, None);
        assert_eq!(circuit.pass(now), Passage::Trials);
    }
    assert_eq!(circuit.ended(trials[4], Outcome::Rejected, now).change, Some(Change::Closed));
    assert!(circuit.is_closed());
    assert_eq!(call(&mut circuit, Outcome::Failed, now).change, None, "it counts from the beginning");
}

#[test]
fn a_trial_that_fails_opens_it_for_its_whole_time_again_and_the_other_trials_are_not_used_up() {
    let start = Instant::now();
    let (mut circuit, now) = (opened(start), start + secs(30));
    let trials: Vec<Ticket> = (0..2).map(|_| go(&mut circuit, now)).collect();
    let failed = circuit.ended(trials[0], Outcome::Failed, now + secs(5));
    assert_eq!(failed, Verdict { counts: true, change: Some(Change::OpenedAgain) });
    assert!(!circuit.ended(trials[1], Outcome::Failed, now + secs(6)).counts);
    assert_eq!(circuit.open_until(), Some(now + secs(35)));
}

#[test]
fn a_trial_that_was_dropped_leaves_its_place_to_another() {
    let start = Instant::now();
    let (mut circuit, now) = (opened(start), start + secs(30));
    let trials: Vec<Ticket> = (0..5).map(|_| go(&mut circuit, now)).collect();
    circuit.ended(trials[2], Outcome::Dropped, now);
    go(&mut circuit, now);
    assert_eq!(circuit.pass(now), Passage::Trials);
}

proptest! {
    /// Whatever is called and however it ends: while it is open nothing is let through; no more trials are under way than
    /// there may be; and once every call has ended it lets something through after its time.
    #[test]
    fn it_never_lets_through_too_much_and_never_gets_stuck(
        steps in prop::collection::vec((any::<bool>(), 0_usize..8, 0_u8..4, 0_u64..20), 1..300),
    ) {
        let settings = CircuitSettings::default();
        let (mut circuit, mut now) = (Circuit::new(settings), Instant::now());
        let mut under_way: Vec<Ticket> = Vec::new();
        for (begins, which, outcome, pause) in steps {
            now += secs(pause);
            if begins || under_way.is_empty() {
                let open_until = circuit.open_until();
                if let Passage::Go(ticket) = circuit.pass(now) {
                    prop_assert!(open_until.is_none_or(|until| now >= until));
                    under_way.push(ticket);
                }
            } else {
                let ticket = under_way.swap_remove(which % under_way.len());
                let outcome = match outcome {
                    0 => Outcome::Done,
                    1 => Outcome::Failed,
                    2 => Outcome::Rejected,
                    _ => Outcome::Dropped,
                };
                circuit.ended(ticket, outcome, now);
            }
            if !circuit.is_closed() {
                let trials = under_way.iter().filter(|ticket| ticket.openings == circuit.openings).count();
                prop_assert!(trials <= settings.trials as usize);
            }
        }
        for ticket in under_way {
            circuit.ended(ticket, Outcome::Dropped, now);
        }
        prop_assert!(matches!(circuit.pass(now + secs(30)), Passage::Go(_)));
    }
}
