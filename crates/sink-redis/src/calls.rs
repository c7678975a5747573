//! How a unit of work is cut into script calls, and how a call is written down.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use fleetlog_projection::{
    Base, EntityChange, Fault, HotWrite, LedgerEntry, Progress, SetAside, SinkError, UnitOfWork, Version,
    parts::{Item, Parts},
};
use redis::Cmd;

use crate::{ledger::entry_json, sink::RedisSinkSettings};

/// A unit of work, cut into calls: each carries one of its [`Parts`].
pub(crate) struct Plan<'a> {
    unit: &'a UnitOfWork<HotWrite>,
    settings: &'a RedisSinkSettings,
    script_hash: &'a str,
    lane_key: String,
    ledger_key: String,
    parts: Parts,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        unit: &'a UnitOfWork<HotWrite>,
        settings: &'a RedisSinkSettings,
        script_hash: &'a str,
    ) -> Result<Self, SinkError> {
        check_unit(unit)?;
        let lane_key = crate::lane_key(&settings.key_prefix, &settings.lane_prefix, &unit.lane);
        let ledger_key = crate::ledger_key(&lane_key);
        let parts = Parts::cut(unit, settings.call_items_max, settings.call_bytes_max, size_bytes);
        Ok(Self { unit, settings, script_hash, lane_key, ledger_key, parts })
    }

    /// Its parts: one for each call.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The calls from `first` on that are sent in one piece: at least one, then as many as the window allows.
    pub(crate) fn window(&self, first: usize) -> Range<usize> {
        let mut size_bytes = 0;
        let mut end = first;
        while end < self.parts.len()
            && (end == first
                || size_bytes + self.parts.part(end).size_bytes <= self.settings.window_bytes_max)
        {
            size_bytes += self.parts.part(end).size_bytes;
            end += 1;
        }
        first..end
    }

    /// Writes down call number `index`, as `commit.lua` reads it.
    pub(crate) fn command(&self, index: usize, extent: Extent) -> Cmd {
        let part = self.parts.part(index);
        let (follows, leaves) = self.parts.links(index);
        let entities = &self.unit.entities[part.entities.clone()];
        let lists = Lists::of(entities, extent);
        let mut cmd = Cmd::with_capacity(16 + entities.len() * 32, part.size_bytes + 512);
        cmd.arg("EVALSHA").arg(self.script_hash).arg(2 + entities.len() + lists.lists.len());
        cmd.arg(&self.lane_key).arg(&self.ledger_key);
        let mut name = String::new();
        for key in
            entities.iter().map(|entity| entity.home.as_str()).chain(lists.lists.iter().map(|list| list.key))
        {
            name.clear();
            self.settings.write_key(key, &mut name);
            cmd.arg(&name);
        }
        cmd.arg(follows.map_or_else(String::new, |link| link.to_string()));
        cmd.arg(leaves.to_string());
        cmd.arg(entities.len());
        let expected = |entity: &EntityChange<HotWrite>| match (&entity.base, extent) {
            (Base::Unknown, _) | (_, Extent::Whole) => b'?',
            (Base::Written(_), Extent::Needed) => b'+',
            (Base::Nothing, Extent::Needed) => b'-',
        };
        cmd.arg(entities.iter().map(expected).collect::<Vec<u8>>());
        if self.parts.is_last(index) {
            progress_args(&mut cmd, &self.unit.progress);
        } else {
            cmd.arg(0);
        }
        let set_asides = &self.unit.set_aside[part.set_asides.clone()];
        cmd.arg(set_asides.len());
        for set_aside in set_asides {
            let entry = LedgerEntry::new(set_aside, self.unit.made_at);
            cmd.arg(set_aside.record.offset).arg(entry_json(&entry));
        }
        // Together with what they are about: such a unit is one part.
        let entries = &self.unit.entries;
        cmd.arg(2 * entries.len());
        for change in entries {
            cmd.arg(change.offset).arg(entry_json(&change.entry));
        }
        for entity in entities {
            entity_args(&mut cmd, entity, extent, self.unit.made_at.0);
        }
        lists.args(&mut cmd);
        cmd
    }
}

