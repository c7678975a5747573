//! Tests of decoding, with sources that are made up.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use fleetlog_event::{
    EventMeta, TimestampMs,
    robot::{Connected, ModeChanged, OperatingMode, Registered, RobotEvent},
    task::TaskEvent,
};
use proptest::prelude::*;

use super::*;
use crate::{EncodeError, Encoder, Lookup, NoSource, newest};

/// A registry of a few ids that counts what it is asked.
#[derive(Default)]
struct Fake {
    ids: Mutex<HashMap<u32, Result<Arc<WriterSchema>, LookupError>>>,
    asked: AtomicUsize,
}

impl Fake {
    fn with(ids: impl IntoIterator<Item = (u32, Result<Arc<WriterSchema>, LookupError>)>) -> Arc<Self> {
        Arc::new(Self { ids: Mutex::new(ids.into_iter().collect()), asked: AtomicUsize::new(0) })
    }
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl SchemaSource for Fake {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let denied = || Err(LookupError::NotFound(format!("no schema {id}")));
        let found = self.ids.lock().unwrap().get(&id).cloned().unwrap_or_else(denied);
        Box::pin(async { found })
    }
    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        let denied = LookupError::NotFound(format!("no schema {fingerprint:016x}"));
        Box::pin(async { Err(denied) })
    }
}

fn meta() -> EventMeta {
    EventMeta {
        event_id: EventId::derived("test", 1),
        occurred_at: TimestampMs(1_000),
        recorded_at: TimestampMs(2_000),
        site_uid: "504".to_owned(),
        unit_uid: Some("1010020021".to_owned()),
        sequence: Some(-7),
        sequence_scope: None,
        source: "test/1".to_owned(),
        correlation_id: Some(EventId::derived("test", 2)),
        causation_id: None,
    }
}

fn connected() -> Connected {
    Connected { meta: meta(), protocol: Some("VDA5050/2.0.0".to_owned()) }
}

fn single_object(event: &impl Event) -> Vec<u8> {
    let mut payload = Vec::new();
    Encoder::single_object().encode(event, &mut payload).unwrap();
    payload
}

async fn decode<S: EventSet>(source: Arc<dyn SchemaSource>, payload: &[u8]) -> Result<S, Reject> {
    Decoder::new(source).prepare([Some(payload)]).await.unwrap().decode(Some(payload))
}

/// A payload under schema id 1, written with `json` by apache-avro's own writer.
fn written(json: &str, value: apache_avro::types::Value) -> (Arc<Fake>, Vec<u8>) {
    let schema = WriterSchema::parse(json).unwrap();
    let mut payload = vec![0, 0, 0, 0, 1];
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(schema.schema()).build().unwrap();
    writer.write_value_ref(&mut payload, &value).unwrap();
    (Fake::with([(1, Ok(schema))]), payload)
}

#[tokio::test]
async fn what_is_encoded_is_decoded_and_carries_its_id_at_a_fixed_place() {
    let payload = single_object(&connected());
    let decoded: RobotEvent = decode(Arc::new(NoSource), &payload).await.unwrap();
    assert_eq!(decoded, RobotEvent::Connected(connected()));
    assert_eq!(frame::event_id(Some(&payload)), Some(meta().event_id));
    let any = decode::<FleetEvent>(Arc::new(NoSource), &payload).await.unwrap();
    assert_eq!(any, FleetEvent::Robot(decoded));
}

