//! Data of schemas that nobody has seen before: `schema JSON`, a zero byte, the datum.

use std::{cell::RefCell, sync::Arc};

use apache_avro::writer::datum::GenericDatumWriter;
use fleetlog_codec::{
    Lookup, LookupError, NoSource, SchemaSource, WriterSchema, builtin_schemas,
    compat::{Random, builtin_texts},
    fingerprint,
    frame::{self, SchemaRef},
};
use fleetlog_event::{Decode, FleetEvent};
use fleetlog_testkit::fuzz::{Allowance, Answer, Mutator, Target};
use serde_json::Value;

use crate::frames::{prepare, rejected, round_trip};

/// What the decoder allows a datum (32 MiB, `codec::schema::skim`), and a schema that is read in this very input.
const ALLOWANCE: Allowance = Allowance { base_bytes: 48 << 20, per_byte: 400 };

/// A schema that is taken stays for the life of the process, so each serves so many inputs: 5,000 of them in a million.
const INPUTS_PER_SCHEMA: u64 = 200;

#[test]
fn data_of_schemas_from_elsewhere() {
    // Parsing a schema takes longer than reading data with it.
    let last: RefCell<Option<Block>> = RefCell::new(None);
    Target::new("writer-schemas", 25_000, ALLOWANCE).made(seeds()).run(
        |mutator, corpus| {
            let (block, mut choices) = mutator.block(INPUTS_PER_SCHEMA);
            let mut last = last.borrow_mut();
            let (_, schema, datum) = match last.take() {
                Some(same @ (number, ..)) if number == block => last.insert(same),
                _ => {
                    let base: &Vec<u8> = choices.pick(corpus);
                    let (schema, datum) = split(base);
                    last.insert((block, changed_schema(&mut choices, schema, corpus), datum.to_vec()))
                }
            };
            let mut datum = datum.clone();
            for _ in 0..mutator.below(5) {
                let other: &Vec<u8> = mutator.pick(corpus);
                mutator.change(&mut datum, split(other).1, &COUNTS);
            }
            [schema, &[0][..], &datum].concat()
        },
        check,
    );
}

/// The number of a block of inputs, its schema and the datum it began with.
type Block = (u64, Vec<u8>, Vec<u8>);

/// Counts of blocks as varints.
const COUNTS: [&[u8]; 3] = [&[0x80, 0x80, 0x80, 0x02], &[0x03, 0x10], &[0xfe, 0xff, 0x7f]];

fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    (&input[..at], input.get(at + 1..).unwrap_or_default())
}

/// Mostly one that is still a schema.
fn changed_schema(mutator: &mut Mutator, schema: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    for _ in 0..12 {
        let changed = changed_once(mutator, schema, corpus);
        if std::str::from_utf8(&changed).is_ok_and(|json| fingerprint(json).is_ok()) {
            return changed;
        }
    }
    changed_once(mutator, schema, corpus)
}

fn changed_once(mutator: &mut Mutator, schema: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let other = mutator.pick(corpus);
    match (serde_json::from_slice::<Value>(schema), serde_json::from_slice::<Value>(split(other).0)) {
        (Ok(base), Ok(other)) => mutator.json(&base, &other, &WORDS).to_string().into_bytes(),
        _ => mutator.bytes(&[schema.to_vec(), other.clone()], &[]),
    }
}

/// What schemas are made of.
pub(crate) const WORDS: [&str; 44] = [
    "type",
    "name",
    "namespace",
    "fields",
    "items",
    "values",
    "symbols",
    "size",
    "default",
    "aliases",
    "doc",
    "logicalType",
    "precision",
    "scale",
    "order",
    "record",
    "enum",
    "fixed",
    "array",
    "map",
    "union",
    "null",
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "bytes",
    "string",
    "uuid",
    "decimal",
    "big-decimal",
    "duration",
    "timestamp-millis",
    "timestamp-nanos",
    "date",
    "time-micros",
    "EventMeta",
    "fleetlog.EventMeta",
    "fleetlog.robot",
    "meta",
    "event_id",
    "unknown",
    "a.b.c",
];

fn check(input: &[u8]) -> Answer {
    let (json, datum) = split(input);
    let Ok(json) = std::str::from_utf8(json) else { return Ok("schema is no text") };
    let schema = match WriterSchema::parse(json) {
        Ok(schema) => schema,
        Err(error) if error.to_string().len() > 2_000 => {
            return Err(format!("its refusal has {} bytes", error.to_string().len()));
        }
        Err(_) => return Ok("schema refused"),
    };
    let payload = [&[0, 0, 0, 0, 1][..], datum].concat();
    let prepared = prepare(&payload, Arc::new(One(schema)))?;
    let any = prepared.decode_any(Some(&payload));
    let read = prepared.decode::<FleetEvent>(Some(&payload));
    if any.is_ok() && !datum.is_empty() {
        // No datum is the beginning of another one of its schema.
        let shorter = &payload[..payload.len() - 1];
        if prepared.decode_any(Some(shorter)).is_ok() {
            return Err("it is decoded, and so it is without its last byte".to_owned());
        }
    }
    match (read, any) {
        (Ok(event), _) => round_trip(&event).map(|()| "read into an event"),
        (Err(_), Ok(_)) => Ok("read as JSON"),
        (Err(reject), Err(_)) => rejected(&reject),
    }
}

/// Id 1 is the schema.
struct One(Arc<WriterSchema>);

impl SchemaSource for One {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        let found =
            if id == 1 { Ok(Arc::clone(&self.0)) } else { Err(LookupError::NotFound("another id".into())) };
        Box::pin(async { found })
    }

    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        Box::pin(async move { NoSource.by_fingerprint(fingerprint).await })
    }
}

/// Random data of our own schemas as somebody newer writes them: with a field and a symbol that we do not know.
fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    let mut seeds = Vec::new();
    for text in builtin_texts() {
        let mut json: Value = serde_json::from_str(&text.json).unwrap();
        json["fields"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({"name": "added_later", "type": "long"}));
        let schema = WriterSchema::parse(&json.to_string()).unwrap();
        let value = random.value(schema.schema(), seeds.len() % 2 == 0).unwrap();
        let mut seed = json.to_string().into_bytes();
        seed.push(0);
        let writer = GenericDatumWriter::builder(schema.schema()).build().unwrap();
        writer.write_value_ref(&mut seed, &value).unwrap();
        seeds.push(seed);
    }
    assert_eq!(seeds.len(), builtin_schemas().len());
    let mut prefix = Vec::new();
    frame::write(SchemaRef::Id(1), &mut prefix);
    assert_eq!(prefix, [0, 0, 0, 0, 1], "what `check` puts before a datum");
    seeds
}
