//! What the worker says to people, each thing once.

use fleetlog_presence::{Quiet, Round, Trust};

use super::LaneNow;

/// Units, lanes or sites that a line of the log names.
const NAMED_MAX: usize = 3;

/// What was said to people last, so that nothing is said twice.
#[derive(Default)]
pub(super) struct Told {
    pub(super) trouble: Option<String>,
    pub(super) stands_by: bool,
    is_behind: bool,
    has_waiting: bool,
}

impl Told {
    pub(super) fn look(&mut self, trust: Trust, lanes: &[LaneNow], next: &[Option<i64>]) {
        let was_behind = std::mem::replace(&mut self.is_behind, trust == Trust::Behind);
        match trust {
            Trust::Behind if !was_behind => {
                let lagging: Vec<String> = lanes
                    .iter()
                    .zip(next)
                    .filter(|(lane, next)| next.is_none_or(|next| next < lane.end))
                    .map(|(lane, _)| lane.id.to_string())
                    .collect();
                let lagging: Vec<&str> = lagging.iter().map(String::as_str).collect();
                tracing::warn!(
                    "hot state is behind the log ({}): nobody is judged until it has caught up \
                     (fleetlog status)",
                    named(&lagging)
                );
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
