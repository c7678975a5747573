"""The log as recount.py reads it: records, their bytes judged by the documented rules, duplicates."""

import collections
import datetime
import io
import json
import uuid

import confluent_kafka
import fastavro

PARTITIONS = 6
DEDUP_WINDOW_OFFSETS = 10_000
DEDUP_WINDOW_MS = 10 * 60 * 1000
SINGLE_OBJECT = b"\xc3\x01"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class Record:
    """A record and what is to become of it: `verdict` "duplicate", or `reason` to set it aside, or neither: taken."""

    def __init__(self, topic, message):
        self.topic = topic
        self.partition, self.offset = message.partition(), message.offset()
        self.key, self.value = message.key(), message.value()
        self.headers = message.headers() or []
        self.timestamp_ms = message.timestamp()[1]
        self.verdict = self.reason = self.event = self.event_type = self.event_id = self.key_text = None
        self.detail = ""
        self.expected = next((value.decode() for name, value in self.headers if name == "chaos"), None)

    @property
    def place(self):
        return (self.topic, self.partition, self.offset)

    def set_aside(self, reason, detail=""):
        self.reason, self.detail = reason, detail
        return self


class Cluster:
    def __init__(self, brokers, prefix):
        self.brokers, self.prefix = brokers, prefix

    def read(self, topic, number_of_partitions=PARTITIONS):
        """Everything on a topic, partition by partition, in order of offsets."""
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": self.brokers, "group.id": f"{self.prefix}recount", "enable.auto.commit": False,
            "isolation.level": "read_committed", "auto.offset.reset": "error", "enable.partition.eof": True,
        })
        name = f"{self.prefix}{topic}"
        try:
            partitions = sorted(consumer.list_topics(name, timeout=30).topics[name].partitions)
            assert number_of_partitions in (None, len(partitions)), f"{name} has {len(partitions)} partitions"
            assigned = []
            for partition in partitions:
                place = confluent_kafka.TopicPartition(name, partition)
                place.offset = consumer.get_watermark_offsets(place, timeout=30)[0]
                assigned.append(place)
            consumer.assign(assigned)
            left, found = len(assigned), collections.defaultdict(list)
            while left:
                message = consumer.poll(30)
                assert message is not None, f"{name}: nothing in 30 s"
                if message.error() and message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    left -= 1
                elif message.error():
                    raise RuntimeError(f"{name}: {message.error()}")
                else:
                    found[message.partition()].append(Record(topic, message))
            return [record for partition in partitions for record in found[partition]]
        finally:
            consumer.close()

    def schemas(self):
        """Writer schemas by fingerprint, 8 bytes as they stand in a frame."""
        return {record.key: fastavro.parse_schema(json.loads(record.value))
                for record in self.read("schemas", number_of_partitions=None) if record.value}


def judge(record, schemas, topic):
    """By DESIGN §3 and §4: framing, schema, bytes, event type, key, partition."""
    value = record.value
    framed = value is not None and value[:2] == SINGLE_OBJECT and len(value) >= 10
    if framed and len(value) >= 26:
        record.event_id = uuid.UUID(bytes=value[10:26])
    # The order in which a record is looked at: its key, its value, then both against each other.
    if record.key is None:
        return record.set_aside("no_key")
    try:
        record.key_text = record.key.decode()
    except UnicodeDecodeError:
        return record.set_aside("no_key")
    if not value:
        return record.set_aside("empty_payload")
    if not framed:
        return record.set_aside("undecodable" if value[:2] == SINGLE_OBJECT else "unknown_framing")
    schema = schemas.get(value[2:10])
    if schema is None:
        return record.set_aside("unknown_schema", value[2:10].hex())
    data = io.BytesIO(value[10:])
    try:
        record.event = fastavro.schemaless_reader(data, schema, schema)
    except Exception as error:  # fastavro raises whatever the bytes happen to break
        return record.set_aside("undecodable", repr(error))
    if data.read(1):
        return record.set_aside("undecodable", "bytes are left over")
    namespace, _, record.event_type = schema["name"].rpartition(".")
    if namespace != f"fleetlog.{topic}":
        return record.set_aside("unknown_event_type", schema["name"])
    if entity(record.event, topic) != record.key_text:
        return record.set_aside("wrong_key", entity(record.event, topic))
    if partition_of(record.key) != record.partition:
        return record.set_aside("wrong_partition", str(partition_of(record.key)))
    return record


def mark_duplicates(records):
    """An earlier record of the partition with the same key and event id, not far back in offsets nor time."""
    seen = collections.defaultdict(list)
    for record in records:
        if record.event_id is None:
            continue
        earlier = seen[(record.partition, record.key, record.event_id)]
        if any(record.offset - offset <= DEDUP_WINDOW_OFFSETS and abs(record.timestamp_ms - at_ms) <= DEDUP_WINDOW_MS
               for offset, at_ms in earlier):
            record.verdict = "duplicate"
        earlier.append((record.offset, record.timestamp_ms))


def is_rejected_wrongly(record):
    """Whether a projector that is to reject what it should take rejects this: one in 16, by the event's id."""
    return record.verdict is None and not record.reason and record.event_id is not None and record.event_id.bytes[15] % 16 == 0


def entity(event, topic):
    if topic == "task":
        return event["task_id"]
    meta = event["meta"]
    return f"s{encode_id(meta['site_uid'])}.u{encode_id(meta['unit_uid'] or '')}"


def encode_id(text):
    plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    return "".join(chr(byte) if chr(byte) in plain else f"%{byte:02X}" for byte in text.encode())


def partition_of(key):
    return (murmur2(key) & 0x7FFFFFFF) % PARTITIONS


def murmur2(data):
    """Kafka's own, as its Java client has it."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at:at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def milliseconds(time):
    """fastavro gives times as datetimes where they fit."""
    if isinstance(time, datetime.datetime):
        return (time - EPOCH) // datetime.timedelta(milliseconds=1)
    return time
