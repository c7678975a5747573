//! A foreign schema is input too: reading data with it must stay linear in the data.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, Name, NamesRef, ResolvedSchema, UuidSchema},
};

use super::SchemaError;

/// Deepest nesting of types, named ones followed.
const DEPTH_MAX: usize = 64;
/// Largest `fixed`, in bytes.
const FIXED_BYTES_MAX: usize = 1 << 20;

/// Refuses a schema that is recursive or nested too deep (reading recurses), has huge `fixed` types (they are
/// allocated before the data is there) or parts that take no bytes (a few bytes could then claim any number of them).
pub(crate) fn check_bounds(schema: &Schema) -> Result<(), SchemaError> {
    let resolved = ResolvedSchema::try_from(schema).map_err(super::invalid)?;
    Walk { names: resolved.get_names(), heights: HashMap::new() }.height(schema, 0).map(|_| ())
}

struct Walk<'s> {
    names: &'s NamesRef<'s>,
    /// Of named types, so that a type used often is walked once.
    heights: HashMap<&'s Name, usize>,
}

impl<'s> Walk<'s> {
    /// How deep `schema` goes; `depth` levels are above it.
    fn height(&mut self, schema: &'s Schema, depth: usize) -> Result<usize, SchemaError> {
        let too_deep = || refused(format!("its types are recursive or nested deeper than {DEPTH_MAX}"));
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if let Some(height) = schema.name().and_then(|name| self.heights.get(name)) {
            return if depth + height > DEPTH_MAX { Err(too_deep()) } else { Ok(*height) };
        }
        let height = match schema {
            Schema::Ref { name } => {
                let named =
                    *self.names.get(name).ok_or_else(|| refused(format!("type `{name}` is not defined")))?;
                self.height(named, depth + 1)?
            }
            Schema::Record(record) => {
                let mut highest = 0;
                for field in &record.fields {
                    self.takes_bytes(&field.name, &field.schema)?;
                    highest = highest.max(self.height(&field.schema, depth + 1)?);
                }
                highest
            }
            Schema::Array(array) => {
                self.takes_bytes("items", &array.items)?;
                self.height(&array.items, depth + 1)?
            }
            Schema::Map(map) => self.height(&map.types, depth + 1)?,
            Schema::Union(union) => {
                let mut highest = 0;
                for variant in union.variants() {
                    highest = highest.max(self.height(variant, depth + 1)?);
                }
                highest
            }
            other => {
                fixed_within_bounds(other)?;
                0
            }
        } + 1;
        if let Some(name) = schema.name() {
            self.heights.insert(name, height);
        }
        Ok(height)
    }

    fn takes_bytes(&self, part: &str, schema: &Schema) -> Result<(), SchemaError> {
        let schema = match schema {
            Schema::Ref { name } => self.names.get(name).copied().unwrap_or(schema),
            other => other,
        };
        let empty = match schema {
            Schema::Null => true,
            Schema::Record(record) => record.fields.is_empty(),
            other => fixed_size(other) == Some(0),
        };
        if empty { Err(refused(format!("`{part}` takes no bytes"))) } else { Ok(()) }
    }
}

fn fixed_size(schema: &Schema) -> Option<usize> {
    match schema {
        Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Duration(fixed) => {
            Some(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
            InnerDecimalSchema::Bytes => None,
        },
        _ => None,
    }
}

fn fixed_within_bounds(schema: &Schema) -> Result<(), SchemaError> {
    match fixed_size(schema) {
        Some(size) if size > FIXED_BYTES_MAX => {
            Err(refused(format!("a fixed type of {size} bytes, at most {FIXED_BYTES_MAX} are allowed")))
        }
        _ => Ok(()),
    }
}

fn refused(mut detail: String) -> SchemaError {
    // It names parts of the schema, and those may be of any length.
    detail.truncate(detail.floor_char_boundary(super::ERROR_BYTES_MAX));
    SchemaError::Unbounded(detail)
}
