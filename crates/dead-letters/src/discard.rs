//! Discarding: which events say that letters are given up.

use std::collections::BTreeMap;

use fleetlog_event::{
    EventId, EventMeta, TimestampMs,
    ops::{DeadLetterRef, DeadLettersDiscarded},
};

use crate::{Letter, Origin, Selector, UNKNOWN};

/// Most bytes of letters that one event names: half of what topic `ops` takes in a record.
pub(crate) const LETTERS_BYTES_MAX: usize = 500_000;

/// Longest text of a selection, in characters.
const SELECTION_CHARS_MAX: usize = 2_000;

/// Bytes of a reference beside its texts: lengths, time, union tags.
pub(crate) const REF_BYTES: usize = 32;

/// Who discards what, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscardRequest {
    /// Which letters; open ones only, or parked ones only.
    pub selector: Selector,
    /// Those that are parked, instead of those that are open.
    pub parked: bool,
    /// Why, in words; 1 to 512 bytes.
    pub why: String,
    /// Who, as `user@host`; 1 to 512 bytes.
    pub operator: String,
    /// It is meant that no open letter stays.
    pub all_is_meant: bool,
}

/// The identity of an action, and the head of its events. Given by the caller: nothing here reads a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionHead {
    /// The action's id: new for each command, fixed before the first send.
    pub action_id: String,
    /// When.
    pub now: TimestampMs,
    /// Which tool, with its version: `fleetlog-dlq/0.1.0`.
    pub source: String,
}

/// The events of an action: for each group as many as its letters need.
#[must_use]
pub fn discarded(
    request: &DiscardRequest,
    letters: &[Letter],
    head: &ActionHead,
) -> Vec<DeadLettersDiscarded> {
    let mut groups: BTreeMap<&str, Chunks> = BTreeMap::new();
    for letter in letters {
        groups.entry(&letter.group).or_default().push(reference(letter));
    }
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let parts = number(groups.values().map(|chunks| chunks.full.len()).sum());
    let of_group = |(group, chunks): (&str, Chunks)| {
        let group = group.to_owned();
        chunks.full.into_iter().map(move |letters| (group.clone(), letters))
    };
    let event = |(n, (group, letters)): (usize, (String, Vec<DeadLetterRef>))| DeadLettersDiscarded {
        meta: meta(head, n),
        action_id: head.action_id.clone(),
        group,
        operator: request.operator.clone(),
        why: request.why.clone(),
        selection: selection(&request.selector),
        part: number(n + 1),
        parts,
        letters,
    };
    groups.into_iter().flat_map(of_group).enumerate().map(event).collect()
}

/// References cut into pieces, each small enough for one event.
#[derive(Default)]
struct Chunks {
    full: Vec<Vec<DeadLetterRef>>,
    last_bytes: usize,
}

impl Chunks {
    fn push(&mut self, letter: DeadLetterRef) {
        let bytes = size_bytes(&letter);
        match self.full.last_mut().filter(|_| self.last_bytes + bytes <= LETTERS_BYTES_MAX) {
            Some(chunk) => {
                self.last_bytes += bytes;
                chunk.push(letter);
            }
            None => {
                self.last_bytes = bytes;
                self.full.push(vec![letter]);
            }
        }
    }
}

fn size_bytes(letter: &DeadLetterRef) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    REF_BYTES + letter.origin.len() + letter.place.len() + optional(&letter.log) + optional(&letter.reason)
}

fn reference(letter: &Letter) -> DeadLetterRef {
    let log = match &letter.origin {
        Origin::Log { log, .. } => log.clone(),
        _ => None,
    };
    DeadLetterRef {
        origin: letter.origin.to_string(),
        log,
        place: letter.place.to_string(),
        set_aside_at: letter.set_aside_at,
        reason: (letter.reason != UNKNOWN).then(|| letter.reason.clone()),
    }
}

/// Ids are derived from the action's, so that sending its events again makes duplicates and no second action.
fn meta(head: &ActionHead, n: usize) -> EventMeta {
    let event_id = EventId::derived(&head.action_id, u32::try_from(n).unwrap_or(u32::MAX));
    EventMeta::of_ops(event_id, &head.source, head.now)
}

/// The selectors as text, shortened: a thousand places need not stand here, since each letter is named.
pub(crate) fn selection(selector: &Selector) -> String {
    let text = selector.to_string();
    match text.char_indices().nth(SELECTION_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
