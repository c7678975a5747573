use proptest::prelude::*;

use super::*;

const TIMEOUT_MS: u64 = 30_000;
const RULES: Rules = Rules { timeout_ms: TIMEOUT_MS, quiet_hold_ms: Some(300_000) };
const LOOK_MS: u64 = 1000;
/// Somebody else of the site, who is heard all the time where a test is not about quiet sites.
const OTHERS: [&str; 3] = ["s504.u91", "s504.u92", "s504.u93"];

/// A fleet on one site as hot state shows it, and the worker that looks at it once a second.
struct Scene {
    watch: Watch,
    now_ms: u64,
    shown: Vec<(&'static str, i64, Option<i64>)>,
    round: Option<Round>,
}

impl Scene {
    fn of(units: &[(&'static str, bool)]) -> Self {
        let shown = units.iter().map(|(unit, is_online)| (*unit, 0, is_online.then_some(0))).collect();
        // The clock of a machine that has run for an hour.
        Self { watch: Watch::new(RULES), now_ms: 3_600_000, shown, round: None }
    }

    /// `unit`, and others that go on.
    fn among_others(unit: &'static str, is_online: bool) -> Self {
        Self::of(&[(unit, is_online), (OTHERS[0], true), (OTHERS[1], true), (OTHERS[2], true)])
    }

    fn at(&mut self, unit: &str) -> &mut (&'static str, i64, Option<i64>) {
        self.shown.iter_mut().find(|shown| shown.0 == unit).expect("a unit of the scene")
    }

    fn hear(&mut self, units: &[&str]) {
        units.iter().for_each(|unit| self.at(unit).1 += 1);
    }

    fn connection(&mut self, unit: &str, online_since_ms: Option<i64>) {
        self.at(unit).2 = online_since_ms;
    }

    /// A look that covers everything but the last second.
    fn look(&mut self) -> &Round {
        let until_ms = Some(self.now_ms + LOOK_MS - 500);
        self.look_covering(Covered { until_ms, went_back: false })
    }

    fn look_covering(&mut self, covered: Covered) -> &Round {
        self.now_ms += LOOK_MS;
        self.watch.begin(self.now_ms, covered);
        for (unit, seen_ms, online_since_ms) in &self.shown {
            self.watch.unit("504", unit, *seen_ms, *online_since_ms);
        }
        self.round.insert(self.watch.end(1000))
    }

    /// Looks once a second while `units` are heard; what was due, by unit and second.
    fn watch_for(&mut self, seconds: u64, units: &[&str]) -> Vec<(u64, String, Kind)> {
        let mut due = Vec::new();
        for second in 1..=seconds {
            self.hear(units);
            for candidate in self.look().candidates.clone() {
                self.watch.answered(&candidate, self.now_ms);
                due.push((second, candidate.unit, candidate.kind));
            }
        }
        due
    }
}

fn due(second: u64, unit: &str, kind: Kind) -> (u64, String, Kind) {
    (second, unit.to_owned(), kind)
}

#[test]
fn a_unit_that_falls_silent_is_due_after_the_timeout_once() {
    let mut scene = Scene::among_others("s504.u1", true);
    assert_eq!(scene.watch_for(60, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]), []);
    // Heard with the look before the first of these; covered is half a second behind.
    assert_eq!(scene.watch_for(59, &OTHERS), [due(31, "s504.u1", Kind::Silent)]);
}

#[test]
fn whoever_is_not_connected_does_not_fall_silent() {
    let mut scene = Scene::among_others("s504.u1", false);
    assert_eq!(scene.watch_for(100, &OTHERS), []);
}

#[test]
fn a_unit_that_connects_without_telemetry_has_a_timeout_from_there() {
    let mut scene = Scene::among_others("s504.u1", false);
    assert_eq!(scene.watch_for(100, &OTHERS), []);
    scene.connection("s504.u1", Some(100));
    assert_eq!(scene.watch_for(20, &OTHERS), []);
    scene.connection("s504.u1", Some(120));
    assert_eq!(scene.watch_for(40, &OTHERS), [due(32, "s504.u1", Kind::Silent)]);
}

#[test]
fn a_unit_that_is_heard_in_two_looks_is_back() {
    let mut scene = Scene::among_others("s504.u1", false);
    scene.watch_for(10, &OTHERS);
    assert_eq!(
        scene.watch_for(5, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]),
        [due(2, "s504.u1", Kind::Back)]
    );
}

#[test]
fn a_message_that_was_on_its_way_when_the_connection_broke_is_no_sign_of_life() {
    let mut scene = Scene::among_others("s504.u1", true);
    scene.watch_for(10, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]);
    scene.connection("s504.u1", None);
    // In the look that shows the break, and one more behind it; the next comes hours later.
    assert_eq!(scene.watch_for(2, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]), []);
    assert_eq!(scene.watch_for(100, &OTHERS), []);
    assert_eq!(scene.watch_for(1, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]), []);
    assert_eq!(scene.watch_for(100, &OTHERS), []);
}

