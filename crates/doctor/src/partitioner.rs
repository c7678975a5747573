//! Which partitioner put a key where it is.

use std::fmt;

use fleetlog_event::partition_of;

/// Who puts keys on other partitions than [`partition_of`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// librdkafka's default, `consistent_random`: CRC-32.
    Librdkafka,
    /// Sarama's default, which kafka-go has too: FNV-1a.
    Sarama,
    /// The right partitioner, on a topic that had so many partitions.
    OtherCount(i32),
    /// None of these: partitions chosen by hand, at random, or by code of one's own.
    Unknown,
}

impl Culprit {
    /// What to change.
    #[must_use]
    pub const fn cure(self) -> &'static str {
        match self {
            Self::Librdkafka => {
                "set `partitioner` to `murmur2_random` in that producer (every client built on librdkafka has it)"
            }
            Self::Sarama => "give that producer a murmur2 partitioner, as Java's clients have it",
            Self::OtherCount(_) => {
                "partitions of a keyed topic must not be changed: make a new topic under another name, send new \
                 events there, and rebuild the projections"
            }
            Self::Unknown => {
                "let that producer choose partitions by murmur2 of the key, as Java's clients do"
            }
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Librdkafka => f.write_str(
                "librdkafka's default partitioner, CRC-32 (clients of Python, Go, .NET, Node.js and kcat have it)",
            ),
            Self::Sarama => f.write_str("FNV-1a, the default partitioner of Sarama (Go)"),
            Self::OtherCount(count) => write!(f, "a time when the topic had {count} partitions"),
            Self::Unknown => f.write_str("no partitioner that is known"),
        }
    }
}

/// Who most likely put these keys where they are, on a topic that has `partitions` and should have `wanted`. All of the
/// keys lie on another partition than they should.
#[must_use]
pub fn culprit(misplaced: &[(&[u8], i32)], partitions: i32, wanted: i32) -> Culprit {
    let explains =
        |place: &dyn Fn(&[u8]) -> i32| misplaced.iter().all(|(key, partition)| place(key) == *partition);
    let modulus = u32::try_from(partitions).unwrap_or(1).max(1);
    let among = |hash: u32| i32::try_from(hash % modulus).unwrap_or(0);
    if explains(&|key| among(crc32(key))) {
        Culprit::Librdkafka
    } else if explains(&|key| among(fnv1a(key).cast_signed().unsigned_abs())) {
        Culprit::Sarama
    } else if wanted != partitions && explains(&|key| partition_of(key, wanted)) {
        Culprit::OtherCount(wanted)
    } else {
        Culprit::Unknown
    }
}

/// CRC-32 as in zlib, bit by bit: a few hundred keys are no load.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// FNV-1a, 32 bits.
fn fnv1a(data: &[u8]) -> u32 {
    data.iter().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_agree_with_their_published_check_values() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!((fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")), (0x811C_9DC5, 0xE40C_292C, 0xBF9C_F968));
    }

    #[test]
    fn whoever_explains_every_place_is_named() {
        let keys: Vec<String> = (0..40).map(|n| format!("s1.u{n}")).collect();
        let placed = |place: &dyn Fn(&[u8]) -> i32| -> Vec<(Vec<u8>, i32)> {
            keys.iter()
                .map(|key| (key.as_bytes().to_vec(), place(key.as_bytes())))
                .filter(|(key, partition)| partition_of(key, 6) != *partition)
                .collect()
        };
        let name = |placed: &[(Vec<u8>, i32)], wanted| {
            let borrowed: Vec<(&[u8], i32)> = placed.iter().map(|(key, at)| (key.as_slice(), *at)).collect();
            culprit(&borrowed, 6, wanted)
        };
        let crc = placed(&|key| i32::try_from(crc32(key) % 6).unwrap());
        assert!(crc.len() > 20);
        assert_eq!(name(&crc, 6), Culprit::Librdkafka);
        let fnv = placed(&|key| i32::try_from(fnv1a(key).cast_signed().unsigned_abs() % 6).unwrap());
        assert_eq!(name(&fnv, 6), Culprit::Sarama);
        assert_eq!(name(&placed(&|key| partition_of(key, 4)), 4), Culprit::OtherCount(4));
        assert_eq!(name(&placed(&|_| 5), 6), Culprit::Unknown);
    }
}
