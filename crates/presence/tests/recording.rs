//! The recording of 24 vehicles, in its own time: projected by the projections, watched once a second, with what the
//! worker says folded back. What it says is compared with what plain code finds in the lines.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs::File, io::BufRead, path::PathBuf};

use fleetlog_event::{
    EventId, EventSet, FleetEvent, LogId, Position, Recorded, TimestampMs,
    robot::{DisconnectReason, RobotEvent},
    telemetry::TelemetryEvent,
};
use fleetlog_presence::{Covered, Kind, Rules, Status, Trust, Watch, decide};
use fleetlog_projection::{FoldProjector, HotWrite};
use fleetlog_projections::{
    UnitConsensus, UnitStatus, unit_consensus::UnitConsensusState, unit_status::UnitStatusState,
};
use fleetlog_vda5050::{Line, Mapper};

const LOOK_MS: i64 = 1000;

/// A message of the recording and what it stands for, taken in when it arrived.
struct Message {
    at_ms: i64,
    events: Vec<FleetEvent>,
}

/// The recording; messages for which `keep` says no were never sent.
fn recording(keep: impl Fn(&Line) -> bool) -> Vec<Message> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../data/vda5050/A.jsonl.zst"].iter().collect();
    let reader = std::io::BufReader::new(zstd::Decoder::new(File::open(path).unwrap()).unwrap());
    let mut mapper = Mapper::new("recording-a");
    let mut messages = Vec::new();
    for (number, line) in (1..).zip(reader.lines()) {
        let line = Line::parse(line.unwrap().as_bytes()).unwrap();
        if keep(&line) {
            let events = mapper.line(&line, number, TimestampMs(line.ts_ms)).events;
            messages.push(Message { at_ms: line.ts_ms, events });
        }
    }
    messages
}

fn is_broken_will(line: &Line) -> bool {
    line.topic.ends_with("/connection") && line.payload.contains("CONNECTIONBROKEN")
}

/// Hot state, and what the worker says of it.
#[derive(Default)]
struct World {
    consensus: BTreeMap<String, UnitConsensusState>,
    status: BTreeMap<String, UnitStatusState>,
    /// Unit, when it was said (ms since the start), what.
    said: Vec<(String, i64, RobotEvent)>,
}

impl World {
    fn fold(&mut self, event: FleetEvent, at_ms: i64) {
        let (key, recorded_at) = (event.entity(), TimestampMs(at_ms));
        let position = Position { log: LogId(EventId::derived("log", 0).0), partition: 0, offset: 0 };
        match event {
            FleetEvent::Telemetry(event) => {
                let state = self.consensus.entry(key.to_string()).or_default();
                let recorded: Recorded<TelemetryEvent> = Recorded { position, recorded_at, key, event };
                UnitConsensus.apply(state, &recorded).unwrap();
            }
            FleetEvent::Robot(event) => {
                let state = self.status.entry(key.to_string()).or_default();
                UnitStatus.apply(state, &Recorded { position, recorded_at, key, event }).unwrap();
            }
            FleetEvent::Task(_) | FleetEvent::Ops(_) => {}
        }
    }

    /// What hot state shows of a unit: its fields, and its place in `online`.
    fn shown(&self, unit: &str) -> (Vec<Option<String>>, Option<i64>) {
        let mut writes = Vec::new();
        if let Some(state) = self.status.get(unit) {
            UnitStatus.writes(&unit.into(), state, &mut writes);
        }
        let field = |wanted: &str| {
            writes.iter().find_map(|write| match write {
                HotWrite::Field { name, value } if name == wanted => value.clone(),
                _ => None,
            })
        };
        let online = writes.iter().find_map(|write| match write {
            HotWrite::Ranked { list, score, .. } if list.starts_with("online:") => *score,
            _ => None,
        });
        // Scores are whole milliseconds.
        (Status::FIELDS.iter().map(|name| field(name)).collect(), online.map(|score| score as i64))
    }

