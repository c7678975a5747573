//! What a worker remembers of the units that it watches, and who is due.

use std::collections::HashMap;

use fleetlog_event::{TimestampMs, UnitKey};

use crate::{Candidate, Covered, Kind};

/// When a unit is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a unit may not be heard, in ms.
    pub timeout_ms: u64,
    /// How long the units of a site (or fleet) of which nobody is heard are held back, in ms; none: until somebody is.
    pub quiet_hold_ms: Option<u64>,
}

impl Rules {
    /// How long what a look covers may stand still, in ms, before everybody gets a full timeout anew.
    #[must_use]
    pub fn doubt_ms(&self) -> u64 {
        self.timeout_ms / 3
    }

    /// After how long without a word from anybody a site is quiet, in ms: before its first unit is due.
    fn quiet_after_ms(&self) -> u64 {
        self.timeout_ms / 2
    }
}

/// Fewer connected units than this are no crowd: that they all fall silent says nothing about what lies between.
const QUIET_UNITS_MIN: usize = 3;
/// In how many looks a unit has to be heard to be back, on a part of the log that is younger than its break. One could be a
/// message that was on its way when its connection broke.
const SIGNS_OF_LIFE: u8 = 2;

/// How far a look can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It goes on from the look before.
    Current,
    /// It begins anew: the first one, or the first after a doubt.
    Anew,
    /// What was read is behind the log: nobody is judged by it.
    Behind,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// How far it can be trusted.
    pub trust: Trust,
    /// Who is due, at most as many as were asked for: first who is back, then who is silent longest.
    pub candidates: Vec<Candidate>,
    /// How many more are due.
    pub waiting: usize,
    /// Units that are watched.
    pub units: usize,
    /// Sites that are quiet now.
    pub quiet: usize,
    /// What fell quiet with this look.
    pub fell_quiet: Vec<Quiet>,
    /// What is heard again.
    pub heard_again: Vec<Quiet>,
}

/// A site, or the whole fleet, of which nobody is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The site; none: the whole fleet.
    pub site_uid: Option<String>,
    /// Its units that count as connected.
    pub units: usize,
}

/// What a worker remembers. Times are milliseconds of one monotonic clock.
#[derive(Debug)]
pub struct Watch {
    rules: Rules,
    fleet: Crowd,
    sites: HashMap<String, Site>,
    /// Up to where the last look that counted covered the log.
    covered_ms: Option<u64>,
    /// What the last look showed was the log's present, so that what differs from it was said since.
    is_baseline: bool,
    look: Look,
}

/// The look under way.
#[derive(Debug)]
struct Look {
    number: u64,
    now_ms: u64,
    covered_ms: u64,
    trust: Trust,
    is_baseline: bool,
    /// Whether a unit whose place changed said something since the last look.
    is_evidence: bool,
    /// Up to where the look before covered the log: what changed since lay on it later.
    before_ms: u64,
}

#[derive(Debug, Default)]
struct Site {
    crowd: Crowd,
    units: HashMap<Box<str>, Unit>,
    /// The look in which it was found.
    found: u64,
}

/// Units that are heard by the same way.
#[derive(Debug, Default)]
struct Crowd {
    /// When anybody was last heard.
    heard_ms: u64,
    /// From when on everybody has a full timeout.
    anew_ms: u64,
    /// Since when nobody is heard, while it is quiet.
    quiet_since_ms: Option<u64>,
}

#[derive(Debug)]
struct Unit {
    /// Its place in `seen`: compared for being equal, nothing else.
    seen_ms: i64,
    /// When it was last heard, or seen to have connected.
    alive_ms: u64,
    /// Its place in `online`.
    online_since_ms: Option<i64>,
    /// By when that place had been shown; none: this look shows it for the first time.
    connection_shown_ms: Option<u64>,
    /// In how many looks it was heard while it did not count as connected.
    signs: u8,
    /// Its place in `seen` at the first of them.
    first_sign_seen_ms: i64,
    last_sign_ms: u64,
    /// It was answered: not to be judged before.
    rest_until_ms: u64,
    /// The look that last showed it.
    look: u64,
}

