//! Which structs and enums serde expects while an event is read, with their fields and variants.

use std::{cell::RefCell, collections::BTreeMap};

use serde::{
    Deserializer,
    de::{
        Error as _, Visitor,
        value::{MapDeserializer, SeqDeserializer, StrDeserializer},
    },
};
use serde_json::{Error, Value};

/// Names by type: a struct's fields (aliases included), an enum's variants in their order.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) structs: BTreeMap<&'static str, &'static [&'static str]>,
    pub(super) enums: BTreeMap<&'static str, &'static [&'static str]>,
}

/// Reads `T` from JSON and notes what serde asks for on the way.
pub(super) fn shape_of<T: serde::de::DeserializeOwned>(json: &Value) -> Result<Shape, Error> {
    let shape = RefCell::default();
    T::deserialize(Recorder { value: json, shape: &shape })?;
    Ok(shape.into_inner())
}

#[derive(Clone, Copy)]
struct Recorder<'a> {
    value: &'a Value,
    shape: &'a RefCell<Shape>,
}

impl<'a> Recorder<'a> {
    fn of(self, value: &'a Value) -> Self {
        Self { value, shape: self.shape }
    }
}

impl<'de> serde::de::IntoDeserializer<'de, Error> for Recorder<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => visitor.visit_i64(value),
                (None, Some(value)) => visitor.visit_f64(value),
                (None, None) => Err(Error::custom("a number out of range")),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(|item| self.of(item))))
            }
            Value::Object(fields) => {
                let entries = fields.iter().map(|(name, value)| (name.as_str(), self.of(value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.shape.borrow_mut().structs.insert(name, fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.shape.borrow_mut().enums.insert(name, variants);
        let text = self.value.as_str().ok_or_else(|| Error::custom(format!("enum {name} is no text")))?;
        visitor.visit_enum(StrDeserializer::new(text))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}
