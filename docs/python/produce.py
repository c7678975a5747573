#!/usr/bin/env python3
"""Sends one `Connected` event as any Confluent client can, and reads it back.

usage: produce.py BROKERS REGISTRY_URL TOPIC UNIT
needs: pip install 'confluent-kafka[avro,schemaregistry]'
"""

import datetime
import pathlib
import sys
import uuid

from confluent_kafka import DeserializingConsumer, SerializingProducer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import StringDeserializer, StringSerializer

brokers, registry_url, topic, unit = sys.argv[1:]
site_uid, unit_uid = unit[1:].split(".u")  # ids without percent-encoding: enough for an example
schema = (pathlib.Path(__file__).parents[2] / "schemas/robot/Connected.v1.avsc").read_text()
registry = SchemaRegistryClient({"url": registry_url})
now = datetime.datetime.now(datetime.timezone.utc)

producer = SerializingProducer({
    "bootstrap.servers": brokers,
    "partitioner": "murmur2_random",  # what Java does; librdkafka's default is another, and is refused
    "enable.idempotence": True,
    "key.serializer": StringSerializer(),
    "value.serializer": AvroSerializer(
        registry, schema, conf={"subject.name.strategy": topic_record_subject_name_strategy}
    ),
})
place = {}
event = {
    "meta": {
        "event_id": uuid.uuid4().bytes,  # fixed before the first send: a resend carries the same id
        "occurred_at": now,
        "recorded_at": now,
        "site_uid": site_uid,
        "unit_uid": unit_uid,
        "sequence": None,
        "sequence_scope": None,
        "source": "produce.py/1",
        "correlation_id": None,
        "causation_id": None,
    },
    "protocol": None,
}
producer.produce(
    topic, key=unit, value=event, timestamp=int(now.timestamp() * 1000),
    on_delivery=lambda error, message: place.update(error=error, partition=message.partition(), offset=message.offset()),
)
producer.flush(30)
if place.get("error") or "offset" not in place:
    sys.exit(f"not delivered: {place.get('error', 'no answer in 30 s')}")

consumer = DeserializingConsumer({
    "bootstrap.servers": brokers,
    "group.id": "produce.py",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "key.deserializer": StringDeserializer(),
    "value.deserializer": AvroDeserializer(registry),
})
consumer.assign([TopicPartition(topic, place["partition"], place["offset"])])
message = consumer.poll(30)
if message is None or message.error():
    sys.exit(f"not read back: {message and message.error()}")
print(f"{message.topic()}/{message.partition()}@{message.offset()} {message.key()} {message.value()['meta']['source']}")
consumer.close()
