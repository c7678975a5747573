//! The Confluent framing against a real schema registry (Apicurio).

use std::sync::Arc;

use apache_avro::{types::Value, writer::datum::GenericDatumWriter};
use fleetlog_codec::{
    Decoder, Encoder, LookupError, RegistryClient, RegistryError, RegistrySettings, SchemaRef, SchemaSource,
    WriterSchema, builtin_files, compat::Random, frame, newest, subject,
};
use fleetlog_event::{
    Decode, EventId, EventMeta, EventSet, FleetEvent, Reason, TimestampMs,
    robot::{Connected, ModeChanged, OperatingMode, RobotEvent},
};
use fleetlog_testkit::{Stack, unique};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn registry_url() -> String {
    let url = Stack::from_env().registry_url;
    url.expect("FLEETLOG_TEST_REGISTRY_URL is not set: run `scripts/stack.sh up --with registry`")
}

fn client() -> RegistryClient {
    let settings = RegistrySettings { timeout_ms: 60_000, ..RegistrySettings::new(registry_url()) };
    RegistryClient::new(&settings).unwrap()
}

/// One request to the registry as any other client would make it; status and body.
async fn request(method: &str, path: &str, body: &str) -> (u16, String) {
    let url = registry_url();
    let (authority, base) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let head = format!(
        "{method} /{base}{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
         content-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// Registers a schema that another team wrote; its id.
async fn register_foreign(subject: &str, json: &str) -> u32 {
    let body = serde_json::json!({ "schema": json }).to_string();
    let (status, answer) = request("POST", &format!("/subjects/{subject}/versions"), &body).await;
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
}

fn meta() -> EventMeta {
    EventMeta {
        event_id: EventId::derived("wire", 1),
        occurred_at: TimestampMs(1_000),
        recorded_at: TimestampMs(2_000),
        site_uid: "werk1".to_owned(),
        unit_uid: Some("NordFTS/0001".to_owned()),
        sequence: None,
        sequence_scope: None,
        source: "test/1".to_owned(),
        correlation_id: None,
        causation_id: Some(EventId::derived("wire", 2)),
    }
}

#[tokio::test]
async fn an_event_is_registered_written_and_read_by_id() {
    let topic = format!("{}robot", unique("wire"));
    let name = "fleetlog.robot.Connected";
    let id = client().register(&topic, name).await.unwrap();
    // Again, and from another client: the same id.
    assert_eq!(client().register(&topic, name).await.unwrap(), id);
    let encoder = Encoder::confluent();
    encoder.set_id(name, id);
    let event = Connected { meta: meta(), protocol: Some("VDA5050/2.0.0".to_owned()) };
    let mut payload = Vec::new();
    encoder.encode(&event, &mut payload).unwrap();
    assert_eq!(frame::parse(Some(&payload)).unwrap().0, SchemaRef::Id(id));
    let prepared = Decoder::new(Arc::new(client())).prepare([Some(&payload[..])]).await.unwrap();
    assert_eq!(prepared.decode::<RobotEvent>(Some(&payload)).unwrap(), event.into());
    // The registry gives back what makes it one of ours: read by the fast path.
    assert!(prepared.schema(Some(&payload)).unwrap().is_known());
}

/// The registry's own rules (Avro's Java implementation) agree with ours on every version of every event.
#[tokio::test]
async fn the_registry_finds_all_versions_compatible_and_refuses_what_is_not() {
    let topic = unique("wire-compat");
    let rule = r#"{"compatibility":"FULL_TRANSITIVE"}"#;
    for event in FleetEvent::types() {
        // The rule is set before the second version comes.
        let subject = subject(&topic, event.name);
        let first = builtin_files()
            .iter()
            .find(|file| file.path.ends_with(&format!("/{}.v1.avsc", event.short_name())));
        register_foreign(&subject, first.unwrap().json).await;
        let (status, answer) = request("PUT", &format!("/config/{subject}"), rule).await;
        assert_eq!(status, 200, "{answer}");
        client().register(&topic, event.name).await.unwrap_or_else(|error| panic!("{}: {error}", event.name));
    }
    let subject = subject(&topic, "fleetlog.task.Paused");
    let extra = r#""fields": [ { "name": "added", "type": "string" },"#;
    let added = newest("fleetlog.task.Paused").unwrap().json().replacen(r#""fields": ["#, extra, 1);
    let body = serde_json::json!({ "schema": added }).to_string();
    let (status, answer) = request("POST", &format!("/subjects/{subject}/versions"), &body).await;
    assert_eq!(status, 409, "{answer}");
}

#[tokio::test]
async fn a_subject_with_other_rules_refuses_in_words() {
    let topic = unique("wire-refused");
    let name = "fleetlog.task.Paused";
    let subject = subject(&topic, name);
    let foreign = r#"{"type":"record","name":"acme.Other","fields":[{"name":"n","type":"int"}]}"#;
    register_foreign(&subject, foreign).await;
    request("PUT", &format!("/config/{subject}"), r#"{"compatibility":"FULL"}"#).await;
    let error = client().register(&topic, name).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Refused { subject: refused, .. } if *refused == subject),
        "{error}"
    );
}

/// Every version that is registered is read by its id, the older ones as the schemas say.
#[tokio::test]
async fn records_of_older_versions_are_read() {
    let topic = unique("wire-older");
    let decoder = Decoder::new(Arc::new(client()));
    for file in builtin_files() {
        let schema = WriterSchema::parse(file.json).unwrap();
        let id = register_foreign(&subject(&topic, schema.name()), file.json).await;
        let value = Random::new(7).value(schema.schema(), true).unwrap();
        let payload = written(id, &schema, &value);
        let prepared = decoder.prepare([Some(&payload[..])]).await.unwrap();
        let event: FleetEvent = prepared.decode(Some(&payload)).unwrap();
        assert_eq!(event.event_type().name, schema.name());
        assert_eq!(Some(event.meta().event_id), frame::event_id(Some(&payload)));
    }
}

/// A version newer than this binary, known to the registry only.
#[tokio::test]
async fn a_record_of_a_newer_version_is_read_as_the_schemas_say() {
    let topic = unique("wire-newer");
    let mut json: serde_json::Value =
        serde_json::from_str(newest("fleetlog.robot.ModeChanged").unwrap().json()).unwrap();
    json["fields"][1]["type"]["symbols"].as_array_mut().unwrap().push("remote".into());
    let by = serde_json::json!({ "name": "by", "type": "string", "default": "" });
    json["fields"].as_array_mut().unwrap().push(by);
    let json = json.to_string();
    let schema = WriterSchema::parse(&json).unwrap();
    assert!(!schema.is_known());
    let id = register_foreign(&subject(&topic, schema.name()), &json).await;
    let Value::Record(mut fields) = Random::new(1).value(schema.schema(), true).unwrap() else {
        panic!("no record")
    };
    fields[1].1 = Value::Enum(8, "remote".to_owned());
    let payload = written(id, &schema, &Value::Record(fields));
    let prepared = Decoder::new(Arc::new(client())).prepare([Some(&payload[..])]).await.unwrap();
    let event = prepared.decode(Some(&payload)).unwrap();
    let RobotEvent::ModeChanged(ModeChanged { mode, meta }) = event else { panic!("another event") };
    assert_eq!(mode, OperatingMode::Unknown);
    assert_eq!(Some(meta.event_id), frame::event_id(Some(&payload)));
}

fn written(id: u32, schema: &WriterSchema, value: &Value) -> Vec<u8> {
    let mut payload = Vec::new();
    frame::write(SchemaRef::Id(id), &mut payload);
    let writer = GenericDatumWriter::builder(schema.schema()).build().unwrap();
    writer.write_value_ref(&mut payload, value).unwrap();
    payload
}

#[tokio::test]
async fn an_id_that_the_registry_denies_rejects_and_a_wrong_address_waits() {
    let payload: &[u8] = &[0, 0x7F, 0xFF, 0xFF, 0xFF, 1, 2, 3];
    let prepared = Decoder::new(Arc::new(client())).prepare([Some(payload)]).await.unwrap();
    let reject = prepared.decode::<RobotEvent>(Some(payload)).unwrap_err();
    assert_eq!(reject.reason, Reason::UnknownSchema);
    assert!(
        reject.detail.contains("schema id 2147483647") && reject.detail.contains("does not have it"),
        "{reject}"
    );

    let wrong = RegistryClient::new(&RegistrySettings::new(format!("{}/nowhere", registry_url()))).unwrap();
    let error = wrong.by_id(1).await.unwrap_err();
    assert!(matches!(&error, LookupError::Unavailable(text) if text.contains("check the path")), "{error}");
}