#[test]
fn who_was_answered_is_left_alone_for_a_timeout_unless_the_connection_changes() {
    let mut scene = Scene::among_others("s504.u1", true);
    let all = ["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]];
    assert_eq!(scene.watch_for(40, &OTHERS), [due(32, "s504.u1", Kind::Silent)]);
    // The event came to nothing: said again a timeout later.
    assert_eq!(scene.watch_for(30, &OTHERS), [due(23, "s504.u1", Kind::Silent)]);
    // It is folded, and the unit is heard: no timeout to wait for.
    scene.connection("s504.u1", None);
    assert_eq!(scene.watch_for(3, &OTHERS), []);
    assert_eq!(scene.watch_for(5, &all), [due(2, "s504.u1", Kind::Back)]);
}

#[test]
fn what_was_sent_before_a_break_and_is_taken_after_it_is_no_sign_of_life() {
    let mut scene = Scene::among_others("s504.u1", true);
    let all = ["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]];
    scene.watch_for(10, &all);
    // Telemetry is eight seconds behind, and what tells of connections is not.
    let lag_ms = 8 * LOOK_MS;
    scene.connection("s504.u1", None);
    for second in 1..=8 {
        scene.hear(&all);
        let until_ms = Some(scene.now_ms + LOOK_MS - lag_ms);
        assert_eq!(scene.look_covering(Covered { until_ms, went_back: false }).candidates, [], "{second}");
    }
    assert_eq!(scene.watch_for(60, &OTHERS), []);
    assert_eq!(scene.watch_for(3, &all), [due(2, "s504.u1", Kind::Back)]);
}

#[test]
fn a_restart_gives_everybody_a_full_timeout() {
    let mut scene = Scene::among_others("s504.u1", true);
    scene.watch_for(29, &OTHERS);
    scene.watch = Watch::new(RULES);
    assert_eq!(scene.watch_for(40, &OTHERS), [due(32, "s504.u1", Kind::Silent)]);
}

#[test]
fn a_worker_that_was_frozen_gives_everybody_a_full_timeout() {
    let mut scene = Scene::among_others("s504.u1", true);
    scene.watch_for(29, &OTHERS);
    scene.now_ms += 3_600_000;
    assert_eq!(scene.look().trust, Trust::Anew);
    assert_eq!(scene.watch_for(40, &OTHERS), [due(31, "s504.u1", Kind::Silent)]);
}

#[test]
fn a_look_that_fails_now_and_then_changes_nothing() {
    let mut scene = Scene::among_others("s504.u1", true);
    scene.watch_for(10, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]);
    scene.watch_for(10, &OTHERS);
    scene.now_ms += 5_000;
    assert_eq!(scene.watch_for(20, &OTHERS), [due(16, "s504.u1", Kind::Silent)]);
}

#[test]
fn nobody_is_silent_because_a_projection_lags_and_all_begin_anew_when_it_has_caught_up() {
    let mut scene = Scene::among_others("s504.u1", true);
    scene.watch_for(10, &["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]);
    let stuck = Covered { until_ms: Some(scene.now_ms), went_back: false };
    for _ in 0..200 {
        let round = scene.look_covering(stuck);
        assert_eq!(round.candidates, []);
    }
    assert_eq!(scene.round.as_ref().map(|round| round.trust), Some(Trust::Behind));
    assert_eq!(scene.look().trust, Trust::Anew);
    assert_eq!(scene.watch_for(40, &OTHERS), [due(31, "s504.u1", Kind::Silent)]);
}

#[test]
fn what_a_store_folds_again_after_it_lost_its_tail_is_no_sign_of_life() {
    let mut scene = Scene::among_others("s504.u1", false);
    scene.watch_for(10, &OTHERS);
    let until_ms = |scene: &Scene| Some(scene.now_ms + LOOK_MS - 500);
    let place = scene.at("s504.u1").1;
    for (step, went_back) in [(-3, true), (1, true), (1, true), (1, false)] {
        scene.at("s504.u1").1 += step;
        let covered = Covered { until_ms: until_ms(&scene), went_back };
        assert_eq!(scene.look_covering(covered).candidates, []);
    }
    assert_eq!(scene.at("s504.u1").1, place);
    assert_eq!(scene.watch_for(10, &OTHERS), []);
    assert_eq!(scene.watch_for(3, &["s504.u1"]), [due(2, "s504.u1", Kind::Back)]);
}

#[test]
fn a_site_of_which_nobody_is_heard_is_held_back_and_told_once() {
    let mut scene = Scene::of(&[("s504.u1", true), ("s504.u2", true), ("s504.u3", true)]);
    let all = ["s504.u1", "s504.u2", "s504.u3"];
    scene.watch_for(60, &all);
    let mut told = Vec::new();
    for second in 1..=200 {
        let round = scene.look();
        assert_eq!(round.candidates, [], "second {second}");
        told.extend(round.fell_quiet.iter().map(|quiet| (second, quiet.site_uid.clone(), quiet.units)));
    }
    // The site and, since there is no other, the fleet.
    assert_eq!(told, [(16, Some("504".to_owned()), 3), (16, None, 3)]);
    // The bridge is back, and the first one is heard: the others have a full timeout.
    scene.hear(&all[..1]);
    assert_eq!(scene.look().heard_again.len(), 2);
    assert_eq!(scene.watch_for(29, &all[..1]), []);
    assert_eq!(scene.watch_for(5, &all[..1]).len(), 2);
}

#[test]
fn a_site_that_stays_quiet_is_away_once_the_hold_is_over() {
    let mut scene = Scene::of(&[("s504.u1", true), ("s504.u2", true), ("s504.u3", true)]);
    scene.watch_for(60, &["s504.u1", "s504.u2", "s504.u3"]);
    assert_eq!(scene.watch_for(300, &[]), []);
    assert_eq!(scene.watch_for(2, &[]).len(), 3);

    scene = Scene::of(&[("s504.u1", true), ("s504.u2", true), ("s504.u3", true)]);
    scene.watch = Watch::new(Rules { quiet_hold_ms: None, ..RULES });
    assert_eq!(scene.watch_for(10_000, &[]), [], "without an end to it");
}

#[test]
fn small_sites_are_held_back_only_where_the_whole_fleet_is_quiet() {
    let mut watch = Watch::new(RULES);
    let mut due = Vec::new();
    for second in 0..100_u64 {
        let now_ms = second * LOOK_MS;
        watch.begin(now_ms, Covered { until_ms: Some(now_ms), went_back: false });
        let seen =
            |is_heard: bool| i64::try_from(if is_heard { second } else { second.min(10) }).expect("small");
        watch.unit("a", "sa.u1", seen(false), Some(0));
        watch.unit("b", "sb.u1", seen(second < 30), Some(0));
        watch.unit("c", "sc.u1", seen(second < 30), Some(0));
        for candidate in watch.end(1000).candidates {
            watch.answered(&candidate, now_ms);
            due.push((second, candidate.unit));
        }
    }
    assert_eq!(due, [(40, "sa.u1".to_owned())], "then all are quiet");
}

#[test]
fn what_is_too_much_waits_and_who_is_back_goes_first() {
    let mut scene = Scene::of(&[("s504.u1", true), ("s504.u2", true), ("s504.u3", false), (OTHERS[0], true)]);
    scene.watch_for(9, &["s504.u2", OTHERS[0]]);
    scene.watch_for(19, &[OTHERS[0]]);
    scene.watch_for(1, &["s504.u3", OTHERS[0]]);
    let mut found = Vec::new();
    for _ in 0..20 {
        scene.hear(&["s504.u3", OTHERS[0]]);
        scene.now_ms += LOOK_MS;
        scene.watch.begin(scene.now_ms, Covered { until_ms: Some(scene.now_ms), went_back: false });
        for (unit, seen_ms, online_since_ms) in &scene.shown {
            scene.watch.unit("504", unit, *seen_ms, *online_since_ms);
        }
        let round = scene.watch.end(1);
        found.push((round.candidates.first().map(|candidate| candidate.unit.clone()), round.waiting));
    }
    // u3 is not answered, and so goes first each time.
    assert_eq!(found[0], (Some("s504.u3".to_owned()), 0));
    assert_eq!(found[1], (Some("s504.u3".to_owned()), 1));
    assert_eq!(found[19], (Some("s504.u3".to_owned()), 2));
}

#[test]
fn what_is_no_unit_of_the_site_is_not_watched() {
    let mut watch = Watch::new(RULES);
    watch.begin(0, Covered { until_ms: Some(0), went_back: false });
    for odd in ["", "x", "s505.u1", "s504.u%zz"] {
        watch.unit("504", odd, 1, Some(1));
    }
    // The list of a version that is not promoted: its units are those of site `504`.
    watch.unit("504~2", "s504.u1", 1, Some(1));
    watch.unit("504~2", "s504%7E2.u1", 1, Some(1));
    assert_eq!(watch.end(10).units, 1);
}

#[test]
fn who_is_no_longer_shown_is_forgotten() {
    let mut scene = Scene::among_others("s504.u1", true);
    scene.watch_for(25, &OTHERS);
    let gone = scene.shown.remove(0);
    assert_eq!(scene.look().units, 3);
    scene.shown.push(gone);
    assert_eq!(scene.watch_for(30, &OTHERS), []);
}

proptest! {
    /// Clocks of bridges jump, looks fail, the worker freezes: whoever is heard at least every 9 s is never silent.
    #[test]
    fn clocks_that_jump_flood_nobody(
        steps in prop::collection::vec((0_u8..10, any::<i32>(), 1_u64..8000), 1..200),
    ) {
        let mut scene = Scene::among_others("s504.u1", true);
        let all = ["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]];
        for (what, by, gap_ms) in steps {
            match what {
                0 => scene.shown.iter_mut().for_each(|unit| unit.1 += i64::from(by)),
                1 => scene.now_ms += u64::from(by.unsigned_abs()),
                2 => scene.watch = Watch::new(RULES),
                _ => scene.now_ms += gap_ms,
            }
            scene.hear(&all);
            prop_assert_eq!(&scene.look().candidates, &[]);
        }
    }

    /// Whatever happens before: a unit that stays silent for a timeout while others are heard is due.
    #[test]
    fn silence_is_found_whatever_was_before(
        steps in prop::collection::vec((0_u8..10, any::<i32>(), 1_u64..8000), 0..100),
    ) {
        let mut scene = Scene::among_others("s504.u1", true);
        for (what, by, gap_ms) in steps {
            match what {
                0 => scene.shown.iter_mut().for_each(|unit| unit.1 += i64::from(by)),
                1 => scene.now_ms += u64::from(by.unsigned_abs()),
                2 => scene.watch = Watch::new(RULES),
                _ => scene.now_ms += gap_ms,
            }
            scene.hear(&["s504.u1", OTHERS[0], OTHERS[1], OTHERS[2]]);
            scene.look();
        }
        prop_assert_eq!(scene.watch_for(33, &OTHERS).len(), 1);
    }
}
