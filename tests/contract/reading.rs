//! Random data of every version, through the decoder that projections use.

use std::sync::Arc;

use apache_avro::writer::datum::GenericDatumWriter;
use fleetlog_codec::{
    Decoder, NoSource, SchemaRef, WriterSchema, builtin_schemas, compat::Random, frame, newest,
};
use fleetlog_event::{Decode, EventId, EventSet, FleetEvent};
use proptest::prelude::*;

/// A record of `schema`, framed by fingerprint, and the id it was given.
fn record(schema: &WriterSchema, seed: u64) -> (Vec<u8>, EventId) {
    use apache_avro::types::Value;
    let value = Random::new(seed).value(schema.schema(), false).unwrap();
    let mut payload = Vec::new();
    frame::write(SchemaRef::Fingerprint(schema.fingerprint()), &mut payload);
    GenericDatumWriter::builder(schema.schema())
        .build()
        .unwrap()
        .write_value_ref(&mut payload, &value)
        .unwrap();
    let Value::Record(fields) = value else { panic!("no record") };
    let Value::Record(meta) = &fields[0].1 else { panic!("no meta") };
    let Value::Uuid(id) = meta[0].1 else { panic!("no event_id") };
    (payload, EventId(id))
}

fn decoded(payload: &[u8]) -> FleetEvent {
    let decoder = Decoder::new(Arc::new(NoSource));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(decoder.prepare([Some(payload)])).unwrap().decode(Some(payload)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The id is found without the schema, at the same place in every version of every event.
    #[test]
    fn every_version_is_read_and_its_id_found_without_the_schema(n in any::<prop::sample::Index>(), seed: u64) {
        let schema = &builtin_schemas()[n.index(builtin_schemas().len())];
        let (payload, id) = record(schema, seed);
        prop_assert_eq!(frame::event_id(Some(&payload)), Some(id));
        let event = decoded(&payload);
        prop_assert_eq!(event.meta().event_id, id);
        prop_assert_eq!(event.event_type().name, schema.name());
    }

    /// What was read is written with the newest version, and read again it is the same.
    #[test]
    fn what_is_read_can_be_written_again(n in any::<prop::sample::Index>(), seed: u64) {
        let schema = &builtin_schemas()[n.index(builtin_schemas().len())];
        let event = decoded(&record(schema, seed).0);
        let mut payload = Vec::new();
        fleetlog_codec::Encoder::single_object().encode_any(&event, &mut payload).unwrap();
        let newest = SchemaRef::Fingerprint(newest(schema.name()).unwrap().fingerprint());
        prop_assert_eq!(frame::parse(Some(&payload)).unwrap().0, newest);
        prop_assert_eq!(decoded(&payload), event);
    }
}
