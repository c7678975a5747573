//! Exploring a scene, and what came of it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model};

use crate::{scene::Scene, system::System};

/// What exploring a scene brought.
#[derive(Debug)]
pub struct Explored {
    /// The scene's name.
    pub name: &'static str,
    /// Different states.
    pub states: usize,
    /// Steps of the longest way that had to be gone.
    pub depth: usize,
    /// Names of the properties.
    pub properties: Vec<&'static str>,
    /// Broken properties, each with the shortest way there.
    pub broken: Vec<Broken>,
    /// Situations that were to be met and were not.
    pub unmet: Vec<&'static str>,
    /// Whether every state that can be reached was seen.
    pub is_exhausted: bool,
    /// How long it took.
    pub took: Duration,
}

/// A property that does not hold.
#[derive(Debug)]
pub struct Broken {
    /// Its name.
    pub property: &'static str,
    /// What has to happen, in order.
    pub trace: Vec<String>,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, depth, took, .. } = self;
        let seen = if self.is_exhausted { "all" } else { "not all" };
        let (properties, broken) = (self.properties.len(), self.broken.len());
        write!(
            f,
            "{name:<34} {states:>9} states ({seen}), depth {depth:>3}, {properties:>2} properties, {broken} broken, \
             {:>5.1} s",
            took.as_secs_f64()
        )
    }
}

/// Explores a scene on `threads` threads, until all is seen or some property is found broken.
#[must_use]
pub fn explore(scene: Scene, threads: usize) -> Explored {
    explore_to(scene, threads, 0)
}

/// Explores a scene as far as the nearest broken property, if there is one: the ways to it are the shortest there are.
#[must_use]
pub fn explore_nearest(scene: Scene) -> Explored {
    let explored = explore(scene.clone(), 1);
    if explored.broken.is_empty() {
        return explored;
    }
    // The checker names whichever broken state it saw last, so the horizon is moved out step by step.
    let mut horizons = (2..=explored.depth).map(|depth| explore_to(scene.clone(), 1, depth));
    horizons.find(|nearest| !nearest.broken.is_empty()).unwrap_or(explored)
}

/// As [`explore`], but only states that are less than `depth_max` deep (the first is 1 deep); 0 is all of them.
fn explore_to(scene: Scene, threads: usize, depth_max: usize) -> Explored {
    let started = Instant::now();
    let name = scene.name;
    let checker = System::new(scene).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.target_max_depth(depth_max).spawn_bfs().join();
    let properties = checker.model().properties();
    let mut explored = Explored {
        name,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        properties: properties.iter().map(|property| property.name).collect(),
        broken: Vec::new(),
        unmet: Vec::new(),
        is_exhausted: checker.is_done(),
        took: started.elapsed(),
    };
    for property in properties {
        let found = checker.discovery(property.name);
        if !property.expectation.discovery_is_failure() {
            explored.unmet.extend(found.is_none().then_some(property.name));
        } else if let Some(path) = found {
            let trace = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            explored.broken.push(Broken { property: property.name, trace });
        }
    }
    explored.is_exhausted &= explored.broken.is_empty();
    explored
}
