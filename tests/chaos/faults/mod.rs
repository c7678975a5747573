//! What strikes a run: families of faults, one file each.
//!
//! A family brings the servers it needs ([`Faults::ground`]), strikes again and again while load runs, and heals what
//! lasts before the run waits for quiet. What it strikes at is drawn from the run's random numbers alone, so that a
//! seed replays.

mod broker;
mod clock;
mod combined;
mod handlers;
mod log;
mod network;
mod postgres;
pub(crate) mod process;
mod redis;
mod redrive;
mod tail;
mod usurper;
mod zombie;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use fleetlog_testkit::Stack;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::fleet::Fleet;

/// The families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// Projectors killed, stopped, paused, joined and taken away.
    Process,
    /// A projector frozen beyond its session, while another takes over.
    Zombie,
    /// Hot state loses its tail.
    Tail,
    /// Somebody else writes on the chains.
    Chain,
    /// Somebody takes a projector's name.
    Usurper,
    /// Retention overtakes a stopped projector.
    Retention,
    /// A topic is deleted and made again.
    Recreated,
    /// Ways to servers cut, refused, half-open, slow.
    Network,
    /// A store that takes connections and answers nothing.
    Hang,
    /// Redis killed, emptied, thrown back, failed over, full.
    Redis,
    /// PostgreSQL killed, locked, out of connections, its disk full.
    Postgres,
    /// The only broker killed, stopped, frozen.
    Broker,
    /// One broker of three killed, and another; the controller moved.
    Cluster,
    /// Projectors' wall clocks jump.
    Clock,
    /// Redis, PostgreSQL, the broker and projectors, two or three of them at once.
    Combined,
    /// A webhook runs beside the projections, and its endpoint fails, is slow, or down.
    Handlers,
    /// What projectors rejected wrongly is redriven while they are killed, stopped and replaced.
    Redrive,
}

impl Family {
    /// Each with how often a seed draws it.
    pub(crate) const WEIGHTS: [(Self, u32); 17] = [
        (Self::Process, 10),
        (Self::Zombie, 4),
        (Self::Tail, 3),
        (Self::Chain, 2),
        (Self::Retention, 1),
        (Self::Recreated, 1),
        (Self::Network, 4),
        (Self::Hang, 1),
        (Self::Redis, 5),
        (Self::Postgres, 4),
        (Self::Broker, 2),
        (Self::Cluster, 1),
        (Self::Clock, 2),
        (Self::Usurper, 2),
        (Self::Combined, 6),
        (Self::Redrive, 6),
        (Self::Handlers, 6),
    ];

    /// All, by the name that the table and `FLEETLOG_CHAOS_FAMILY` have.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let families = Self::WEIGHTS.iter().map(|(family, _)| *family);
        families.into_iter().find(|family| family.name() == name)
    }

    pub(crate) fn name(self) -> String {
        serde_json::to_value(self).unwrap().as_str().unwrap().to_owned()
    }

    /// Its servers, started and answering.
    pub(crate) async fn set_up(self, random: &mut StdRng) -> Result<Box<dyn Faults>> {
        Ok(match self {
            Self::Process => Box::new(process::Process),
            Self::Zombie => Box::new(zombie::Zombie::default()),
            Self::Tail => Box::new(tail::Tail::default()),
            Self::Chain => Box::new(tail::Chain),
            Self::Usurper => Box::new(usurper::Usurper::default()),
            Self::Retention => Box::new(log::Retention::default()),
            Self::Recreated => Box::new(log::Recreated::default()),
            Self::Network => Box::new(network::Network::start().await?),
            Self::Hang => Box::new(network::Hang::start().await?),
            Self::Redis => Box::new(redis::Redis::start().await?),
            Self::Postgres => Box::new(postgres::Postgres::start().await?),
            Self::Broker => Box::new(broker::Broker::start().await?),
            Self::Cluster => Box::new(broker::Cluster::start().await?),
            Self::Clock => Box::new(clock::Clock::start()?),
            Self::Combined => Box::new(combined::Combined::start().await?),
            Self::Handlers => Box::new(handlers::Handlers::draw(random).await),
            Self::Redrive => Box::new(redrive::Redrive::draw(random)),
        })
    }
}

