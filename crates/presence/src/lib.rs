//! Who fell silent, and who is back: decisions from looks at hot state. No I/O, no clock.
//!
//! A worker looks at `seen:{site}` (when each unit was last heard) and `online:{site}` (who counts as connected) again
//! and again. [`Watch`] remembers what it saw and says who is due: [`Kind::Silent`] becomes `Disconnected(timeout)`,
//! [`Kind::Back`] becomes `Connected` ([`decide`]).
//!
//! What it guarantees:
//! - **Silence is time that was watched.** A unit is silent when its place in `seen` did not change for the whole timeout
//!   while the worker looked on; places are compared for being equal, never with a clock. So no clock that jumps, anywhere,
//!   and no restart makes anybody silent.
//! - **A look counts as far as it covers the log** ([`Coverage`]): up to the last moment of which everything that lay on
//!   the log is known to be folded. Where that stands still for longer than [`Rules::doubt_ms`] (a projection lags, a
//!   server is down, the worker was frozen), everybody gets a full timeout anew.
//! - **Nobody is heard, so nobody is blamed**: where a whole site, or the whole fleet, is quiet, its units are held back
//!   for [`Rules::quiet_hold_ms`], and get a full timeout anew when somebody is heard again.
//!
//! What it does not: tell a vehicle that is switched off from one without a network; or see that one of two bridges of a
//! site is down.

mod coverage;
mod decision;
pub mod metrics;
mod pace;
mod watch;

pub use coverage::{Coverage, Covered};
pub use decision::{Candidate, Kind, Shown, Status, decide};
pub use pace::Pace;
pub use watch::{Quiet, Round, Rules, Trust, Watch};