/// How much of the entities a call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What the store lacks, as far as the lane knows: refused as a whole if an entity that was written before is gone, or
    /// one that was not there is.
    Needed,
    /// All of it.
    Whole,
}

/// Whether the write at that place of the entity's is to be said.
fn is_said(entity: &EntityChange<HotWrite>, at: usize, extent: Extent) -> bool {
    match (&entity.base, extent) {
        (_, Extent::Whole) | (Base::Unknown, _) => true,
        // Places in lists are elsewhere, and may have outlived a hash that somebody deleted.
        (Base::Nothing, Extent::Needed) => {
            !matches!(entity.writes[at], HotWrite::Field { value: None, .. } | HotWrite::ExpireAt(None))
        }
        // A term is counted from the write on, so it is said each time.
        (Base::Written(unchanged), Extent::Needed) => {
            !unchanged.get(at).copied().unwrap_or_default()
                || matches!(entity.writes[at], HotWrite::ExpireAt(Some(_)))
        }
    }
}

/// The writes that are to be said.
fn said(entity: &EntityChange<HotWrite>, extent: Extent) -> impl Iterator<Item = &HotWrite> {
    let places = entity.writes.iter().enumerate();
    places.filter(move |(at, _)| is_said(entity, *at, extent)).map(|(_, write)| write)
}

/// What a projector must not write, because Redis would refuse it in mid-script or it would hide the sink's fields.
fn check_unit(unit: &UnitOfWork<HotWrite>) -> Result<(), SinkError> {
    let bug = |home: &str, what: String| {
        Err(SinkError::new(
            Fault::Permanent,
            format!("projection `{}` wrote {what} at `{home}`: a bug of its projector", unit.lane.projection),
        ))
    };
    for entity in &unit.entities {
        debug_assert!(names_each_place_once(&entity.writes), "{}: a place is named twice", entity.home);
        for write in &entity.writes {
            match write {
                HotWrite::Field { name, .. } if name.starts_with('_') => {
                    return bug(&entity.home, format!("the reserved field `{name}`"));
                }
                HotWrite::Ranked { list, score: Some(score), .. } if score.is_nan() => {
                    return bug(&entity.home, format!("a rank in `{list}` that is no number"));
                }
                _ => {}
            }
        }
    }
    if let Some(row) = unit.rows.first() {
        let what = format!("a row for offset {} to redis, which takes entities only", row.offset);
        return bug("-", what);
    }
    Ok(())
}

fn names_each_place_once(writes: &[HotWrite]) -> bool {
    let is_same = |one: &HotWrite, other: &HotWrite| match (one, other) {
        (HotWrite::Field { name, .. }, HotWrite::Field { name: other, .. }) => name == other,
        (HotWrite::Ranked { list, member, .. }, HotWrite::Ranked { list: l, member: m, .. }) => {
            (list, member) == (l, m)
        }
        (HotWrite::ExpireAt(_), HotWrite::ExpireAt(_)) => true,
        _ => false,
    };
    writes.iter().enumerate().all(|(at, write)| !writes[..at].iter().any(|before| is_same(before, write)))
}

/// Bytes of one argument beside its text: `$`, length, line ends.
const ARGUMENT_BYTES: usize = 10;

fn size_bytes(item: &Item<'_, HotWrite>) -> usize {
    match item {
        Item::SetAside(set_aside) => set_aside_bytes(set_aside),
        Item::Entity(entity) => entity_bytes(entity),
    }
}

fn entity_bytes(entity: &EntityChange<HotWrite>) -> usize {
    let writes: usize = said(entity, Extent::Needed)
        .map(|write| match write {
            HotWrite::Field { name, value } => {
                name.len() + value.as_ref().map_or(0, String::len) + 2 * ARGUMENT_BYTES
            }
            HotWrite::Ranked { list: _, member, score: _ } => member.len() + 20 + 2 * ARGUMENT_BYTES,
            HotWrite::ExpireAt(_) => 0,
        })
        .sum();
    entity.home.len() + entity.state.len() + writes + 80 + 8 * ARGUMENT_BYTES
}

