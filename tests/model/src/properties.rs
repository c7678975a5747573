//! What must hold: at every moment, when nothing is left to be done, and from every moment on.

use std::collections::BTreeMap;

use fleetlog_projection::{
    memory::{LaneView, World},
    parts::Standing,
};
use stateright::Property;

use crate::{
    code::{Taken, Write, readable},
    owner::{Owner, Phase},
    scene::Scene,
    system::{State, System},
};

/// Something that must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Finding {
    /// An event counts twice, or out of order, or in an entity that is not its own, or although it is a duplicate.
    CountedTwice = 1,
    /// Progress is past an event that is neither taken nor set aside.
    Missing = 2,
    /// An event is taken and set aside.
    TakenAndSetAside = 4,
    /// An event is set aside that nothing is wrong with.
    SetAsideForNothing = 8,
    /// Progress is past a set-aside event whose dead letter was not acknowledged.
    NoLetter = 16,
    /// An entity or a row went back to an earlier state though the store lost nothing.
    WentBack = 32,
    /// A lane stopped, or a projector panicked, though log and states are as they were.
    Stopped = 64,
    /// An owner that was fenced went on though the partition was not its own.
    Trespassed = 128,
    /// The store said *already applied* of a part that it does not hold.
    Belied = 256,
    /// A state covers an event that is neither in it nor set aside.
    PastItsSetAsides = 512,
    /// What people read of an entity is not what its state says.
    Misread = 1024,
}

impl Finding {
    pub(crate) fn bit(self) -> u16 {
        self as u16
    }
}

/// Everything a world holds of the log: by entity (or all rows as one) what was taken, in the order it is there.
fn taken(world: &World<Write>, lane: &LaneView<Write>) -> BTreeMap<String, Taken> {
    let entities = world.entities.iter().map(|(home, change)| {
        // A state that cannot be read is as bad as one that counts something twice.
        (home.clone(), serde_json::from_slice(&change.state).unwrap_or_else(|_| vec![(-1, 0), (-1, 0)]))
    });
    let rows = lane.rows.iter().flat_map(|(offset, codes)| codes.iter().map(|code| (*offset, *code)));
    let rows: Taken = rows.collect();
    entities.chain((!rows.is_empty()).then(|| ("rows".to_owned(), rows))).collect()
}

/// Whether an event is set aside and was not taken later on.
fn is_aside(lane: &LaneView<Write>, offset: i64) -> bool {
    lane.ledger.get(&offset).is_some_and(|entry| !entry.state.is_taken())
}

fn is_beginning(before: &Taken, after: &Taken) -> bool {
    after.starts_with(before)
}

impl System {
    /// Looks at the world after a write. `before` is the world it was made to.
    pub(crate) fn inspect(&self, state: &mut State, before: &World<Write>) {
        let none = LaneView::default();
        let world = std::sync::Arc::clone(&state.world);
        let view = world.lanes.get(&self.lane).unwrap_or(&none);
        let now = taken(&world, view);
        let then = taken(before, before.lanes.get(&self.lane).unwrap_or(&none));
        for (home, taken) in &now {
            if !self.counts_once(home, taken, &world) {
                state.find(Finding::CountedTwice);
            }
        }
        let back = |(home, then): (&String, &Taken)| {
            let Some(now) = now.get(home) else { return true };
            let version = |world: &World<Write>| world.entities.get(home).map(|change| change.version);
            match (version(before), version(&world)) {
                // Folded anew: an event came in its place, perhaps another went.
                (Some(before), Some(now)) if now.revision > before.revision => now.next < before.next,
                (None, None) if !self.scene.redrives.is_empty() => !then.iter().all(|row| now.contains(row)),
                _ => !is_beginning(then, now),
            }
        };
        if then.iter().any(back) {
            state.find(Finding::WentBack);
        }
        self.inspect_entities(state, &world, view);
        let is_taken = |offset: i64| now.values().flatten().any(|(taken, _)| *taken == offset);
        let main = view.progress.map_or(0, |progress| progress.main);
        for (&offset, entry) in &view.ledger {
            if is_taken(offset) && !entry.state.is_taken() {
                state.find(Finding::TakenAndSetAside);
            }
            if !is_taken(offset) && entry.state.is_taken() {
                state.find(Finding::Missing);
            }
            if !self.may_be_set_aside(offset) {
                state.find(Finding::SetAsideForNothing);
            }
            if offset < main && !state.letters.contains(&offset) {
                state.find(Finding::NoLetter);
            }
        }
        let mut below = self.expected.values().flatten().filter(|offset| **offset < main);
        if below.any(|offset| !is_taken(*offset) && !view.ledger.contains_key(offset)) {
            state.find(Finding::Missing);
        }
    }