    fn look(&mut self, watch: &mut Watch, now_ms: i64, start_ms: i64) {
        let now = u64::try_from(now_ms - start_ms).unwrap();
        let trust = watch.begin(now, Covered { until_ms: Some(now), went_back: false });
        assert_ne!(trust, Trust::Behind);
        for (unit, state) in &self.consensus {
            watch.unit(&state.site_uid, unit, state.recorded_at.0, self.shown(unit).1);
        }
        for candidate in watch.end(1000).candidates {
            let event = decide(&candidate, &Status::read(&self.shown(&candidate.unit).0));
            watch.answered(&candidate, now);
            if let Some(event) = event {
                self.said.push((candidate.unit.clone(), now_ms - start_ms, event.clone()));
                self.fold(FleetEvent::Robot(event), now_ms);
            }
        }
    }

    /// What was said of each unit: second and kind.
    fn said(&self) -> BTreeMap<&str, Vec<(i64, Kind)>> {
        let mut said: BTreeMap<&str, Vec<(i64, Kind)>> = BTreeMap::new();
        for (unit, at_ms, event) in &self.said {
            let kind = match event {
                RobotEvent::Connected(_) => Kind::Back,
                RobotEvent::Disconnected(lost) => {
                    assert_eq!(lost.reason, DisconnectReason::Timeout);
                    Kind::Silent
                }
                other => panic!("{other:?}"),
            };
            said.entry(unit).or_default().push((at_ms / 1000, kind));
        }
        said
    }

