//! Goes over a datum before it is read, without making anything of it.
//!
//! apache-avro reads data of foreign schemas into a tree of values, and believes what a datum claims: it reserves room
//! for as many items as a block says it has, and takes the end of the data for a null where a union, a text or a
//! boolean belongs. Three bytes could claim a million items of nulls, and a datum that was cut short could pass as a
//! whole one. So every length is compared with what is left, and the tree's size in memory is bounded.

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, NamesRef, UuidSchema},
    types::Value,
};

/// Most bytes of memory that the tree of one datum may take: an event of 1 MB with fields of a few bytes each.
pub(crate) const TREE_BYTES_MAX: usize = 32 << 20;

/// Why a datum is none of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SkimError {
    #[error("it ends too early")]
    CutShort,
    #[error("a length or count of {0}, more than there are bytes left")]
    Claims(i64),
    #[error("a number has more than 64 bits")]
    LongNumber,
    #[error("branch {0} of a union that does not have it")]
    NoBranch(i64),
    #[error("its values would take more than {TREE_BYTES_MAX} bytes of memory")]
    TooLarge,
    #[error("a type of its schema is not defined")]
    NoType,
}

/// What is left over after the datum at the beginning of `bytes`. The schema is within bounds (`check_bounds`): its
/// depth is limited, and every item of an array takes a byte at least.
pub(crate) fn skim<'a>(
    schema: &Schema,
    names: &NamesRef<'_>,
    bytes: &'a [u8],
) -> Result<&'a [u8], SkimError> {
    let mut skim = Skim { names, rest: bytes, tree_bytes: 0 };
    skim.value(schema)?;
    Ok(skim.rest)
}

struct Skim<'s, 'a> {
    names: &'s NamesRef<'s>,
    rest: &'a [u8],
    /// What the tree takes so far.
    tree_bytes: usize,
}

