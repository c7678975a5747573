//! Payloads behind either framing, written with schemas that are compiled in.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use fleetlog_codec::{
    Decoder, Encoder, Lookup, LookupError, NoSource, Prepared, SchemaRef, SchemaSource, builtin_schemas,
    frame,
};
use fleetlog_event::{Decode, EventSet, FleetEvent, Reject, TimestampMs};
use fleetlog_simulate::Fleet;
use fleetlog_testkit::fuzz::{Allowance, Answer, Target};
use fleetlog_vda5050::Mapper;
use futures_util::FutureExt;

use crate::recording;

/// One length prefix may claim 8 MiB before the data is seen to be shorter (`codec::ALLOCATION_BYTES_MAX`).
const ALLOWANCE: Allowance = Allowance { base_bytes: 9 << 20, per_byte: 64 };

#[test]
fn payloads() {
    Target::new("frames", 60_000, ALLOWANCE).made(payloads_of_every_event()).run(
        |mutator, corpus| {
            let mut input = mutator.bytes(corpus, &LENGTHS);
            if mutator.once_in(8) {
                let schema = mutator.pick(builtin_schemas());
                let datum = frame::parse(Some(&input)).map(|(_, datum)| datum.to_vec()).unwrap_or_default();
                input.clear();
                frame::write(SchemaRef::Fingerprint(schema.fingerprint()), &mut input);
                input.extend(datum);
            }
            input
        },
        check,
    );
}

/// Lengths and counts as varints: small ones, huge ones, and ones that never end.
const LENGTHS: [&[u8]; 8] = [
    &[0x80, 0x80, 0x80, 0x08],
    &[0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x10],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x01, 0x02],
    &[0x00, 0x00, 0x00, 0x00],
];

fn check(input: &[u8]) -> Answer {
    let payload = Some(input);
    let _ = frame::event_id(payload);
    let prepared = prepare(input, Arc::new(Ids))?;
    if let Ok(any) = prepared.decode_any(payload) {
        std::hint::black_box(any);
    }
    let event = match prepared.decode::<FleetEvent>(payload) {
        Ok(event) => event,
        Err(reject) => return rejected(&reject),
    };
    round_trip(&event)?;
    Ok("decoded")
}

/// What was decoded is written and read again without a change.
pub(crate) fn round_trip(event: &FleetEvent) -> Result<(), String> {
    static DECODER: LazyLock<Decoder> = LazyLock::new(|| Decoder::new(Arc::new(NoSource)));
    let written = encoded(event);
    let again: FleetEvent = prepare_with(&DECODER, &written)?
        .decode(Some(&written))
        .map_err(|reject| format!("what it wrote itself is rejected: {reject:?}"))?;
    // Bytes, not events: a number that is none equals nothing.
    if encoded(&again) == written { Ok(()) } else { Err(format!("{event:?} comes back as {again:?}")) }
}

/// A reject says why, in few words.
pub(crate) fn rejected(reject: &Reject) -> Answer {
    if reject.detail.is_empty() || reject.detail.len() > 1_000 {
        return Err(format!("its reason has {} bytes: {reject:?}", reject.detail.len()));
    }
    Ok(reject.reason.as_str())
}

pub(crate) fn prepare(payload: &[u8], source: Arc<dyn SchemaSource>) -> Result<Prepared, String> {
    prepare_with(&Decoder::new(source), payload)
}

fn prepare_with(decoder: &Decoder, payload: &[u8]) -> Result<Prepared, String> {
    // No source here waits for anybody.
    let prepared = decoder.prepare([Some(payload)]).now_or_never();
    prepared.ok_or("looking up a schema waits")?.map_err(|error| error.to_string())
}

fn encoded(event: &FleetEvent) -> Vec<u8> {
    static ENCODER: LazyLock<Encoder> = LazyLock::new(Encoder::single_object);
    let mut payload = Vec::new();
    ENCODER.encode_any(event, &mut payload).unwrap();
    payload
}

/// Schema id n is the n-th of the compiled-in ones.
struct Ids;

impl SchemaSource for Ids {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        let found = usize::try_from(id).ok().and_then(|n| builtin_schemas().get(n.checked_sub(1)?));
        let found = found.cloned().ok_or_else(|| LookupError::NotFound(format!("schema id {id}: not there")));
        Box::pin(async { found })
    }

    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        NoSource.by_fingerprint(fingerprint).boxed()
    }
}

/// A few events of every type that a simulated fleet or the recording has.
pub(crate) fn events_of_every_type() -> Vec<FleetEvent> {
    let mut found: BTreeMap<&str, Vec<FleetEvent>> = BTreeMap::new();
    let simulated = Fleet::new(40, 7, 1_795_251_856_000).take(60_000).map(|(_, event)| event);
    let mut mapper = Mapper::new("fuzz");
    let recorded = (1..)
        .zip(recording())
        .flat_map(|(number, line)| mapper.raw_line(&line, number, TimestampMs(1_795_251_856_000)).events);
    for event in simulated.chain(recorded) {
        let same = found.entry(event.event_type().name).or_default();
        if same.len() < 3 {
            same.push(event);
        }
    }
    found.into_values().flatten().collect()
}

/// Each of them behind both framings.
fn payloads_of_every_event() -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for event in events_of_every_type() {
        let single_object = encoded(&event);
        let (schema, datum) = frame::parse(Some(&single_object)).unwrap();
        let number = builtin_schemas().iter().position(|s| SchemaRef::Fingerprint(s.fingerprint()) == schema);
        let mut confluent = Vec::new();
        frame::write(SchemaRef::Id(u32::try_from(number.unwrap() + 1).unwrap()), &mut confluent);
        confluent.extend(datum);
        payloads.extend([single_object, confluent]);
    }
    payloads
}