#[tokio::test]
async fn confluent_framing_needs_an_id_first_and_asks_once() {
    let encoder = Encoder::confluent();
    let mut payload = vec![1, 2, 3];
    let error = encoder.encode(&connected(), &mut payload).unwrap_err();
    assert_eq!((error, payload.len()), (EncodeError::NotRegistered("fleetlog.robot.Connected"), 3));
    encoder.set_id("fleetlog.robot.Connected", 42);
    encoder.encode(&connected(), &mut payload).unwrap();
    let payload = &payload[3..];
    assert_eq!(payload[..5], [0, 0, 0, 0, 42]);
    let source = Fake::with([(42, Ok(newest("fleetlog.robot.Connected").unwrap()))]);
    let decoder = Decoder::new(source.clone());
    for _ in 0..3 {
        let prepared = decoder.prepare(std::iter::repeat_n(Some(payload), 10)).await.unwrap();
        assert_eq!(prepared.decode::<RobotEvent>(Some(payload)).unwrap(), RobotEvent::Connected(connected()));
    }
    assert_eq!(source.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_denied_schema_rejects_the_record_and_is_asked_for_again_later() {
    let source = Fake::with([]);
    let decoder = Decoder::new(source.clone());
    let payload: &[u8] = &[0, 0, 0, 0, 9, 1];
    for _ in 0..2 {
        let prepared = decoder.prepare([Some(payload)]).await.unwrap();
        let reject = prepared.decode::<RobotEvent>(Some(payload)).unwrap_err();
        assert_eq!(reject, Reject::new(Reason::UnknownSchema, "no schema 9"));
    }
    assert_eq!(source.asked(), 1);
    tokio::time::advance(DENIED_FOR).await;
    decoder.prepare([Some(payload)]).await.unwrap();
    assert_eq!(source.asked(), 2);
}

#[tokio::test]
async fn noise_does_not_fill_the_memory_of_denied_schemas() {
    let decoder = Decoder::new(Fake::with([(1, Ok(newest("fleetlog.robot.Connected").unwrap()))]));
    let payloads: Vec<[u8; 5]> = (1..=DENIED_MAX as u32 + 10)
        .map(|id| {
            let [a, b, c, d] = id.to_be_bytes();
            [0, a, b, c, d]
        })
        .collect();
    let prepared = decoder.prepare(payloads.iter().map(|payload| Some(&payload[..]))).await.unwrap();
    // The batch itself has all it asked for, the decoder remembers a bounded number.
    assert_eq!(prepared.schemas.len(), payloads.len());
    assert!(decoder.snapshot().len() <= DENIED_MAX);
    assert!(matches!(decoder.snapshot().get(&SchemaRef::Id(1)), Some(Ok(_))));
}

#[tokio::test]
async fn a_schema_that_cannot_be_looked_up_now_is_no_rejection() {
    let source = Fake::with([(9, Err(LookupError::Unavailable("timed out".to_owned())))]);
    let payload: &[u8] = &[0, 0, 0, 0, 9, 1];
    let decoder = Decoder::new(source.clone());
    let error = decoder.prepare([Some(payload)]).await.unwrap_err();
    assert_eq!(error.to_string(), "schema id 9 cannot be looked up now: timed out");
    source.ids.lock().unwrap().insert(9, Ok(newest("fleetlog.robot.Connected").unwrap()));
    decoder.prepare([Some(payload)]).await.unwrap();
}

#[tokio::test]
async fn an_event_of_another_topic_or_of_nobody_is_named() {
    let payload = single_object(&connected());
    let reject = decode::<TaskEvent>(Arc::new(NoSource), &payload).await.unwrap_err();
    let words = "`fleetlog.robot.Connected` belongs on topic `robot`, this projection reads task";
    assert_eq!(reject, Reject::new(Reason::UnknownEventType, words));

    let json = r#"{"type":"record","name":"acme.Ping","fields":[{"name":"n","type":"int"}]}"#;
    let (source, payload) = written(json, record([("n", apache_avro::types::Value::Int(3))]));
    let reject = decode::<TaskEvent>(source.clone(), &payload).await.unwrap_err();
    assert_eq!(reject, Reject::new(Reason::UnknownEventType, "`acme.Ping` is no event of task"));
    let prepared = Decoder::new(source).prepare([Some(&payload[..])]).await.unwrap();
    let any = prepared.decode_any(Some(&payload)).unwrap();
    assert_eq!(any, AnyEvent::Foreign { name: "acme.Ping".to_owned(), json: serde_json::json!({ "n": 3 }) });
}

fn record<const N: usize>(fields: [(&str, apache_avro::types::Value); N]) -> apache_avro::types::Value {
    apache_avro::types::Value::Record(
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    )
}

/// A newer version than ours, unknown to this binary: a field and symbol we do not have, and an old name for one.
#[tokio::test]
async fn a_newer_version_is_read_as_the_schemas_say() {
    use apache_avro::types::Value;
    let newer = |name: &str, field: &str, with: &str| {
        let json = newest(name).unwrap().json().replace(field, with);
        assert_ne!(json, newest(name).unwrap().json());
        json
    };
    let json = newer("fleetlog.robot.ModeChanged", "\"unknown\"],", "\"unknown\", \"remote\"],");
    let schema = WriterSchema::parse(&json).unwrap();
    assert!(!schema.is_known());
    let head = apache_avro::to_value(meta()).unwrap();
    let head = with_ids(head);
    let (source, payload) =
        written(&json, record([("meta", head.clone()), ("mode", Value::Enum(8, "remote".to_owned()))]));
    let expected = ModeChanged { meta: meta(), mode: OperatingMode::Unknown };
    assert_eq!(decode::<RobotEvent>(source, &payload).await.unwrap(), expected.into());

    let json = newer("fleetlog.robot.Registered", "\"name\": \"manufacturer\"", "\"name\": \"vendor\"");
    let some = |text: &str| Value::Union(1, Box::new(Value::String(text.to_owned())));
    let none = || Value::Union(0, Box::new(Value::Null));
    let (source, payload) = written(
        &json,
        record([
            ("meta", head),
            ("unit_type", Value::Enum(1, "station".to_owned())),
            ("vendor", some("acme")),
            ("model", none()),
            ("serial_number", none()),
            ("protocol", none()),
            ("attributes", Value::Map(HashMap::new())),
        ]),
    );
    let RobotEvent::Registered(Registered { manufacturer, .. }) = decode(source, &payload).await.unwrap()
    else {
        panic!("another event")
    };
    assert_eq!(manufacturer.as_deref(), Some("acme"));
}

/// `to_value` knows no schema: ids come out as bytes, options without their branch.
fn with_ids(head: apache_avro::types::Value) -> apache_avro::types::Value {
    use apache_avro::types::Value;
    let schema = newest("fleetlog.robot.Connected").unwrap();
    let apache_avro::Schema::Record(record) = schema.schema() else { panic!("no record") };
    let Value::Record(fields) = head else { panic!("no record") };
    let fixed = |value: Value| match value {
        Value::Bytes(bytes) => Value::Fixed(16, bytes),
        Value::Union(n, inner) => match *inner {
            Value::Bytes(bytes) => Value::Union(n, Box::new(Value::Fixed(16, bytes))),
            other => Value::Union(n, Box::new(other)),
        },
        other => other,
    };
    let fields = fields.into_iter().map(|(name, value)| (name, fixed(value))).collect();
    Value::Record(fields).resolve(&record.fields[0].schema).unwrap()
}

#[tokio::test]
async fn bytes_that_are_no_datum_are_named() {
    let whole = single_object(&connected());
    let mut longer = whole.clone();
    longer.extend([0, 0, 0]);
    let reject = decode::<RobotEvent>(Arc::new(NoSource), &longer).await.unwrap_err();
    assert_eq!(reject.reason, Reason::Undecodable);
    assert!(reject.detail.contains("3 bytes are left over after the datum"), "{}", reject.detail);
    for length in 10..whole.len() {
        let reject = decode::<RobotEvent>(Arc::new(NoSource), &whole[..length]).await.unwrap_err();
        assert_eq!(reject.reason, Reason::Undecodable, "{length}");
        assert!(reject.detail.len() < 600, "{}", reject.detail);
    }
}

/// A length prefix that claims more than there is must not be believed.
#[tokio::test]
async fn a_length_bomb_is_undecodable() {
    let whole = single_object(&connected());
    // Behind prefix (10), event_id (16), occurred_at and recorded_at (2 bytes each) comes the length of site_uid.
    for claimed in [
        &[0x80, 0x80, 0x80, 0x80, 0x10][..],
        &[0xFF; 9],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
    ] {
        let payload = [&whole[..30], claimed].concat();
        let reject = decode::<RobotEvent>(Arc::new(NoSource), &payload).await.unwrap_err();
        assert_eq!(reject.reason, Reason::Undecodable);
    }
}

proptest! {
    #[test]
    fn no_bytes_behind_a_known_prefix_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), n in 0_usize..100) {
        let schemas = crate::builtin_schemas();
        let schema = &schemas[n % schemas.len()];
        let mut payload = Vec::new();
        frame::write(SchemaRef::Fingerprint(schema.fingerprint()), &mut payload);
        payload.extend(noise);
        let decoder = Decoder::new(Arc::new(NoSource));
        let decoded = decoder.prepare([Some(&payload[..])]);
        let prepared = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(decoded).unwrap();
        if let Err(reject) = prepared.decode::<FleetEvent>(Some(&payload)) {
            prop_assert_eq!(reject.reason, Reason::Undecodable);
        }
    }
}
