//! A record as it came from the log: bytes, not yet looked into.

use bytes::{Bytes, BytesMut};
use fleetlog_event::TimestampMs;
use xxhash_rust::xxh3::Xxh3;

/// A record of a partition, untouched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp (create time on source topics): when fleetlog took the event in.
    pub timestamp: TimestampMs,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Headers,
}

impl Record {
    /// Bytes that the record holds: what back-pressure counts.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.size_bytes()
    }

    /// The same in memory of its own. A record as it comes shares a larger piece of memory with its neighbours, all of
    /// which stays for as long as one of them is kept.
    #[must_use]
    pub fn detached(&self) -> Self {
        let own = |part: &Option<Bytes>| part.as_deref().map(Bytes::copy_from_slice);
        Self { key: own(&self.key), value: own(&self.value), headers: Headers(own(&self.headers.0)), ..*self }
    }

    /// The key as text; none if there is none or it is no UTF-8.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }

    /// A hash over key, value and timestamp, by which a lane recognises the last record it took.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for part in [&self.key, &self.value] {
            // The length (or its absence) keeps `key + value` apart from a shifted border between them.
            hash.update(&part.as_ref().map_or(-1, |bytes| bytes.len().cast_signed() as i64).to_le_bytes());
            hash.update(part.as_deref().unwrap_or_default());
        }
        hash.update(&self.timestamp.0.to_le_bytes());
        hash.digest()
    }
}

/// Headers packed into one allocation: most records' headers are carried along and never looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Headers(Option<Bytes>);

/// Of a record without any.
impl Default for Headers {
    fn default() -> Self {
        Self(Some(Bytes::new()))
    }
}

impl Headers {
    /// Of a record whose headers nobody has looked at: librdkafka takes each of them apart, which costs a quarter of a
    /// catch-up. Nothing may be set aside with them.
    pub const UNREAD: Self = Self(None);

    /// Whether they are known.
    #[must_use]
    pub fn are_read(&self) -> bool {
        self.0.is_some()
    }

    fn size_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }

    /// Packs headers, keeping order and repeated names.
    #[must_use]
    pub fn pack<'a, N: AsRef<[u8]> + ?Sized + 'a>(
        headers: impl IntoIterator<Item = (&'a N, Option<&'a [u8]>)>,
    ) -> Self {
        Self::pack_into(&mut BytesMut::new(), headers)
    }

    /// Packs headers into memory that records share, of which it takes what [`Self::packed_bytes`] says.
    #[must_use]
    pub fn pack_into<'a, N: AsRef<[u8]> + ?Sized + 'a>(
        chunk: &mut BytesMut,
        headers: impl IntoIterator<Item = (&'a N, Option<&'a [u8]>)>,
    ) -> Self {
        let mut part = |part: Option<&[u8]>| {
            // Kafka's own limit of a record is below 2^31.
            let length = part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT));
            chunk.extend_from_slice(&length.to_le_bytes());
            chunk.extend_from_slice(part.unwrap_or_default());
        };
        for (name, value) in headers {
            part(Some(name.as_ref()));
            part(value);
        }
        Self(Some(chunk.split().freeze()))
    }

    /// How many bytes these headers take when they are packed.
    #[must_use]
    pub fn packed_bytes<'a, N: AsRef<[u8]> + ?Sized + 'a>(
        headers: impl IntoIterator<Item = (&'a N, Option<&'a [u8]>)>,
    ) -> usize {
        let one = |(name, value): (&N, Option<&[u8]>)| {
            2 * size_of::<u32>() + name.as_ref().len() + value.map_or(0, <[u8]>::len)
        };
        headers.into_iter().map(one).sum()
    }

    /// The headers, in order; none of those that are unread. A name is a text by the protocol, and whatever bytes somebody sent in fact.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest: &[u8] = self.0.as_deref().unwrap_or_default();
        std::iter::from_fn(move || {
            let name = take(&mut rest)?.unwrap_or_default();
            let value = take(&mut rest)?;
            Some((name, value))
        })
    }

    /// The last header of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().filter(|(n, _)| *n == name.as_bytes()).last().and_then(|(_, value)| value)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size_bytes() == 0
    }
}

/// The length of a part that is absent.
const ABSENT: u32 = u32::MAX;

/// One length-prefixed part off the front; `Some(None)` is a part that is absent.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    let length = u32::from_le_bytes(*length);
    if length == ABSENT {
        return Some(None);
    }
    let (part, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_out_as_they_went_in() {
        let headers: [(&[u8], Option<&[u8]>); 5] =
            [(b"a", Some(b"1")), (b"b", None), (b"\xff", Some(b"y")), (b"a", Some(b"")), (b"", Some(b"x"))];
        let packed = Headers::pack(headers);
        assert_eq!(packed.iter().collect::<Vec<_>>(), headers);
        assert_eq!(packed.get("a"), Some(&b""[..]));
        assert_eq!(packed.size_bytes(), Headers::packed_bytes(headers));
    }
}