/// Which servers a run uses.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// Where the servers themselves are: for the checks, for making topics and tables, and, unless told otherwise
    /// below, for projectors and load.
    pub(crate) stack: Stack,
    /// Settings of the projectors that differ, such as `FLEETLOG_REDIS__URL` = a proxy's address.
    pub(crate) projectors: Vec<(String, String)>,
    /// Settings of the load that differ.
    pub(crate) load: Vec<(String, String)>,
    /// Settings that all commands and processes have beside their own, such as a webhook.
    pub(crate) everywhere: Vec<(String, String)>,
}

impl Ground {
    /// The servers that all tests share.
    pub(crate) fn shared() -> Self {
        Self::on(Stack::from_env())
    }

    /// These servers.
    pub(crate) fn on(stack: Stack) -> Self {
        Self { stack, projectors: Vec::new(), load: Vec::new(), everywhere: Vec::new() }
    }
}

/// What a fault of a server needs of the run, whatever else happens to projectors meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    store_losses: Arc<AtomicU64>,
    /// The run's own database.
    pub(crate) database_url: String,
}

impl Scene {
    pub(crate) fn new(store_losses: Arc<AtomicU64>, database_url: &str) -> Self {
        Self { store_losses, database_url: database_url.to_owned() }
    }

    /// A store may lose what it has acknowledged, so that a reader may see it go back. Told before and after what may
    /// cost it its tail.
    pub(crate) fn store_may_lose(&self) {
        self.store_losses.fetch_add(1, Ordering::SeqCst);
    }
}

/// A family at work in one run.
pub(crate) trait Faults {
    /// The servers. Asked once, before anything else.
    fn ground(&self) -> Ground {
        Ground::shared()
    }

    /// Called once before the first projector is started.
    fn begin(&mut self, _fleet: &mut Fleet, _random: &mut StdRng) -> Result<()> {
        Ok(())
    }

    /// Strikes once, while load runs, and returns the fault's name for the table. What it does with projectors it
    /// does through `fleet`, which notes restarts and findings. Before and after a fault that may cost a store its
    /// tail it calls [`Scene::store_may_lose`]: reads that go backwards around it are counted apart.
    fn strike<'a>(
        &'a mut self,
        fleet: &'a mut Fleet,
        random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<&'static str>>;

    /// How many times it has to strike, however long that takes.
    fn strikes_min(&self) -> u32 {
        1
    }

    /// How long to wait between two strikes, in milliseconds.
    fn pause_ms(&self) -> std::ops::Range<u64> {
        0..1500
    }

    /// Ends what lasts, before the run waits for quiet.
    fn heal<'a>(&'a mut self, _fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed_local()
    }

    /// Strikes once more when everything is taken and nothing moves; none if this family has nothing for it. The run
    /// waits for quiet again afterwards.
    fn strike_in_quiet<'a>(
        &'a mut self,
        _fleet: &'a mut Fleet,
        _random: &'a mut StdRng,
    ) -> LocalBoxFuture<'a, Result<Option<&'static str>>> {
        async { Ok(None) }.boxed_local()
    }

    /// What only this family has to check, once nothing runs any more. Findings go to the fleet.
    fn check<'a>(&'a mut self, _fleet: &'a mut Fleet) -> LocalBoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed_local()
    }

    /// Whether projectors are killed, stopped and joined in between as well.
    fn mixes_with_process(&self) -> bool {
        false
    }

    /// Whether projectors reject what they should take, and that is redriven.
    fn redrives(&self) -> bool {
        false
    }

    /// Whether a restarted projector finds its servers well, so that its first write can be timed.
    fn restarts_are_timed(&self) -> bool {
        true
    }

    /// Projections that have to have stopped for good when the run ends, both ways out named; they are left out of
    /// the recount.
    fn stopped(&self) -> &'static [&'static str] {
        &[]
    }
}