impl Watch {
    /// A worker that has seen nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let look = Look {
            number: 0,
            now_ms: 0,
            covered_ms: 0,
            trust: Trust::Behind,
            is_baseline: false,
            is_evidence: false,
            before_ms: 0,
        };
        let (fleet, sites) = (Crowd::default(), HashMap::new());
        Self { rules, fleet, sites, covered_ms: None, is_baseline: false, look }
    }

    /// When its units are due.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// A look begins at `now_ms`, and covers the log as far as `covered` says.
    pub fn begin(&mut self, now_ms: u64, covered: Covered) -> Trust {
        let doubt_ms = self.rules.doubt_ms();
        let until_ms = covered.until_ms.filter(|until| now_ms.saturating_sub(*until) <= doubt_ms);
        let trust = match (until_ms, self.covered_ms) {
            (None, _) => Trust::Behind,
            (Some(until), Some(before)) if until.saturating_sub(before) <= doubt_ms => Trust::Current,
            (Some(_), _) => Trust::Anew,
        };
        if trust == Trust::Anew {
            self.fleet.begin_anew(now_ms);
            self.sites.values_mut().for_each(|site| site.crowd.begin_anew(now_ms));
        }
        let is_baseline = trust != Trust::Behind && !covered.went_back;
        self.look = Look {
            number: self.look.number + 1,
            now_ms,
            covered_ms: until_ms.unwrap_or_default(),
            trust,
            is_baseline,
            is_evidence: trust == Trust::Current && is_baseline && self.is_baseline,
            before_ms: self.covered_ms.unwrap_or_default(),
        };
        // Until this look has ended, for it may break off.
        self.is_baseline = false;
        trust
    }

    /// The look shows a unit: its place in `seen:{site_uid}`, and in `online:{site_uid}` if it has one. `online` has to be
    /// read before `seen`. What is no unit of that site is not taken.
    pub fn unit(&mut self, site_uid: &str, unit: &str, seen_ms: i64, online_since_ms: Option<i64>) {
        let look = &self.look;
        if !self.sites.contains_key(site_uid) {
            self.sites.insert(site_uid.to_owned(), Site::found(look));
        }
        let Some(site) = self.sites.get_mut(site_uid) else { return };
        let is_heard = match site.units.get_mut(unit) {
            Some(known) => known.shown(seen_ms, online_since_ms, look, self.rules.timeout_ms),
            None if UnitKey::parse(unit).is_ok_and(|key| key.site_uid == site_uid) => {
                site.units.insert(unit.into(), Unit::new(seen_ms, online_since_ms, look));
                site.found < look.number && look.is_evidence
            }
            None => false,
        };
        if is_heard {
            site.crowd.heard_ms = look.now_ms;
            self.fleet.heard_ms = look.now_ms;
        }
    }

    /// The look is over: who is due, at most `candidates_max` of them. Units that it did not show are forgotten.
    pub fn end(&mut self, candidates_max: usize) -> Round {
        let number = self.look.number;
        for site in self.sites.values_mut() {
            site.units.retain(|_, unit| unit.look == number);
        }
        self.sites.retain(|_, site| !site.units.is_empty());
        self.is_baseline = self.look.is_baseline;
        let mut round = Round {
            trust: self.look.trust,
            candidates: Vec::new(),
            waiting: 0,
            units: self.sites.values().map(|site| site.units.len()).sum(),
            quiet: 0,
            fell_quiet: Vec::new(),
            heard_again: Vec::new(),
        };
        if self.look.trust != Trust::Behind {
            self.covered_ms = self.covered_ms.max(Some(self.look.covered_ms));
            self.listen(&mut round);
            self.collect(candidates_max, &mut round);
        }
        round.quiet = self.sites.values().filter(|site| site.crowd.quiet_since_ms.is_some()).count();
        round
    }

    /// The candidate was answered: its event is acknowledged, or it is to be left alone. It is not judged again for a
    /// timeout, unless hot state shows another connection before.
    pub fn answered(&mut self, candidate: &Candidate, now_ms: u64) {
        let site = self.sites.get_mut(&candidate.site_uid);
        if let Some(unit) = site.and_then(|site| site.units.get_mut(candidate.unit.as_str())) {
            unit.signs = 0;
            unit.rest_until_ms = now_ms.saturating_add(self.rules.timeout_ms);
        }
    }

    /// Who fell quiet, and who is heard again.
    fn listen(&mut self, round: &mut Round) {
        let mut all_online = 0;
        let mut note = |crowd: &mut Crowd, site_uid: Option<&String>, units, look: &Look, rules| {
            let quiet = || Quiet { site_uid: site_uid.cloned(), units };
            match crowd.listen(units, look, rules) {
                None => {}
                Some(true) => round.fell_quiet.push(quiet()),
                Some(false) => round.heard_again.push(quiet()),
            }
        };
        for (site_uid, site) in &mut self.sites {
            let online = site.units.values().filter(|unit| unit.online_since_ms.is_some()).count();
            all_online += online;
            note(&mut site.crowd, Some(site_uid), online, &self.look, &self.rules);
        }
        note(&mut self.fleet, None, all_online, &self.look, &self.rules);
    }

    fn collect(&self, candidates_max: usize, round: &mut Round) {
        let covered_ms = self.look.covered_ms;
        let mut due = Vec::new();
        for (site_uid, site) in &self.sites {
            let is_held = [&self.fleet, &site.crowd]
                .iter()
                .any(|crowd| crowd.is_held(covered_ms, self.rules.quiet_hold_ms));
            let anew_ms = site.crowd.anew_ms.max(self.fleet.anew_ms);
            for (unit, known) in &site.units {
                let kind = match known.online_since_ms {
                    _ if covered_ms < known.rest_until_ms => continue,
                    None if known.signs >= SIGNS_OF_LIFE => Kind::Back,
                    Some(_) if !is_held => {
                        let since_ms = known.alive_ms.max(anew_ms);
                        if covered_ms.saturating_sub(since_ms) < self.rules.timeout_ms {
                            continue;
                        }
                        Kind::Silent
                    }
                    _ => continue,
                };
                due.push((kind, known.alive_ms, site_uid.as_str(), &**unit, known.heard_at(kind)));
            }
        }
        due.sort_unstable();
        round.waiting = due.len().saturating_sub(candidates_max);
        let candidate = |(kind, _, site_uid, unit, heard_at): (Kind, u64, &str, &str, TimestampMs)| {
            Candidate { site_uid: site_uid.to_owned(), unit: unit.to_owned(), kind, heard_at }
        };
        round.candidates = due.into_iter().take(candidates_max).map(candidate).collect();
    }
}

