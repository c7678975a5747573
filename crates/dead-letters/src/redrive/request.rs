//! What is asked of a redrive.

use std::time::Duration;

use crate::Selector;

/// Longest text of a reason or operator, in bytes: what an identifying text of an event may have.
const TEXT_BYTES_MAX: usize = 512;

/// Which letters are to go back, how, and on whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedriveRequest {
    /// The job's id: new for each command.
    pub action_id: String,
    /// Which letters; of those that can go back no more than `max`, the oldest.
    pub selector: Selector,
    /// Those that are parked, instead of those that are open.
    pub parked: bool,
    /// So many of each group first; the others only if 95 % of them were taken.
    pub canary: Option<usize>,
    /// No more than so many a second.
    pub rate_per_s: Option<u32>,
    /// After how many rejections a letter is parked.
    pub replays_max: u32,
    /// No more than so many without an answer.
    pub batch: usize,
    /// How many a dry run tries against today's projector.
    pub sample: usize,
    /// How long to wait without any progress.
    pub patience: Duration,
    /// Who, as `user@host`; 1 to 512 bytes.
    pub operator: String,
    /// Why, in words; 1 to 512 bytes.
    pub why: String,
    /// Which tool, with its version.
    pub source: String,
    /// It is meant that no open letter stays.
    pub all_is_meant: bool,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A number that has to be above 0.
    #[error("{what} 0 would send nothing back: at least 1")]
    Zero {
        /// Of what.
        what: &'static str,
    },
    /// A text that no event can carry.
    #[error("{what} has {bytes} bytes, expected 1 to {TEXT_BYTES_MAX}")]
    Text {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl RedriveRequest {
    /// Looks for what cannot be meant.
    ///
    /// # Errors
    /// The first thing.
    pub fn check(&self) -> Result<(), RequestError> {
        for (what, is_zero) in [
            ("a canary of", self.canary == Some(0)),
            ("a rate of", self.rate_per_s == Some(0)),
            ("a batch of", self.batch == 0),
            ("a replay maximum of", self.replays_max == 0),
        ] {
            if is_zero {
                return Err(RequestError::Zero { what });
            }
        }
        for (what, text) in [("the reason", &self.why), ("the operator's name", &self.operator)] {
            if !(1..=TEXT_BYTES_MAX).contains(&text.len()) {
                return Err(RequestError::Text { what, bytes: text.len() });
            }
        }
        Ok(())
    }

    /// How many go at once: never more than a second's worth, so that a rate is no burst.
    /// `canary` is how many of it are left.
    pub(crate) fn batch_now(&self, canary: Option<usize>) -> usize {
        let by_rate = self.rate_per_s.map_or(usize::MAX, |rate| usize::try_from(rate).unwrap_or(usize::MAX));
        self.batch.min(by_rate).min(canary.unwrap_or(usize::MAX)).max(1)
    }
}