impl Skim<'_, '_> {
    fn value(&mut self, schema: &Schema) -> Result<(), SkimError> {
        self.takes(size_of::<Value>())?;
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => self.pass(1),
            Schema::Float => self.pass(4),
            Schema::Double => self.pass(8),
            Schema::Int
            | Schema::Long
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.number().map(|_| ()),
            Schema::Bytes
            | Schema::String
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::String | UuidSchema::Bytes) => self.bytes(),
            Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Duration(fixed) => {
                self.fixed(fixed.size)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => self.fixed(fixed.size),
                InnerDecimalSchema::Bytes => self.bytes(),
            },
            Schema::Enum(symbols) => {
                let symbol = usize::try_from(self.number()?).ok().and_then(|n| symbols.symbols.get(n));
                // One that is not there is named by the reader.
                self.takes(symbol.map_or(0, String::len))
            }
            Schema::Array(array) => self.blocks(|skim| skim.value(&array.items)),
            Schema::Map(map) => self.blocks(|skim| {
                // A table of entries is at most twice as large as they are.
                skim.takes(2 * size_of::<(String, Value)>())?;
                skim.bytes()?;
                skim.value(&map.types)
            }),
            Schema::Union(union) => {
                let branch = self.number()?;
                let variant = usize::try_from(branch).ok().and_then(|n| union.variants().get(n));
                self.value(variant.ok_or(SkimError::NoBranch(branch))?)
            }
            Schema::Record(record) => record.fields.iter().try_for_each(|field| {
                self.takes(size_of::<String>() + field.name.len())?;
                self.value(&field.schema)
            }),
            Schema::Ref { name } => {
                let named = self.names.get(name).copied().ok_or(SkimError::NoType)?;
                self.value(named)
            }
        }
    }

    fn takes(&mut self, tree_bytes: usize) -> Result<(), SkimError> {
        self.tree_bytes = self.tree_bytes.saturating_add(tree_bytes);
        if self.tree_bytes > TREE_BYTES_MAX { Err(SkimError::TooLarge) } else { Ok(()) }
    }

    fn pass(&mut self, bytes: usize) -> Result<(), SkimError> {
        self.rest = self.rest.get(bytes..).ok_or(SkimError::CutShort)?;
        Ok(())
    }

    fn fixed(&mut self, bytes: usize) -> Result<(), SkimError> {
        self.takes(bytes)?;
        self.pass(bytes)
    }

    fn bytes(&mut self) -> Result<(), SkimError> {
        let length = self.number()?;
        let length = self.within(length)?;
        self.fixed(length)
    }

    /// Arrays and maps come in blocks: a count (negative: then the block's size in bytes follows), the items; a count of
    /// 0 ends them.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), SkimError>) -> Result<(), SkimError> {
        loop {
            let count = self.number()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.number()?;
            }
            let count = count.checked_abs().ok_or(SkimError::LongNumber)?;
            for _ in 0..self.within(count)? {
                item(self)?;
            }
        }
    }

    fn within(&self, claimed: i64) -> Result<usize, SkimError> {
        usize::try_from(claimed).ok().filter(|n| *n <= self.rest.len()).ok_or(SkimError::Claims(claimed))
    }

    /// A zigzag varint.
    fn number(&mut self) -> Result<i64, SkimError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(SkimError::CutShort)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(SkimError::LongNumber)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use apache_avro::{schema::ResolvedSchema, writer::datum::GenericDatumWriter};

    use super::*;
    use crate::compat::{Random, builtin_texts};

    fn skimmed<'a>(json: &str, bytes: &'a [u8]) -> Result<&'a [u8], SkimError> {
        let schema = Schema::parse_str(json).unwrap();
        let resolved = ResolvedSchema::try_from(&schema).unwrap();
        skim(&schema, resolved.get_names(), bytes)
    }

    #[test]
    fn every_datum_of_ours_is_passed_to_its_end_and_no_shorter_one_is() {
        let mut random = Random::new(3);
        for text in builtin_texts() {
            let schema = Schema::parse_str(&text.json).unwrap();
            let resolved = ResolvedSchema::try_from(&schema).unwrap();
            let writer = GenericDatumWriter::builder(&schema).build().unwrap();
            for whole in [true, false] {
                let mut datum = Vec::new();
                writer.write_value_ref(&mut datum, &random.value(&schema, whole).unwrap()).unwrap();
                let longer = [&datum[..], b"rest"].concat();
                assert_eq!(skim(&schema, resolved.get_names(), &longer), Ok(&b"rest"[..]), "{}", text.path);
                for length in 0..datum.len() {
                    let cut = skim(&schema, resolved.get_names(), &datum[..length]);
                    assert!(cut.is_err(), "{}: {length} of {} bytes", text.path, datum.len());
                }
            }
        }
    }

    #[test]
    fn what_a_datum_claims_is_not_believed() {
        let array = |items: &str| format!(r#"{{"type":"array","items":{items}}}"#);
        // A million items, and no byte of them: read, they would be a million nulls.
        let million = [0x80, 0x89, 0x7a];
        let nullable = r#"["null","long"]"#;
        assert_eq!(skimmed(&array(nullable), &million), Err(SkimError::Claims(1_000_000)));
        assert_eq!(skimmed(&array("\"boolean\""), &[2]), Err(SkimError::Claims(1)));
        assert_eq!(skimmed("\"string\"", &[0x7f]), Err(SkimError::Claims(-64)));
        assert_eq!(skimmed("\"bytes\"", &[0xff; 11]), Err(SkimError::LongNumber));
        assert_eq!(skimmed(nullable, &[6, 0]), Err(SkimError::NoBranch(3)));
        assert_eq!(skimmed(nullable, &[]), Err(SkimError::CutShort));
        let smallest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert_eq!(skimmed(&array("\"int\""), &smallest), Err(SkimError::LongNumber));
    }

    #[test]
    fn a_tree_that_would_fill_the_memory_is_refused() {
        let name = "n".repeat(100_000);
        let json = format!(
            r#"{{"type":"array","items":{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"boolean"}}]}}}}"#
        );
        let mut datum = vec![0xd0, 0x0f]; // 1,000 items
        datum.extend([1; 1_000]);
        datum.push(0);
        assert_eq!(skimmed(&json, &datum), Err(SkimError::TooLarge));
    }
}