    fn inspect_entities(&self, state: &mut State, world: &World<Write>, lane: &LaneView<Write>) {
        for (home, change) in &world.entities {
            let Ok(taken) = serde_json::from_slice::<Taken>(&change.state) else { continue };
            let is_in = |offset: i64| taken.iter().any(|(taken, _)| *taken == offset);
            let covered = self.expected.get(home).into_iter().flatten();
            let mut covered = covered.filter(|offset| **offset < change.version.next);
            if covered.any(|offset| !is_in(*offset) && !is_aside(lane, *offset)) {
                state.find(Finding::PastItsSetAsides);
            }
            if change.writes != readable(&taken) {
                state.find(Finding::Misread);
            }
        }
    }

    fn counts_once(&self, home: &str, taken: &Taken, world: &World<Write>) -> bool {
        let in_order = taken.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let expected: Vec<i64> = match self.expected.get(home) {
            Some(offsets) => offsets.clone(),
            None => self.expected.values().flatten().copied().collect(),
        };
        let own = taken.iter().all(|(offset, _)| expected.contains(offset));
        let version = world.entities.get(home).map(|change| change.version.next);
        let covered = version.is_none_or(|next| taken.last().is_some_and(|(last, _)| last + 1 == next));
        in_order && own && covered
    }

    fn may_be_set_aside(&self, offset: i64) -> bool {
        let event = usize::try_from(offset).ok().and_then(|at| self.scene.log.get(at));
        let is_new = self.expected.values().flatten().any(|expected| *expected == offset);
        is_new && event.is_some_and(|event| event.is_refused || event.rejected_by.contains(&true))
    }

    /// The world is the fold of the whole log: every event but the duplicates and those in the ledger, once and in
    /// its place, and progress at the log's end.
    pub(crate) fn is_caught_up(&self, state: &State) -> bool {
        let Some(view) = state.world.lanes.get(&self.lane) else { return self.now.high == 0 };
        let mut found = taken(&state.world, view);
        let rows = found.remove("rows").unwrap_or_default();
        let fold = |offsets: &Vec<i64>| -> Vec<i64> {
            offsets.iter().copied().filter(|offset| !is_aside(view, *offset)).collect()
        };
        let offsets = |taken: &Taken| -> Vec<i64> { taken.iter().map(|(offset, _)| *offset).collect() };
        let is_folded = match self.scene.store {
            crate::StoreKind::Parts(_) => self
                .expected
                .iter()
                .all(|(home, expected)| fold(expected) == found.get(home).map(offsets).unwrap_or_default()),
            crate::StoreKind::Whole => {
                let mut all: Vec<i64> = self.expected.values().flat_map(fold).collect();
                all.sort_unstable();
                all == offsets(&rows)
            }
        };
        let commands = i64::try_from(self.scene.redrives.len()).expect("few");
        let is_at_end = |progress: fleetlog_projection::Progress| {
            (progress.main, progress.inbox) == (self.now.high, commands)
        };
        is_folded && view.progress.is_some_and(is_at_end)
    }

    /// Whether nothing can happen but faults.
    fn is_quiet(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.ordinary(state, &mut actions);
        actions.is_empty()
    }

    /// Lets the ordinary course of things go on from here, without faults: whether it ends caught up, within bounds.
    fn recovers(&self, state: &State) -> bool {
        const STEPS_MAX: usize = 120;
        let mut state = state.clone();
        let mut actions = Vec::new();
        for _ in 0..STEPS_MAX {
            actions.clear();
            self.ordinary(&state, &mut actions);
            let Some(action) = actions.first().cloned() else { return self.is_caught_up(&state) };
            self.act(&mut state, action);
        }
        false
    }
}

/// The properties of a scene.
pub(crate) fn all(scene: &Scene) -> Vec<Property<System>> {
    let mut all: Vec<Property<System>> = vec![
        Property::always("an event counts once, in its place", never::<{ Finding::CountedTwice as u16 }>),
        Property::always("progress is past nothing that is missing", never::<{ Finding::Missing as u16 }>),
        Property::always("no event is taken and set aside", never::<{ Finding::TakenAndSetAside as u16 }>),
        Property::always("nothing is set aside for nothing", never::<{ Finding::SetAsideForNothing as u16 }>),
        Property::always(
            "dead letters are acknowledged before progress",
            never::<{ Finding::NoLetter as u16 }>,
        ),
        Property::always("a reader never sees a step back", never::<{ Finding::WentBack as u16 }>),
        Property::always("only what is there is already applied", never::<{ Finding::Belied as u16 }>),
        Property::always("no lane stops", never::<{ Finding::Stopped as u16 }>),
        Property::always("who was fenced goes on only as owner", never::<{ Finding::Trespassed as u16 }>),
        Property::always("no state is past its set-asides", never::<{ Finding::PastItsSetAsides as u16 }>),
        Property::always("people read what the state says", never::<{ Finding::Misread as u16 }>),
        Property::always("when all is quiet, state == fold(log)", |system: &System, state: &State| {
            !system.is_quiet(state) || system.is_caught_up(state)
        }),
    ];
    if scene.tries_recovery {
        all.push(Property::always("from everywhere it catches up", |system: &System, state: &State| {
            system.recovers(state)
        }));
    }
    all.extend(situations(scene));
    all.extend(situations_of_rounds(scene));
    if !scene.redrives.is_empty() {
        all.push(Property::sometimes("an event is redriven and taken", |_, state: &State| {
            state.entries().any(|entry| entry.state.is_taken())
        }));
        all.push(Property::sometimes("an event is redriven and rejected again", |_, state: &State| {
            state.entries().any(|entry| entry.replays > 0)
        }));
    }
    all
}