impl Site {
    fn found(look: &Look) -> Self {
        let crowd = Crowd { heard_ms: look.now_ms, anew_ms: look.now_ms, quiet_since_ms: None };
        Self { crowd, units: HashMap::new(), found: look.number }
    }
}

impl Crowd {
    fn begin_anew(&mut self, now_ms: u64) {
        *self = Self { heard_ms: now_ms, anew_ms: now_ms, quiet_since_ms: None };
    }

    /// Whether it fell quiet with this look, or is heard again; none where nothing changed.
    fn listen(&mut self, online: usize, look: &Look, rules: &Rules) -> Option<bool> {
        match self.quiet_since_ms {
            None => {
                let is_quiet = online >= QUIET_UNITS_MIN
                    && look.covered_ms.saturating_sub(self.heard_ms) >= rules.quiet_after_ms();
                self.quiet_since_ms = is_quiet.then_some(self.heard_ms);
                is_quiet.then_some(true)
            }
            Some(since_ms) if self.heard_ms > since_ms => {
                // Whatever lay between is open again: the others have a full timeout to be heard, too.
                self.quiet_since_ms = None;
                self.anew_ms = look.now_ms;
                Some(false)
            }
            Some(_) => None,
        }
    }

    fn is_held(&self, covered_ms: u64, hold_ms: Option<u64>) -> bool {
        self.quiet_since_ms
            .is_some_and(|since_ms| hold_ms.is_none_or(|hold| covered_ms.saturating_sub(since_ms) < hold))
    }
}

impl Unit {
    fn new(seen_ms: i64, online_since_ms: Option<i64>, look: &Look) -> Self {
        Self {
            seen_ms,
            alive_ms: look.now_ms,
            online_since_ms,
            connection_shown_ms: None,
            signs: 0,
            first_sign_seen_ms: seen_ms,
            last_sign_ms: look.now_ms,
            rest_until_ms: 0,
            look: look.number,
        }
    }

    /// A look shows it again. Whether it was heard since the last one.
    fn shown(&mut self, seen_ms: i64, online_since_ms: Option<i64>, look: &Look, timeout_ms: u64) -> bool {
        self.look = look.number;
        let is_changed = self.seen_ms != seen_ms;
        let is_other_connection = self.online_since_ms != online_since_ms;
        let shown_ms = self.connection_shown_ms.filter(|_| !is_other_connection);
        if is_other_connection {
            (self.signs, self.rest_until_ms) = (0, 0);
        }
        if is_changed || (is_other_connection && online_since_ms.is_some()) {
            self.alive_ms = look.now_ms;
        }
        // Telemetry may be taken later than what tells of connections: what the look before did not cover yet can be
        // older than the break.
        let is_after_break = shown_ms.is_some_and(|shown| shown <= look.before_ms);
        if is_changed && look.is_evidence && online_since_ms.is_none() && is_after_break {
            if look.now_ms.saturating_sub(self.last_sign_ms) > timeout_ms {
                self.signs = 0;
            }
            if self.signs == 0 {
                self.first_sign_seen_ms = seen_ms;
            }
            self.signs = self.signs.saturating_add(1);
            self.last_sign_ms = look.now_ms;
        }
        self.connection_shown_ms = (!is_other_connection).then(|| shown_ms.unwrap_or(look.now_ms));
        (self.seen_ms, self.online_since_ms) = (seen_ms, online_since_ms);
        is_changed
    }

    fn heard_at(&self, kind: Kind) -> TimestampMs {
        TimestampMs(match kind {
            Kind::Silent => self.seen_ms,
            Kind::Back => self.first_sign_seen_ms,
        })
    }
}

#[cfg(test)]
mod tests;
