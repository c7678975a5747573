//! Test builds only: dies, hangs or breaks a guarantee where the environment says so.
//!
//! `FLEETLOG_TEST_FAIL_POINT=<point>:<n>[:abort|:sleep<ms>]` dies (as by `kill -9`) or sleeps when the point is passed
//! for the n-th time; several are separated by commas. `FLEETLOG_TEST_MUTANT=<name>` breaks a guarantee
//! ([`Mutant`]). `list` prints the names. `FLEETLOG_TEST_REJECTS=all`, or `unit-status,event-history:DoorChanged:509`, has
//! projections reject what they should take ([`Wrongly`]).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use fleetlog_projection::mutant::{self, Mutant, Wrongly};

/// Every point, in the order in which a step passes them; then those of commands.
const POINTS: [&str; 22] = [
    "lane.start.read",
    "lane.start.sought",
    "step.admitted",
    "step.states-read",
    "step.projected",
    "dead-letters.before",
    "dead-letters.after",
    "commit.before",
    "commit.between",
    "redis.call",
    "sql.begun",
    "sql.progress",
    "sql.rows",
    "sql.committed",
    "commit.after",
    "step.committed",
    "handler.called",
    "handler.sent",
    "handler.committed",
    "commands.begun",
    "commands.published",
    "commands.committed",
];

/// Arms what the environment names. True: it asked for the names, which were printed; nothing else is to be done.
///
/// # Errors
/// When it names what there is not.
pub(crate) fn arm() -> anyhow::Result<bool> {
    let (points, mutant) = (variable("FLEETLOG_TEST_FAIL_POINT"), variable("FLEETLOG_TEST_MUTANT"));
    if points.as_deref() == Some("list") {
        POINTS.iter().for_each(|point| println!("{point}"));
        return Ok(true);
    }
    if mutant.as_deref() == Some("list") {
        Mutant::ALL.iter().for_each(|mutant| println!("{}", mutant.name()));
        return Ok(true);
    }
    if let Some(name) = mutant {
        let found = Mutant::ALL.into_iter().find(|mutant| mutant.name() == name);
        mutant::activate(Some(
            found.with_context(|| format!("FLEETLOG_TEST_MUTANT: there is no mutant `{name}`"))?,
        ));
    }
    if let Some(rejects) = variable("FLEETLOG_TEST_REJECTS") {
        mutant::reject_wrongly(Wrongly::parse(&rejects));
    }
    for point in points.iter().flat_map(|points| points.split(',')) {
        arm_point(point).with_context(|| format!("FLEETLOG_TEST_FAIL_POINT: `{point}`"))?;
    }
    Ok(false)
}

#[expect(clippy::disallowed_methods, reason = "no setting of the product, and not there in its builds")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn arm_point(text: &str) -> anyhow::Result<()> {
    let mut parts = text.split(':');
    let (name, at, action) =
        (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or("abort"));
    if !POINTS.contains(&name) {
        bail!("there is no such point");
    }
    let at: u64 = at.context("expected `point:n`")?.parse().context("n is no number")?;
    let pause_ms: Option<u64> = match action.strip_prefix("sleep") {
        Some(length_ms) => Some(length_ms.parse().context("expected `sleep<ms>`")?),
        None if action == "abort" => None,
        None => bail!("expected `abort` or `sleep<ms>`"),
    };
    let passed = AtomicU64::new(0);
    let strike = move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == at {
            match pause_ms {
                Some(length_ms) => std::thread::sleep(Duration::from_millis(length_ms)),
                None => std::process::abort(),
            }
        }
    };
    fail::cfg_callback(name, strike).map_err(anyhow::Error::msg)
}