/// What a scene has to meet, or it shows nothing.
fn situations(scene: &Scene) -> Vec<Property<System>> {
    let (mut all, faults) = (Vec::new(), scene.faults);
    if faults.rebalances + faults.losses > 0 {
        all.push(Property::sometimes("a lane is fenced", |_, state: &State| {
            state.owners.iter().any(|owner| owner.phase == Phase::Start { fenced: true })
        }));
    }
    if scene.prefetches && faults.rebalances + faults.losses > 0 {
        all.push(Property::sometimes("what was prefetched is stale", |_, state: &State| {
            state.owners.iter().any(|owner| match (&owner.phase, &owner.feed.prefetched) {
                (Phase::Idle(work), Some(batch)) => batch.begin != work.core.cursor(),
                _ => false,
            })
        }));
    }
    if scene.log.len() > 2 {
        all.push(Property::sometimes("a batch is projected ahead of a write", |_, state: &State| {
            let ahead = |owner: &Owner| owner.work().is_some_and(|work| work.ahead.any);
            state.owners.iter().any(|owner| owner.committing.is_some() && ahead(owner))
        }));
    }
    if faults.timeouts > 0 {
        all.push(Property::sometimes("a write meets itself", |_, state: &State| {
            let mut flights = state.owners.iter().filter_map(|owner| owner.committing.as_ref());
            flights.any(|committing| committing.flight.met_itself())
        }));
    }
    // A piece is one call, unless something is set aside with it.
    let has_parts = !scene.in_pieces || scene.log.iter().any(|event| event.rejected_by.contains(&true));
    if faults.crashes > 0 && has_parts && matches!(scene.store, crate::StoreKind::Parts(_)) {
        all.push(Property::sometimes("a commit stands half done", |system: &System, state: &State| {
            let link = state.world.link(&system.lane);
            state.late.iter().any(|flight| {
                matches!(flight.parts.standing(link), Standing::Done(done) if 0 < done && done < flight.parts.len())
            })
        }));
    }
    all
}

/// As [`situations`], of rounds that go in pieces.
fn situations_of_rounds(scene: &Scene) -> Vec<Property<System>> {
    let (mut all, faults) = (Vec::new(), scene.faults);
    if !scene.in_pieces {
        return all;
    }
    if faults.crashes + faults.rebalances + faults.losses > 0 {
        all.push(Property::sometimes(
            "states of a round are there, and nobody to end it",
            |system: &System, state: &State| {
                let main = state.world.lanes.get(&system.lane).and_then(|lane| lane.progress);
                let main = main.map_or(0, |progress| progress.main);
                let is_whole = state.world.link(&system.lane).is_some_and(|link| link == link.part(0));
                let is_ahead = state.world.entities.values().any(|change| change.version.next > main);
                is_whole && is_ahead && state.owners.iter().all(|owner| owner.work().is_none())
            },
        ));
    }
    if scene.log.iter().skip(2).any(|event| event.rejected_by == [true, true]) {
        all.push(Property::sometimes(
            "a piece takes along what is set aside past its round",
            |_, state: &State| {
                state.owners.iter().any(|owner| {
                    let (Some(work), Some(committing)) = (owner.work(), &owner.committing) else {
                        return false;
                    };
                    let unit = &committing.flight.unit;
                    let reach = work.round.as_ref().map_or(unit.progress, |round| round.reach).main;
                    unit.set_aside.iter().any(|aside| aside.record.offset >= reach)
                })
            },
        ));
    }
    if scene.forgets {
        all.push(Property::sometimes("states are read between two pieces", |_, state: &State| {
            state.owners.iter().any(|owner| match &owner.phase {
                Phase::Reading { work, .. } => owner.committing.is_none() && work.round.is_some(),
                _ => false,
            })
        }));
    }
    all
}

fn never<const BIT: u16>(_: &System, state: &State) -> bool {
    state.found & BIT == 0
}
