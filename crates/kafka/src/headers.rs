//! Headers of records, byte for byte.
//!
//! The protocol says that names are UTF-8, and brokers do not check it: any client can send others, and crate rdkafka
//! panics on them. Here a name is bytes, on the way in and on the way out. What librdkafka itself cannot tell is a name
//! with a zero byte: it ends there.

use std::fmt;

use bytes::Bytes;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers as _, OwnedHeaders},
};

use crate::native;

/// The name of a header: a text, unless somebody sent another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(Bytes);

impl HeaderName {
    /// The name as a text; none where it is no UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<[u8]> for HeaderName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for HeaderName {
    fn from(name: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(name))
    }
}

impl From<&str> for HeaderName {
    fn from(name: &str) -> Self {
        name.as_bytes().into()
    }
}

impl From<String> for HeaderName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl PartialEq<str> for HeaderName {
    fn eq(&self, name: &str) -> bool {
        self.0 == name.as_bytes()
    }
}

impl PartialEq<&str> for HeaderName {
    fn eq(&self, name: &&str) -> bool {
        self == *name
    }
}

impl fmt::Display for HeaderName {
    /// For people: bytes that are no UTF-8 are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The headers of a message, in order.
pub fn headers<'m>(
    message: &'m BorrowedMessage<'_>,
) -> impl Iterator<Item = (&'m [u8], Option<&'m [u8]>)> + Clone {
    let found = message.headers();
    let count = found.map_or(0, |headers| headers.count());
    (0..count).filter_map(move |index| native::header_at(found?, index))
}

/// Headers for a record that is sent; none where there are none.
#[must_use]
pub fn native_headers<'a>(headers: &'a [(HeaderName, Option<Bytes>)]) -> Option<OwnedHeaders> {
    let add = |mut all: OwnedHeaders, (name, value): &'a (HeaderName, Option<Bytes>)| {
        native::add_header(&mut all, &name.0, value.as_deref());
        all
    };
    (!headers.is_empty()).then(|| headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_any_bytes_come_out_as_they_went_in() {
        let header = |name: &[u8], value: Option<&'static [u8]>| {
            (HeaderName::from(name), value.map(Bytes::from_static))
        };
        let sent = [
            header(b"text", Some(b"1")),
            header(b"\xff\xfe", Some(b"\x00")),
            header(b"text", None),
            header(b"", Some(b"")),
        ];
        let native = native_headers(&sent).unwrap_or_default();
        let read: Vec<_> =
            (0..native.count()).filter_map(|n| native::header_at(native.as_borrowed(), n)).collect();
        let expected: Vec<_> = sent.iter().map(|(name, value)| (name.as_ref(), value.as_deref())).collect();
        assert_eq!(read, expected);
        assert!(native_headers(&[]).is_none());
        assert!(sent[0].0 == "text" && sent[1].0.text().is_none());
    }
}
