//! What the worker says to people, each thing once.

use fleetlog_presence::{Quiet, Round, Trust};

use super::LaneNow;

/// Units, lanes or sites that a line of the log names.
const NAMED_MAX: usize = 3;
/// With which look in a row that is behind it is said: the first ones of a worker always are, since what is covered
/// becomes known only by comparing with an earlier one.
const BEHIND_LOOKS: u32 = 3;

/// What was said to people last, so that nothing is said twice.
#[derive(Default)]
pub(super) struct Told {
    pub(super) trouble: Option<String>,
    pub(super) stands_by: bool,
    /// Looks in a row that were behind, and the lanes that were, as last said.
    behind_looks: u32,
    behind: Option<String>,
    has_waiting: bool,
}

impl Told {
    /// The lanes that hot state was behind on for several looks, until one is not.
    pub(super) fn behind(&self) -> Option<&str> {
        self.behind.as_deref()
    }

    pub(super) fn look(&mut self, trust: Trust, lanes: &[LaneNow], next: &[Option<i64>]) {
        self.behind_looks = if trust == Trust::Behind { self.behind_looks.saturating_add(1) } else { 0 };
        if trust != Trust::Behind {
            self.behind = None;
        }
        match trust {
            Trust::Behind if self.behind_looks == BEHIND_LOOKS => {
                let lagging: Vec<String> = lanes
                    .iter()
                    .zip(next)
                    .filter(|(lane, next)| next.is_none_or(|next| next < lane.end))
                    .map(|(lane, _)| lane.id.to_string())
                    .collect();
                let lagging: Vec<&str> = lagging.iter().map(String::as_str).collect();
                let lagging = named(&lagging);
                tracing::warn!(
                    "hot state is behind the log ({lagging}): nobody is judged until it has caught up \
                     (fleetlog status)"
                );
                self.behind = Some(lagging);
            }
            Trust::Anew => tracing::info!("looking anew: every unit has a full timeout from now"),
            Trust::Behind | Trust::Current => {}
        }
    }

    pub(super) fn quiet(&self, round: &Round, hold_ms: u64) {
        let named = |quiets: &[Quiet]| {
            let sites: Vec<&str> =
                quiets.iter().map(|quiet| quiet.site_uid.as_deref().unwrap_or("the whole fleet")).collect();
            named(&sites)
        };
        if !round.fell_quiet.is_empty() {
            let until = match hold_ms {
                0 => "until somebody is".to_owned(),
                hold_ms => format!("for {} s", hold_ms / 1000),
            };
            tracing::warn!(
                "{}: no unit is heard; is the bridge up? Nobody there is called silent {until}",
                named(&round.fell_quiet)
            );
        }
        if !round.heard_again.is_empty() {
            tracing::info!("{}: heard again; its units have a full timeout", named(&round.heard_again));
        }
    }

    pub(super) fn waiting(&mut self, waiting: usize, events_per_s_max: u32) {
        let had_waiting = std::mem::replace(&mut self.has_waiting, waiting > 0);
        if waiting > 0 && !had_waiting {
            tracing::warn!(
                waiting,
                "more units are due than may be said at once: {events_per_s_max} a second \
                 (presence.events_per_s_max), the others follow"
            );
        } else if had_waiting && waiting == 0 {
            tracing::info!("all units that were due are said");
        }
    }
}

/// The first few of them, for the log.
pub(super) fn named(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
