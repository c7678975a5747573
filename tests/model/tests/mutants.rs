//! The model can fail: with each guarantee broken on purpose it finds what is broken, and the shortest way there.
//!
//! One test, since the mutant that is on is the whole process's: `make model` runs it.

use fleetlog_model::{Explored, Faults, Happening, Scene, StoreKind, explore, explore_nearest};
use fleetlog_projection::mutant::{Mutant, activate};

/// Small enough that each counterexample is found within seconds, and with every kind of fault.
fn scenes() -> Vec<Scene> {
    let scene = |name, store, log: &[Happening], faults| Scene {
        name,
        log: log.to_vec(),
        ends_with_marker: false,
        store,
        in_pieces: false,
        forgets: false,
        batch_max: 2,
        prefetches: true,
        reads_at_once: true,
        dedup_span_offsets: 4,
        redrives: Vec::new(),
        faults,
        tries_recovery: false,
    };
    let two = [Happening::good(1, 1), Happening::good(1, 2)];
    let crash = Faults { crashes: 1, ..Faults::default() };
    let loss = Faults { losses: 1, ..Faults::default() };
    let rebalance = Faults { rebalances: 1, ..Faults::default() };
    let loss_and_rebalance = Faults { losses: 1, rebalances: 1, ..Faults::default() };
    let disputed = [Happening::disputed(1, 1), Happening::good(1, 2), Happening::good(2, 3)];
    let poisoned = [Happening::poison(1, 1), Happening::good(1, 2), Happening::good(2, 3)];
    let poisoned_late =
        [Happening::good(1, 1), Happening::good(2, 2), Happening::poison(2, 3), Happening::good(2, 4)];
    let mended = [Happening::mended(1, 1), Happening::good(1, 2)];
    let pieces = |name, log: &[Happening], batch_max| Scene {
        in_pieces: true,
        batch_max,
        ..scene(name, StoreKind::Parts(1), log, crash)
    };
    vec![
        scene("a loss", StoreKind::Parts(1), &two, loss),
        scene("a crash", StoreKind::Parts(1), &poisoned, crash),
        scene("a rebalance", StoreKind::Parts(1), &two, rebalance),
        scene("a rebalance to other code", StoreKind::Parts(1), &disputed, rebalance),
        scene("a loss and a rebalance", StoreKind::Parts(1), &two, loss_and_rebalance),
        Scene {
            redrives: vec![0, 0],
            ..scene("a redrive to mended code", StoreKind::Whole, &mended, rebalance)
        },
        pieces("a crash, in pieces", &poisoned, 3),
        pieces("a crash, past a round", &poisoned_late, 2),
    ]
}

/// The shortest counterexample in any scene.
fn shortest(mutant: Mutant) -> Option<(Explored, usize)> {
    activate(Some(mutant));
    let explored = scenes().into_iter().map(explore_nearest);
    let caught = explored.filter_map(|explored| {
        let length = explored.broken.iter().map(|broken| broken.trace.len()).min()?;
        Some((explored, length))
    });
    let shortest = caught.min_by_key(|(_, length)| *length);
    activate(None);
    shortest
}

#[test]
fn every_mutant_is_caught() {
    for scene in scenes() {
        let sound = explore(scene, 1);
        println!("{sound}");
        assert!(sound.broken.is_empty(), "{}: broken without a mutant: {:?}", sound.name, sound.broken);
    }
    println!("{:<24} {:<26} {:<50} shortest way", "mutant", "scene", "property");
    let mut survived = Vec::new();
    for mutant in Mutant::ALL.into_iter().filter(|mutant| !Mutant::OF_HANDLERS.contains(mutant)) {
        let Some((explored, length)) = shortest(mutant) else {
            survived.push(mutant.name());
            continue;
        };
        for broken in &explored.broken {
            let (name, scene, property) = (mutant.name(), explored.name, broken.property);
            println!("{name:<24} {scene:<26} {property:<50} {length} actions: {}", broken.trace.join(", "));
        }
    }
    assert!(survived.is_empty(), "not caught: {survived:?}");
}