fn set_aside_bytes(set_aside: &SetAside) -> usize {
    set_aside.reject.detail.len() + set_aside.record.key.as_ref().map_or(0, bytes::Bytes::len) + 160
}

fn progress_args(cmd: &mut Cmd, progress: &Progress) {
    let last_offset = progress.last.map_or_else(String::new, |last| last.offset.to_string());
    let last_hash = progress.last.map_or_else(String::new, |last| format!("{:016x}", last.hash));
    cmd.arg(10).arg("log").arg(progress.log.to_string());
    cmd.arg("main").arg(progress.main).arg("inbox").arg(progress.inbox);
    cmd.arg("last_offset").arg(last_offset).arg("last_hash").arg(last_hash);
}

/// `_version` of an entity.
pub(crate) fn version_text(version: &Version) -> String {
    format!("{}:{}:{}:{}", version.log, version.partition, version.next, version.revision)
}

/// How long an entity stays at least after it was written, in ms. Whether it is known is a rule of the fold, by
/// record time; a lane that catches up with old records must find again what it wrote, however long ago by record
/// time the entity ended.
const EXPIRE_AFTER_WRITE_MS_MIN: i64 = 7 * 24 * 60 * 60 * 1000;

fn entity_args(cmd: &mut Cmd, entity: &EntityChange<HotWrite>, extent: Extent, made_at_ms: i64) {
    let (mut set, mut removed, mut expire) = (2, 0, Cow::Borrowed(""));
    for write in said(entity, extent) {
        match write {
            HotWrite::Field { value: Some(_), .. } => set += 1,
            HotWrite::Field { value: None, .. } => removed += 1,
            HotWrite::ExpireAt(None) => expire = Cow::Borrowed("-"),
            HotWrite::ExpireAt(Some(at)) => {
                let earliest = made_at_ms.saturating_add(EXPIRE_AFTER_WRITE_MS_MIN);
                // Redis refuses times that do not fit a signed 64-bit number once its own clock is added.
                expire = Cow::Owned(at.0.max(earliest).clamp(1, i64::MAX / 4).to_string());
            }
            HotWrite::Ranked { .. } => {}
        }
    }
    cmd.arg(2 * set).arg(removed).arg(expire.as_ref());
    cmd.arg("_state").arg(entity.state.as_slice()).arg("_version").arg(version_text(&entity.version));
    for write in said(entity, extent) {
        if let HotWrite::Field { name, value: Some(value) } = write {
            cmd.arg(name.as_ref()).arg(value);
        }
    }
    for write in said(entity, extent) {
        if let HotWrite::Field { name, value: None } = write {
            cmd.arg(name.as_ref());
        }
    }
}

/// The places in sorted sets of a call's entities, gathered by set so that each set is changed in one go.
struct Lists<'a> {
    lists: Vec<List<'a>>,
}

struct List<'a> {
    key: &'a str,
    added: Vec<(&'a str, f64)>,
    removed: Vec<&'a str>,
}

impl<'a> Lists<'a> {
    fn of(entities: &'a [EntityChange<HotWrite>], extent: Extent) -> Self {
        let mut lists: Vec<List<'a>> = Vec::new();
        let mut by_key: HashMap<&str, usize> = HashMap::new();
        for entity in entities {
            for write in said(entity, extent) {
                let HotWrite::Ranked { list, member, score } = write else { continue };
                let slot = *by_key.entry(list).or_insert_with(|| {
                    lists.push(List { key: list, added: Vec::new(), removed: Vec::new() });
                    lists.len() - 1
                });
                match score {
                    Some(score) => lists[slot].added.push((member, *score)),
                    None => lists[slot].removed.push(member),
                }
            }
        }
        Self { lists }
    }

    fn args(&self, cmd: &mut Cmd) {
        for list in &self.lists {
            cmd.arg(2 * list.added.len()).arg(list.removed.len());
            for (member, score) in &list.added {
                cmd.arg(*score).arg(*member);
            }
            for member in &list.removed {
                cmd.arg(*member);
            }
        }
    }
}
