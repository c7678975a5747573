//! Says that a unit is online: `cargo run -p fleetlog-producer --example hello -- BROKERS`, after
//! `fleetlog topics apply`.

use fleetlog_event::{EventId, EventMeta, TimestampMs, robot::Connected};
use fleetlog_kafka::KafkaSettings;
use fleetlog_producer::EventProducer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let producer = EventProducer::connect(&KafkaSettings::at(brokers))?;
    let meta = EventMeta {
        event_id: EventId::now_v7(),
        occurred_at: TimestampMs(1_795_260_000_000),
        recorded_at: TimestampMs(0), // now
        site_uid: "504".into(),
        unit_uid: Some("1010020021".into()),
        sequence: None,
        sequence_scope: None,
        source: "hello/0.1.0".into(),
        correlation_id: None,
        causation_id: None,
    };
    let delivery = producer.send(Connected { meta, protocol: None }).await?;
    println!("acknowledged at {}", delivery.await?);
    Ok(())
}
