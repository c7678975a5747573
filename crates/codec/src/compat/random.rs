//! Random data of a schema: seeded, so that what failed can be made again.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{NamesRef, ResolvedSchema, SchemaKind, UuidSchema},
    types::Value,
};

/// A small generator (splitmix64): no security, no dependency, the same sequence everywhere.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// How many values (and bytes of fixed ones) may still be made.
    left: usize,
}

/// Most values, and bytes of fixed ones, of one datum: lists of lists of lists have no end otherwise.
const VALUES_MAX: usize = 100_000;

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, left: 0 }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        // The remainder is no larger than n, which fits.
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or_default()
    }

    /// Random data of `schema`; with `whole` every optional part is there and no list is empty.
    ///
    /// # Errors
    /// Names the type that events do not use and this does not make; says when its lists are nested so deep that the
    /// data would be too large.
    pub fn value(&mut self, schema: &Schema, whole: bool) -> Result<Value, String> {
        let resolved = ResolvedSchema::try_from(schema).map_err(|error| error.to_string())?;
        self.left = VALUES_MAX;
        self.of(schema, resolved.get_names(), whole)
    }

    fn of(&mut self, schema: &Schema, names: &NamesRef<'_>, whole: bool) -> Result<Value, String> {
        let needed = if let Schema::Fixed(fixed) = schema { fixed.size } else { 1 };
        let too_large = || "data to try it with would be too large: nest fewer lists".to_owned();
        self.left = self.left.checked_sub(needed).ok_or_else(too_large)?;
        Ok(match schema {
            Schema::Ref { name } => match names.get(name).copied() {
                Some(schema) => self.of(schema, names, whole)?,
                None => return Err(format!("type `{name}` is not defined")),
            },
            Schema::Null => Value::Null,
            Schema::Boolean => Value::Boolean(self.next() & 1 == 1),
            Schema::Int => Value::Int(self.long() as i32),
            Schema::Long => Value::Long(self.long()),
            Schema::TimestampMillis => Value::TimestampMillis(self.long()),
            Schema::Double => Value::Double(self.double()),
            Schema::String => Value::String(self.string()),
            Schema::Uuid(UuidSchema::Fixed(_)) => {
                let (high, low) = (self.next(), self.next());
                Value::Uuid(uuid::Uuid::from_u64_pair(high, low))
            }
            Schema::Fixed(fixed) => {
                Value::Fixed(fixed.size, (0..fixed.size).map(|_| self.next() as u8).collect())
            }
            Schema::Enum(symbols) => {
                let n = self.below(symbols.symbols.len());
                let none = || format!("enum `{}` has no symbols", symbols.name);
                Value::Enum(
                    u32::try_from(n).unwrap_or_default(),
                    symbols.symbols.get(n).ok_or_else(none)?.clone(),
                )
            }
            Schema::Array(array) => {
                let length = self.length(whole);
                Value::Array(
                    (0..length).map(|_| self.of(&array.items, names, whole)).collect::<Result<_, _>>()?,
                )
            }
            Schema::Map(map) => {
                let mut entries = HashMap::new();
                for _ in 0..self.length(whole) {
                    entries.insert(self.string(), self.of(&map.types, names, whole)?);
                }
                Value::Map(entries)
            }
            Schema::Union(union) => {
                let variants = union.variants();
                let mut n = self.below(variants.len());
                let Some(drawn) = variants.get(n) else {
                    return Err("a union has no types".to_owned());
                };
                if whole && matches!(drawn, Schema::Null) {
                    n = variants.iter().position(|variant| !matches!(variant, Schema::Null)).unwrap_or(n);
                }
                Value::Union(
                    u32::try_from(n).unwrap_or_default(),
                    Box::new(self.of(&variants[n], names, whole)?),
                )
            }
            Schema::Record(record) => {
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.clone(), self.of(&field.schema, names, whole)?));
                }
                Value::Record(fields)
            }
            other => return Err(format!("type {:?} is not used in events", SchemaKind::from(other))),
        })
    }

    fn length(&mut self, whole: bool) -> usize {
        usize::from(whole) + self.below(4)
    }

    /// Small ones, and the ends of the range.
    fn long(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => i64::MAX,
            2 => i64::MIN,
            3 => -1,
            4 => (self.next() % 1000).cast_signed() - 500,
            _ => self.next().cast_signed(),
        }
    }

    /// Finite: NaN equals nothing, and events reject it anyway.
    fn double(&mut self) -> f64 {
        match self.below(4) {
            0 => 0.0,
            1 => f64::MAX,
            2 => -273.15,
            _ => f64::from(self.next() as u32) / 1000.0 - 1000.0,
        }
    }

    fn string(&mut self) -> String {
        const PARTS: [&str; 8] = ["", "a", "robot-7", "ä", "\0", "日本", "\"{", "x y/%2F"];
        (0..self.below(4)).map(|_| PARTS[self.below(PARTS.len())]).collect()
    }
}