    fn connection(&self, unit: &str) -> String {
        let (fields, _) = self.shown(unit);
        [fields[0].as_deref(), fields[1].as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// Plays messages, looking once a second, and goes on looking for `more_s` seconds in which the vehicles that still
/// spoke in the last two seconds go on as they were, if `others_go_on`.
fn play(messages: Vec<Message>, timeout_ms: u64, more_s: i64, others_go_on: bool) -> World {
    let mut world = World::default();
    let mut watch = Watch::new(Rules { timeout_ms, quiet_hold_ms: Some(300_000) });
    let start_ms = messages[0].at_ms;
    let end_ms = messages.last().unwrap().at_ms;
    let mut next_look_ms = start_ms + LOOK_MS;
    for message in messages {
        while next_look_ms <= message.at_ms {
            world.look(&mut watch, next_look_ms, start_ms);
            next_look_ms += LOOK_MS;
        }
        message.events.into_iter().for_each(|event| world.fold(event, message.at_ms));
    }
    while next_look_ms <= end_ms + more_s * 1000 {
        let alive = |state: &&mut UnitConsensusState| others_go_on && state.recorded_at.0 > end_ms - 2000;
        world.consensus.values_mut().filter(alive).for_each(|state| state.recorded_at.0 = next_look_ms);
        world.look(&mut watch, next_look_ms, start_ms);
        next_look_ms += LOOK_MS;
    }
    world
}

/// What plain code finds in the messages, by the vehicle's key, in ms since the start.
#[derive(Default)]
struct Plain {
    /// When it spoke (`state` or `visualization`).
    spoke: BTreeMap<String, Vec<i64>>,
    /// When it signed off.
    signed_off: BTreeMap<String, Vec<i64>>,
    end_ms: i64,
}

fn plain(messages: &[Message]) -> Plain {
    let mut plain = Plain::default();
    for message in messages {
        plain.end_ms = message.at_ms - messages[0].at_ms;
        for event in &message.events {
            let times = match event {
                FleetEvent::Telemetry(_) => &mut plain.spoke,
                FleetEvent::Robot(RobotEvent::Disconnected(lost))
                    if lost.reason == DisconnectReason::Graceful =>
                {
                    &mut plain.signed_off
                }
                _ => continue,
            };
            times.entry(event.entity().to_string()).or_default().push(plain.end_ms);
        }
    }
    plain
}

/// As it was recorded, with the timeout of 30 s. Rollwerk/0003 broke at 187 s, lived on without saying ONLINE, and died at
/// 467 s without another last will. Nobody else was silent for 30 s.
#[test]
fn who_lives_under_a_broken_state_is_online_and_who_dies_without_a_last_will_is_offline_30_s_later() {
    let messages = recording(|_| true);
    let died = "swerk1.uRollwerk%2F0003";
    let last_s = plain(&messages).spoke[died].last().unwrap() / 1000;
    let world = play(messages, 30_000, 60, true);
    let said = world.said();
    let of_died = &said[died];
    assert_eq!(of_died.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [Kind::Back, Kind::Silent]);
    assert!((188..=192).contains(&of_died[0].0), "back a moment after it broke: {of_died:?}");
    assert!((last_s + 30..=last_s + 32).contains(&of_died[1].0), "{of_died:?}, last heard at {last_s} s");
    assert_eq!(world.connection(died), "offline timeout");

    let timeouts = said.values().flatten().filter(|(_, kind)| *kind == Kind::Silent);
    assert_eq!(timeouts.count(), 1, "nobody else was silent: {said:?}");
    // Broken, and heard to the end.
    for unit in
        ["shub-nord.uKranich%20Robotik%2Fkr_a1b2", "swerk1.uRollwerk%2F0002", "swerk2.uRollwerk%2F0102"]
    {
        assert_eq!(world.connection(unit), "online", "{unit}: {:?}", said.get(unit));
    }
    // Broke, was heard (and online again), and broke a second time; signed off after it was online again.
    assert_eq!(world.connection("swerk2.uRollwerk%2F0104"), "offline broken");
    assert_eq!(world.connection("swerk2.uRollwerk%2F0103"), "offline graceful");
    let online = world.consensus.keys().filter(|unit| world.connection(unit) == "online").count();
    assert_eq!((online, world.consensus.len()), (18, 24));
}

/// The same vehicles without any last will, and with a timeout that silences of the recording exceed: plain code finds
/// them in the lines.
#[test]
fn without_any_last_will_every_silence_is_found_and_nothing_else() {
    const TIMEOUT_MS: i64 = 11_000;
    const MORE_S: i64 = 10;
    let messages = recording(|line| !is_broken_will(line));
    let Plain { mut spoke, signed_off, end_ms } = plain(&messages);
    let world = play(messages, TIMEOUT_MS.unsigned_abs(), MORE_S, true);
    let said = world.said();
    let mut expected = 0;
    for (unit, times) in &mut spoke {
        times.push(end_ms + MORE_S * 1000);
        let left = signed_off.get(unit).map_or(&[][..], Vec::as_slice);
        let silences: Vec<i64> = times
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > TIMEOUT_MS + LOOK_MS)
            .filter(|pair| !left.iter().any(|at| (pair[0]..pair[1]).contains(at)))
            .map(|pair| pair[0] / 1000)
            .collect();
        let of_unit = said.get(unit.as_str()).into_iter().flatten();
        let timeouts: Vec<i64> =
            of_unit.filter(|(_, kind)| *kind == Kind::Silent).map(|(at_s, _)| *at_s).collect();
        assert_eq!(timeouts.len(), silences.len(), "{unit}: {timeouts:?} for silences from {silences:?}");
        for (at_s, from_s) in timeouts.iter().zip(&silences) {
            let late_s = at_s - from_s - TIMEOUT_MS / 1000;
            assert!((0..=2).contains(&late_s), "{unit}: silent from {from_s} s, said at {at_s} s");
        }
        expected += silences.len();
    }
    assert_eq!(expected, 14);
    let online = world.consensus.keys().filter(|unit| world.connection(unit) == "online").count();
    assert_eq!(online, 18, "4 signed off, 2 died");
}

/// All vehicles stop at once with the recording: that is no fact about any of them. Only after the hold they are away.
#[test]
fn the_end_of_the_recording_floods_nobody() {
    let messages = recording(|_| true);
    let end_s = plain(&messages).end_ms / 1000;
    let world = play(messages, 30_000, 310, false);
    let said = world.said();
    let after = |(at_s, _): &&(i64, Kind)| *at_s > end_s;
    let at_s: Vec<i64> = said.values().flatten().filter(after).map(|(at_s, _)| at_s - end_s).collect();
    assert_eq!(at_s.len(), 18 + 1, "all that were online, and 0003: {said:?}");
    assert!(at_s.iter().all(|at_s| (295..=305).contains(at_s)), "{at_s:?}");
    assert!(world.consensus.keys().all(|unit| world.connection(unit).starts_with("offline")));
}
