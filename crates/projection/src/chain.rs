//! The chain of links: what makes each write of a lane count once, whoever sends it and however often.
//!
//! Every write names the link it follows and leaves its own. A store takes it only if the link it holds is the one
//! the write follows, and replaces it in the same atomic step ([`judge`]). A link is a value never used before, so
//! equality is the only comparison that is ever made: there is no "at or past".

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, on};

/// A value never used before: the owner's nonce, a counter, and the part of a write that is carried out in several
/// atomic steps (Redis: script calls).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Link {
    nonce: u64,
    counter: u64,
    part: u32,
}

impl Link {
    /// The owner that left it.
    #[must_use]
    pub fn nonce(self) -> u64 {
        self.nonce
    }

    /// The link left by part `part` of a write of several atomic steps that leaves `self` at its end.
    ///
    /// Parts count from 1; the last part leaves `self` itself and needs no call to this.
    #[must_use]
    pub fn part(self, part: u32) -> Self {
        Self { part, ..self }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.{}", self.nonce, self.counter, self.part)
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.to_string()
    }
}

/// A stored text is no link.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no link: expected `nonce.counter.part`")]
pub struct NotALink(String);

impl FromStr for Link {
    type Err = NotALink;

    fn from_str(text: &str) -> Result<Self, NotALink> {
        let parse = || -> Option<Result<Link, ParseIntError>> {
            let (nonce, rest) = text.split_once('.')?;
            let (counter, part) = rest.split_once('.')?;
            Some(
                u64::from_str_radix(nonce, 16)
                    .and_then(|nonce| Ok(Link { nonce, counter: counter.parse()?, part: part.parse()? })),
            )
        };
        match parse() {
            Some(Ok(link)) => Ok(link),
            _ => Err(NotALink(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Link {
    type Error = NotALink;

    fn try_from(text: String) -> Result<Self, NotALink> {
        text.parse()
    }
}

/// What a store does with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stored link is the one the write follows: take it.
    Apply,
    /// The stored link is exactly the one this write would leave: it was taken before, its reply was lost.
    AlreadyApplied,
    /// Anything else: somebody else wrote, or the store lost its tail.
    Fenced,
}

/// The one rule of the chain. `stored` is none before the first write of a lane.
#[must_use]
pub fn judge(stored: Option<Link>, follows: Option<Link>, leaves: Link) -> Verdict {
    let at_or_past = on(Mutant::AtOrPast) && stored.is_some_and(|stored| stored.counter >= leaves.counter);
    if stored == Some(leaves) || at_or_past {
        Verdict::AlreadyApplied
    } else if stored == follows || on(Mutant::LinkCheckOff) {
        Verdict::Apply
    } else {
        Verdict::Fenced
    }
}

/// The owner's end of the chain: the link it last saw, and the next one it will leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    nonce: u64,
    counter: u64,
    seen: Option<Link>,
}

impl Chain {
    /// Takes up the chain where the store stands. `nonce` must be new: random, never one used before, also not by
    /// this owner (a new one after every *Fenced*).
    #[must_use]
    pub fn resume(nonce: u64, stored: Option<Link>) -> Self {
        Self { nonce, counter: 0, seen: stored }
    }

    /// The link that the store should hold now.
    #[must_use]
    pub fn seen(&self) -> Option<Link> {
        self.seen
    }

    /// The links of the next write: which one it follows and which one it leaves. A link is handed out once, also if
    /// the write never takes place.
    #[expect(clippy::should_implement_trait, reason = "a chain is no sequence to iterate over")]
    pub fn next(&mut self) -> (Option<Link>, Link) {
        self.counter += 1;
        (self.seen, Link { nonce: self.nonce, counter: self.counter, part: 0 })
    }

    /// The write that leaves `link` was taken.
    pub fn written(&mut self, link: Link) {
        debug_assert_eq!(
            (link.nonce, link.counter),
            (self.nonce, self.counter),
            "links are written in order"
        );
        self.seen = Some(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_can_be_written_and_read() {
        let mut chain = Chain::resume(0xfeed, None);
        let (_, link) = chain.next();
        assert_eq!(link.part(3).to_string(), "000000000000feed.1.3");
        assert_eq!("000000000000feed.1.3".parse::<Link>().ok(), Some(link.part(3)));
        for text in ["", "1.2", "x.1.2", "1.2.3.4", "1.-1.0"] {
            assert!(text.parse::<Link>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_write_is_taken_once_and_only_in_its_place() {
        let mut owner = Chain::resume(1, None);
        let (follows, leaves) = owner.next();
        assert_eq!(judge(None, follows, leaves), Verdict::Apply);
        assert_eq!(judge(Some(leaves), follows, leaves), Verdict::AlreadyApplied);
        owner.written(leaves);

        let mut other = Chain::resume(2, Some(leaves));
        let (other_follows, other_leaves) = other.next();
        let (follows, leaves) = owner.next();
        assert_eq!(judge(Some(other_leaves), follows, leaves), Verdict::Fenced, "another owner wrote");
        assert_eq!(judge(None, follows, leaves), Verdict::Fenced, "the store lost everything");
        assert_eq!(judge(Some(other_leaves), other_follows, other_leaves), Verdict::AlreadyApplied);
    }
}
