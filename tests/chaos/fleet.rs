//! The projectors of a run: started, killed, stopped, frozen; what they did wrong is noted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fleetlog_testkit::{Fleetlog, Running, workspace_root};
use fleetlog_tests::World;

use crate::{
    faults::{Ground, Scene},
    load::Poisoner,
    outcome::{Check, Finding},
    plan::Plan,
};

/// How long the broker waits for a silent projector: its least.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_millis(6_000);
/// How long a projector may take to stop, by its settings.
const DRAIN_DEADLINE: Duration = Duration::from_millis(4_000);
/// What comes on top: a process has to start and end on a machine that stands still for seconds at a time, as do the servers
/// that it waits for.
const STOP_SLACK: Duration = Duration::from_secs(26);
/// How long a first write may take before it is given up; long before it is a finding.
const FIRST_WRITE_LIMIT: Duration = Duration::from_secs(90);
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// The projectors of a run, and what was seen of them.
pub(crate) struct Fleet {
    /// Topics, database, settings.
    pub(crate) world: World,
    /// What the table says of this run's faults, by name.
    pub(crate) struck: BTreeMap<String, u32>,
    /// For each restart that was timed: how long until Redis and PostgreSQL had its first write, in ms.
    pub(crate) first_writes_ms: Vec<[u64; 2]>,
    /// Restarts, timed or not.
    pub(crate) restarts: u32,
    /// Processes that were killed, or died at a fail point.
    pub(crate) kills: u32,
    /// What projectors did wrong.
    pub(crate) findings: Vec<Finding>,
    /// Sends poison.
    pub(crate) poisoner: Poisoner,
    /// Where projectors are made to die.
    pub(crate) fail_points: &'static [&'static str],
    /// All strikes at projectors are at fail points.
    pub(crate) only_fail_points: bool,
    projector: Fleetlog,
    /// Who is started from now on rejects what it should take.
    rejects: bool,
    instances: Vec<Instance>,
    processes: usize,
    store_losses: Arc<AtomicU64>,
    timed: bool,
    /// Projections that may stop for good.
    may_stop: &'static [&'static str],
    /// Everything that projectors wrote before they ended.
    said: String,
}

/// A lane that found its chain broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// When, as the log line has it.
    pub(crate) at: String,
    pub(crate) lane: String,
}

impl Fence {
    fn read(line: &str) -> Option<Self> {
        let at = line.split_whitespace().next()?.to_owned();
        let lane = line.split("lane=").nth(1)?.split_whitespace().next()?.to_owned();
        Some(Self { at, lane })
    }
}

struct Instance {
    running: Running,
    /// It was made to die at a fail point.
    may_die: bool,
    /// It rejects what it should take.
    rejects: bool,
}

/// Lanes of hot state begin with these.
const HOT: [&str; 3] = ["unit-consensus@", "unit-status@", "task-state@"];

/// The binary with faults compiled in.
pub(crate) fn fault_injection_binary() -> PathBuf {
    workspace_root().join("target/fault-injection/fleetlog")
}

fn binary_with_faults() -> Result<PathBuf> {
    let binary = fault_injection_binary();
    ensure!(binary.is_file(), "there is no {}: run scripts/build_fault_injection.sh", binary.display());
    Ok(binary)
}

/// The points of a projector's way at which it is made to die: `FLEETLOG_TEST_FAIL_POINT=list fleetlog`.
const FAIL_POINTS: [&str; 15] = [
    "lane.start.read",
    "lane.start.sought",
    "step.admitted",
    "step.states-read",
    "step.projected",
    "dead-letters.before",
    "dead-letters.after",
    "commit.before",
    "redis.call",
    "sql.begun",
    "sql.progress",
    "sql.rows",
    "sql.committed",
    "commit.after",
    "step.committed",
];

/// Where a mutant has to be struck to come to light: in a part of a step that only it makes dangerous.
fn focus(mutant: Option<&str>) -> Option<&'static [&'static str]> {
    match mutant? {
        "progress-before-data" => Some(&["commit.between"]),
        "set-asides-last" | "covered-taken-again" => Some(&["redis.call"]),
        "progress-with-first-piece" | "set-asides-with-last-piece" | "set-asides-beyond-left" => {
            Some(&["commit.before", "commit.after", "step.committed"])
        }
        "dead-letter-not-awaited" => Some(&["redis.call", "commit.after", "step.committed"]),
        _ => None,
    }
}

