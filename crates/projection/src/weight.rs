//! How much memory states take: measured by a stated rule, since Rust tells the size of a value but not of what it
//! points to.
//!
//! The rule counts what a value's JSON would take, without writing it: texts and names by their length, numbers by
//! [`NUMBER_BYTES`]. That is what the state takes in the store and on the way there, and an upper bound (but for what
//! allocators add) of the texts that it holds on the heap. Values shrink and grow with it, which is what a budget needs;
//! it is not exact to the byte.

use std::fmt::{self, Display};

use serde::{
    Serialize, Serializer,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// What a number counts as: a coordinate has up to 20 digits, a time 13, a counter few.
const NUMBER_BYTES: usize = 12;
/// Quotes, colon and comma beside a name or text.
const QUOTES_BYTES: usize = 4;

/// About how many bytes the JSON of `value` takes. A value that has no JSON counts up to where that shows.
pub(crate) fn json_bytes(value: &impl Serialize) -> usize {
    let mut scale = Scale(0);
    // Unwrap safety: not an unwrap; a value that refuses to be written counts as far as it came.
    let _ = value.serialize(&mut scale);
    scale.0
}

struct Scale(usize);

impl Scale {
    fn text(&mut self, text: &str) {
        self.0 += text.len() + QUOTES_BYTES;
    }
}

/// A value refused to be weighed.
#[derive(Debug)]
struct Refused;

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value has no JSON form")
    }
}

impl std::error::Error for Refused {}

impl serde::ser::Error for Refused {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty)),* $(,)?) => {
        $(fn $method(self, _: $type) -> Result<(), Refused> {
            self.0 += NUMBER_BYTES;
            Ok(())
        })*
    };
}

impl Serializer for &mut Scale {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers! {
        serialize_bool(bool), serialize_char(char), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32),
        serialize_i64(i64), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_f32(f32), serialize_f64(f64),
    }

    fn serialize_str(self, text: &str) -> Result<(), Refused> {
        self.text(text);
        Ok(())
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Refused> {
        // As JSON: a list of numbers.
        self.0 += QUOTES_BYTES * (bytes.len() + 1);
        Ok(())
    }
    fn serialize_none(self) -> Result<(), Refused> {
        self.0 += QUOTES_BYTES;
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Refused> {
        self.serialize_none()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        self.serialize_none()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Refused> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.text(variant);
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Refused> {
        self.0 += QUOTES_BYTES;
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        self.serialize_seq(None)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.serialize_seq(None)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.text(variant);
        self.serialize_seq(None)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self, Refused> {
        self.serialize_seq(None)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.serialize_seq(None)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.text(variant);
        self.serialize_seq(None)
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),* $(,)?) => {
        $(impl $trait for &mut Scale {
            type Ok = ();
            type Error = Refused;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! named_fields {
    ($($trait:ident),*) => {
        $(impl $trait for &mut Scale {
            type Ok = ();
            type Error = Refused;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                self.text(name);
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

named_fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for &mut Scale {
    type Ok = ();
    type Error = Refused;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(&mut **self)
    }
    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    enum Shape {
        Point,
        Circle { radius_m: f64 },
        Named(String),
        Pair(u8, bool),
    }

    #[test]
    fn the_weight_is_about_the_length_of_the_json() {
        let values = [
            json!({"site_uid": "504", "x_m": 1.234_567_891_234, "paused": null, "loads": ["a", "b"]}),
            json!([1_700_000_000_000_i64, 1_700_000_000_001_i64]),
            json!({"text": "x".repeat(10_000)}),
        ];
        for value in values {
            let (weight, length) = (json_bytes(&value), value.to_string().len());
            assert!(weight.abs_diff(length) < 16 + length / 2, "{weight} for {value:.80}");
        }
    }

    #[test]
    fn all_forms_of_values_have_a_weight_that_grows_with_their_texts() {
        let shapes = |name: &str| {
            let named = Shape::Named(name.to_owned());
            json_bytes(&(
                Shape::Point,
                Shape::Circle { radius_m: 1.0 },
                named,
                Shape::Pair(1, true),
                Some(()),
                'x',
            ))
        };
        assert_eq!(shapes("longer") - shapes(""), 6);
        let map: BTreeMap<u8, Vec<u8>> = [(1, vec![1, 2, 3])].into();
        assert!(json_bytes(&map) >= 4 * NUMBER_BYTES);
    }
}
