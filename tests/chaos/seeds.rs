//! Which seeds run: a few in `make test`, many in `make chaos`, those that ever failed in both.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use fleetlog_testkit::workspace_root;
use futures_util::{Stream, StreamExt as _};

use crate::{faults::Family, outcome::Outcome, plan::Plan, report::table, run::run};

/// Seeds that ever failed.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// The seed of a family of which none ever failed.
const ORDINARY_SEED: u64 = 12;
/// How many runs `make test` has side by side: they wait for most of their time.
const JOBS_OF_TEST: usize = 2;

/// A setting of `scripts/chaos.sh`.
pub(crate) fn setting(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration file")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs a seed, with the family that it draws or another, and says how to replay it.
async fn run_seed(seed: u64, family: Option<Family>) -> Outcome {
    let (plan, random) = match family {
        Some(family) => Plan::of_family(seed, family),
        None => Plan::of(seed),
    };
    println!("make chaos SEED={seed} FAMILY={}    # {plan:?}", plan.family.name());
    let outcome = run(plan, random).await;
    println!("{}", serde_json::to_string(&outcome).unwrap());
    outcome
}

/// Lines of `SEED FAMILY # what was wrong`.
fn regressions() -> Vec<(u64, Family)> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next().unwrap_or_default());
    let known = lines.filter(|line| !line.trim().is_empty()).map(|line| {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|seed| seed.parse().ok());
        let family = words.next().and_then(Family::named);
        seed.zip(family).unwrap_or_else(|| panic!("regressions.txt: `{line}`: expected SEED FAMILY # why"))
    });
    known.collect()
}

/// One seed of a family: the last one that failed, or else any.
fn seed_of(family: Family) -> u64 {
    let failed = regressions().into_iter().rev().find(|(_, failed)| *failed == family);
    failed.map_or(ORDINARY_SEED, |(seed, _)| seed)
}

/// What `make test` has time for. Three brokers on two processors take theirs: by `make chaos`, as all seeds that ever
/// failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_seed_of_every_family_is_clean() {
    let families =
        Family::WEIGHTS.iter().map(|(family, _)| *family).filter(|family| *family != Family::Cluster);
    let seeds: Vec<(u64, Family)> = families.map(|family| (seed_of(family), family)).collect();
    let outcomes: Vec<Outcome> = side_by_side(seeds.into_iter(), JOBS_OF_TEST).collect().await;
    println!("\n{}", table(&outcomes));
    assert!(outcomes.iter().all(Outcome::is_clean), "see the table");
}

/// Runs seeds, so many at a time, each on a thread of its own: what one run blocks on at its end (dropping its database,
/// which waits for a COPY of any other that hangs) must not hold up another.
fn side_by_side(
    seeds: impl Iterator<Item = (u64, Family)>,
    jobs: usize,
) -> impl Stream<Item = Outcome> + Unpin {
    let runtime = tokio::runtime::Handle::current();
    let run = move |(seed, family)| {
        let runtime = runtime.clone();
        tokio::task::spawn_blocking(move || runtime.block_on(run_seed(seed, Some(family))))
    };
    let outcomes = futures_util::stream::iter(seeds).map(run).buffer_unordered(jobs);
    outcomes.map(|outcome| outcome.expect("a run that fails says so in its outcome"))
}

/// `make chaos SEEDS=100`: seeds 1 to 100 and those that once failed, but for those that the state file has already.
/// `make chaos SEED=7 [FAMILY=zombie]`: that one alone, whatever the file has.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make chaos"]
async fn many_seeds() {
    let family = setting("FLEETLOG_CHAOS_FAMILY")
        .map(|name| Family::named(&name).unwrap_or_else(|| panic!("there is no family `{name}`")));
    if let Some(seed) = setting("FLEETLOG_CHAOS_SEED") {
        let outcome = run_seed(seed.parse().expect("SEED is a number"), family).await;
        println!("\n{}", table(std::slice::from_ref(&outcome)));
        assert!(outcome.is_clean(), "see the table");
        return;
    }
    let seeds: u64 = setting("FLEETLOG_CHAOS_SEEDS").and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let state = State::open(&setting("FLEETLOG_CHAOS_STATE").unwrap_or_else(|| "chaos".to_owned()));
    let drawn = (1..=seeds).map(|seed| (seed, family.unwrap_or_else(|| Plan::of(seed).0.family)));
    let wanted: Vec<(u64, Family)> = regressions().into_iter().chain(drawn).collect();
    let mut outcomes = state.read();
    let known: BTreeSet<(u64, String)> =
        outcomes.iter().map(|outcome| (outcome.seed, outcome.family.clone())).collect();
    outcomes.retain(|outcome| {
        wanted.iter().any(|(seed, family)| (*seed, family.name()) == (outcome.seed, outcome.family.clone()))
    });
    let jobs = setting("FLEETLOG_CHAOS_JOBS").map_or(1, |jobs| jobs.parse().expect("JOBS is a number"));
    let open = wanted.into_iter().filter(|(seed, family)| !known.contains(&(*seed, family.name())));
    let mut running = side_by_side(open, jobs);
    while let Some(outcome) = running.next().await {
        state.add(&outcome);
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.seed);
    println!("\n{}", table(&outcomes));
    assert!(outcomes.iter().all(Outcome::is_clean), "see the table");
}

/// Outcomes of a build, one JSON a line: a run that was broken off goes on where it stopped.
struct State(PathBuf);

impl State {
    fn open(name: &str) -> Self {
        let folder = workspace_root().join(".stack/chaos");
        fs::create_dir_all(&folder).unwrap();
        Self(folder.join(format!("{name}.jsonl")))
    }

    fn read(&self) -> Vec<Outcome> {
        let text = fs::read_to_string(Path::new(&self.0)).unwrap_or_default();
        // A last line that was cut off in writing is a seed that is run again.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn add(&self, outcome: &Outcome) {
        let mut file = File::options().create(true).append(true).open(&self.0).unwrap();
        writeln!(file, "{}", serde_json::to_string(outcome).unwrap()).unwrap();
    }
}