impl Fleet {
    /// None running yet.
    pub(crate) fn new(
        world: World,
        ground: &Ground,
        plan: &Plan,
        timed: bool,
        may_stop: &'static [&'static str],
    ) -> Result<Self> {
        let ms = |duration: Duration| duration.as_millis().to_string();
        let mut projector = world
            .fleetlog
            .clone()
            .env("FLEETLOG_RUN__SESSION_TIMEOUT_MS", &ms(SESSION_TIMEOUT))
            .env("FLEETLOG_RUN__DRAIN_DEADLINE_MS", &ms(DRAIN_DEADLINE))
            // Small batches: more moments to be struck at.
            .env("FLEETLOG_RUN__BATCH_EVENTS_MAX", "200");
        for (name, value) in &ground.projectors {
            projector = projector.env(name, value);
        }
        if let Some(mutant) = &plan.mutant {
            projector = projector.program(fault_injection_binary()).env("FLEETLOG_TEST_MUTANT", mutant);
        }
        let poisoner = Poisoner::new(world.kafka())?;
        Ok(Self {
            world,
            poisoner,
            fail_points: focus(plan.mutant.as_deref()).unwrap_or(&FAIL_POINTS),
            only_fail_points: focus(plan.mutant.as_deref()).is_some(),
            struck: BTreeMap::new(),
            first_writes_ms: Vec::new(),
            restarts: 0,
            kills: 0,
            findings: Vec::new(),
            projector,
            rejects: false,
            instances: Vec::new(),
            processes: plan.processes,
            store_losses: Arc::default(),
            timed,
            may_stop,
            said: String::new(),
        })
    }

    /// Projectors that run (frozen ones too).
    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    /// Counts a fault that struck.
    pub(crate) fn note(&mut self, fault: &str) {
        *self.struck.entry(fault.to_owned()).or_default() += 1;
    }

    /// What faults of servers need of the run.
    pub(crate) fn scene(&self) -> Scene {
        Scene::new(self.store_losses(), self.world.database.url())
    }

    /// How often a store may have lost something.
    pub(crate) fn store_losses(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.store_losses)
    }

    /// Notes something that must not be.
    pub(crate) fn found(&mut self, check: Check, detail: impl Into<String>) {
        self.findings.push(Finding { check, detail: detail.into() });
    }

    /// Starts projectors until as many run as are to run.
    pub(crate) fn fill_up(&mut self) -> Result<()> {
        while self.instances.len() < self.processes {
            self.start()?;
        }
        Ok(())
    }

    /// Runs at least so many from now on.
    pub(crate) fn at_least(&mut self, processes: usize) -> Result<()> {
        self.processes = self.processes.max(processes);
        self.fill_up()
    }

    /// Starts one more.
    pub(crate) fn start(&mut self) -> Result<()> {
        let running = self.version()?.spawn(&["run"])?;
        self.instances.push(Instance { running, may_die: false, rejects: self.rejects });
        Ok(())
    }

    /// Who is started from now on rejects some of what it should take, or does no more: the fix.
    pub(crate) fn reject_wrongly(&mut self, rejects: bool) {
        self.rejects = rejects;
    }

    /// One that rejects what it should take, if any still does.
    pub(crate) fn rejecting(&self) -> Option<usize> {
        self.instances.iter().position(|instance| instance.rejects)
    }

    /// What is to be run now.
    fn version(&self) -> Result<Fleetlog> {
        if !self.rejects {
            return Ok(self.projector.clone());
        }
        Ok(self.projector.clone().program(binary_with_faults()?).env("FLEETLOG_TEST_REJECTS", "all"))
    }

    /// Starts one more that dies as by `kill -9` at the n-th passing of a fail point.
    pub(crate) fn start_failing(&mut self, point: &str, nth: u32) -> Result<()> {
        self.start_at_point(&format!("{point}:{nth}"))?;
        self.instances.last_mut().context("one was started")?.may_die = true;
        Ok(())
    }

    /// Starts one more that stands still for so long at the n-th passing of a fail point.
    pub(crate) fn start_sleeping(&mut self, point: &str, nth: u32, length: Duration) -> Result<()> {
        self.start_at_point(&format!("{point}:{nth}:sleep{}", length.as_millis()))
    }

    fn start_at_point(&mut self, at: &str) -> Result<()> {
        let failing = self.version()?.program(binary_with_faults()?).env("FLEETLOG_TEST_FAIL_POINT", at);
        let running = failing.spawn(&["run"])?;
        self.instances.push(Instance { running, may_die: false, rejects: self.rejects });
        Ok(())
    }

    /// Waits until the youngest has died at its fail point; false if it did not within `limit`, and is killed.
    pub(crate) async fn last_dies(&mut self, limit: Duration) -> Result<bool> {
        let begun = Instant::now();
        let last = self.instances.last_mut().context("no projector runs")?;
        while last.running.ended()?.is_none() {
            if begun.elapsed() > limit {
                let index = self.instances.len() - 1;
                self.kill(index).await?;
                return Ok(false);
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        let index = self.instances.len() - 1;
        let instance = self.instances.remove(index);
        self.kills += 1;
        self.bury(instance, Duration::from_secs(5)).await?;
        Ok(true)
    }

    /// `kill -9` of one.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        let mut instance = self.instances.remove(index);
        self.kills += 1;
        instance.running.kill().await?;
        self.bury(instance, Duration::from_secs(5)).await
    }

    /// The name under which one is a static member of its groups.
    pub(crate) async fn instance_name(&mut self, index: usize) -> Result<String> {
        let running = &mut self.instances[index].running;
        let line = running.line_with("running instance=", FIRST_WRITE_LIMIT).await?;
        let name = line.split("instance=\"").nth(1).and_then(|rest| rest.split('"').next());
        Ok(name.with_context(|| format!("no instance in `{line}`"))?.to_owned())
    }

    /// SIGTERM for one, which has to end with 0 within its drain deadline.
    pub(crate) async fn terminate(&mut self, index: usize) -> Result<()> {
        let instance = self.instances.remove(index);
        let begun = Instant::now();
        instance.running.signal("TERM")?;
        // What it wrote before the signal; a process that had not begun to run dies of it, as any does.
        let had_begun = !instance.running.stderr().is_empty();
        let limit = DRAIN_DEADLINE + STOP_SLACK;
        let ended = match instance.running.wait(limit).await {
            Ok(ended) => ended,
            Err(error) => {
                self.found(Check::Exit, format!("SIGTERM: not over after {limit:?}: {error:#}"));
                return Ok(());
            }
        };
        let is_well = match ended.code() {
            Some(0) => true,
            Some(1) => !self.may_stop.is_empty(),
            Some(_) => false,
            None => !had_begun,
        };
        if !is_well {
            let took = begun.elapsed();
            self.found(
                Check::Exit,
                format!("SIGTERM: ended with {} after {took:?}: {}", ended.status, ended.stderr),
            );
        }
        self.hear(&ended.stderr);
        Ok(())
    }

    /// Starts one, and times its first writes where that means something: nobody else runs, who would write as well,
    /// and the stores are well.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.restarts += 1;
        let is_timed = self.timed && self.instances.is_empty();
        let before = if is_timed { self.world.nonces().await } else { None };
        let begun = Instant::now();
        self.start()?;
        let Some(before) = before else { return Ok(()) };
        let took = self.first_writes(&before, begun).await?;
        match took {
            Some(took) => self.first_writes_ms.push(took.map(|took| took.as_millis() as u64)),
            None => {
                self.found(Check::FirstWrite, format!("no first write within {FIRST_WRITE_LIMIT:?}"));
            }
        }
        Ok(())
    }

    async fn first_writes(
        &mut self,
        before: &[BTreeSet<String>; 2],
        begun: Instant,
    ) -> Result<Option<[Duration; 2]>> {
        let mut took = [None; 2];
        while begun.elapsed() < FIRST_WRITE_LIMIT {
            if let Some(now) = self.world.nonces().await {
                for store in 0..2 {
                    if took[store].is_none() && !now[store].is_subset(&before[store]) {
                        took[store] = Some(begun.elapsed());
                    }
                }
            }
            if let [Some(hot), Some(history)] = took {
                return Ok(Some([hot, history]));
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        Ok(None)
    }

    /// Freezes one.
    pub(crate) fn freeze(&self, index: usize) -> Result<()> {
        self.instances[index].running.signal("STOP")
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, index: usize) -> Result<()> {
        self.instances[index].running.signal("CONT")
    }

    /// Waits until one has been given partitions of every projection, at most as long as `limit`. What it is given while it
    /// is frozen it takes up when it wakes, not knowing better until its next heartbeat. False if that took too long.
    pub(crate) async fn until_assigned(&self, index: usize, limit: Duration) -> bool {
        let running = &self.instances[index].running;
        let begun = Instant::now();
        while begun.elapsed() < limit {
            let said = running.stderr();
            let given = said.lines().filter(|line| line.contains("partitions assigned"));
            let given = given.filter(|line| !line.contains("partitions=0"));
            let projections: BTreeSet<&str> =
                given.filter_map(|line| line.split("projection=").nth(1)?.split(' ').next()).collect();
            let run = said.lines().find_map(|line| line.split("projections=").nth(1)?.trim().parse().ok());
            if run == Some(projections.len()) {
                return true;
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        false
    }

    /// When and where one was fenced on lanes of hot state, by what it said. Lanes in SQL are left out: a frozen
    /// transaction holds the row of its progress, and is committed on waking.
    pub(crate) fn fences(&self, index: usize) -> Vec<Fence> {
        let said = self.instances[index].running.stderr();
        let fences = said.lines().filter(|line| line.contains("fenced: ")).filter_map(Fence::read);
        fences.filter(|fence| HOT.iter().any(|hot| fence.lane.starts_with(hot))).collect()
    }

    /// Everything that projectors have said, those that are gone included.
    pub(crate) fn said(&self) -> String {
        let running: String = self.instances.iter().map(|instance| instance.running.stderr()).collect();
        format!("{}{running}", self.said)
    }

    /// Notes projectors that ended without having been told to, and starts others in their place.
    pub(crate) async fn look_after(&mut self) -> Result<()> {
        let mut index = 0;
        while index < self.instances.len() {
            if self.instances[index].running.ended()?.is_none() {
                index += 1;
                continue;
            }
            let instance = self.instances.remove(index);
            let may_die = instance.may_die;
            let stderr = instance.running.stderr();
            self.bury(instance, Duration::from_secs(5)).await?;
            if !may_die {
                self.found(Check::Exit, format!("a projector ended by itself: {stderr}"));
            }
        }
        self.fill_up()
    }

    /// Stops all, each with 0, and looks at all that was said.
    pub(crate) async fn stop_all(&mut self) -> Result<()> {
        while !self.instances.is_empty() {
            self.terminate(0).await?;
        }
        Ok(())
    }

    async fn bury(&mut self, instance: Instance, limit: Duration) -> Result<()> {
        let ended = instance.running.wait(limit).await?;
        self.hear(&ended.stderr);
        Ok(())
    }

    fn hear(&mut self, stderr: &str) {
        self.said.push_str(stderr);
        for line in stderr.lines() {
            let stopped =
                ["stopped: ", "stopped for good", "halted: "].iter().any(|word| line.contains(word));
            let expected = self.may_stop.iter().any(|projection| line.contains(projection));
            if line.contains("panicked at") || (stopped && !expected) {
                self.findings.push(Finding { check: Check::Stopped, detail: line.to_owned() });
            }
        }
    }
}

#[test]
fn a_fence_is_read_off_a_line_of_the_log() {
    let line = "2026-11-28T02:27:10.123456Z  WARN fleetlog_engine::lane::faults: fenced: lane x: another link; everything \
                cached is dropped, progress is read again lane=unit-status@1:a-robot:3";
    let fence =
        Fence { at: "2026-11-28T02:27:10.123456Z".to_owned(), lane: "unit-status@1:a-robot:3".to_owned() };
    assert_eq!(Fence::read(line), Some(fence));
}
