//! Whether data of one version can be read with another.
//!
//! Stricter than Avro's resolution, and than apache-avro's own check: types must be equal, logical types included.
//! Promotions (int to long) go one way only, so they could never hold between all versions in both directions; and
//! the fast path, which reads a datum straight into the struct, does not promote.

use std::collections::HashSet;

use apache_avro::{
    Schema,
    schema::{Name, NamesRef, RecordField, RecordSchema, ResolvedSchema, SchemaKind, UuidSchema},
};

/// Every reason why `reader` cannot read all that `writer` writes; empty if it can.
#[must_use]
pub fn unreadable(writer: &Schema, reader: &Schema) -> Vec<String> {
    let (writer_names, reader_names) =
        match (ResolvedSchema::try_from(writer), ResolvedSchema::try_from(reader)) {
            (Ok(writer), Ok(reader)) => (writer, reader),
            (Err(error), _) | (_, Err(error)) => return vec![error.to_string()],
        };
    let mut compare = Compare {
        writer: writer_names.get_names(),
        reader: reader_names.get_names(),
        seen: HashSet::new(),
        problems: Vec::new(),
    };
    compare.types("", writer, reader);
    compare.problems
}

struct Compare<'a> {
    writer: &'a NamesRef<'a>,
    reader: &'a NamesRef<'a>,
    /// Pairs of named types compared already: ends recursion.
    seen: HashSet<(&'a Name, &'a Name)>,
    problems: Vec<String>,
}

impl<'a> Compare<'a> {
    fn problem(&mut self, at: &str, problem: impl std::fmt::Display) {
        self.problems.push(if at.is_empty() { problem.to_string() } else { format!("`{at}`: {problem}") });
    }

    fn types(&mut self, at: &str, writer: &'a Schema, reader: &'a Schema) {
        let (writer, reader) = (resolve(writer, self.writer), resolve(reader, self.reader));
        if let (Some(written), Some(read)) = (writer.name(), reader.name()) {
            if written != read {
                return self.problem(at, format!("type `{written}` was renamed to `{read}`"));
            }
            if !self.seen.insert((written, read)) {
                return;
            }
        }
        match (writer, reader) {
            (Schema::Record(writer), Schema::Record(reader)) => self.records(at, writer, reader),
            (Schema::Array(writer), Schema::Array(reader)) => self.types(at, &writer.items, &reader.items),
            (Schema::Map(writer), Schema::Map(reader)) => self.types(at, &writer.types, &reader.types),
            (Schema::Union(writer), Schema::Union(reader)) => {
                self.unions(at, writer.variants(), reader.variants())
            }
            (Schema::Enum(writer), Schema::Enum(reader)) => {
                for symbol in writer.symbols.iter().filter(|symbol| !reader.symbols.contains(symbol)) {
                    if reader.default.is_none() {
                        self.problem(
                            at,
                            format!("symbol `{symbol}` is not there and the enum has no default"),
                        );
                    }
                }
            }
            (Schema::Fixed(writer), Schema::Fixed(reader))
            | (Schema::Uuid(UuidSchema::Fixed(writer)), Schema::Uuid(UuidSchema::Fixed(reader))) => {
                if writer.size != reader.size {
                    self.problem(at, format!("has {} bytes, {} were written", reader.size, writer.size));
                }
            }
            (writer, reader) if same_plain_type(writer, reader) => {}
            (writer, reader) => self.problem(
                at,
                format!(
                    "its type was changed from {} to {}; add a field instead",
                    name_of(writer),
                    name_of(reader)
                ),
            ),
        }
    }

    fn records(&mut self, at: &str, writer: &'a RecordSchema, reader: &'a RecordSchema) {
        for field in &reader.fields {
            let at = if at.is_empty() { field.name.clone() } else { format!("{at}.{}", field.name) };
            match written_field(writer, field) {
                Some(written) => self.types(&at, &written.schema, &field.schema),
                None if field.default.is_none() => {
                    self.problem(&at, "was added or removed without a default; give it one");
                }
                None => {}
            }
        }
    }

    /// Each written branch must be read by some branch.
    fn unions(&mut self, at: &str, writer: &'a [Schema], reader: &'a [Schema]) {
        for written in writer {
            let of_kind = |candidate: &&Schema| {
                let (written, read) = (resolve(written, self.writer), resolve(candidate, self.reader));
                SchemaKind::from(written) == SchemaKind::from(read) && written.name() == read.name()
            };
            match reader.iter().find(of_kind) {
                Some(read) => self.types(at, written, read),
                None => {
                    let written = name_of(resolve(written, self.writer));
                    self.problem(at, format!("its union has no branch for {written}"));
                }
            }
        }
    }
}

/// The writer's field that is read into `field`: by name, else by the reader's aliases.
fn written_field<'a>(writer: &'a RecordSchema, field: &RecordField) -> Option<&'a RecordField> {
    let called = |name: &String| writer.fields.iter().find(|written| written.name == *name);
    called(&field.name).or_else(|| field.aliases.iter().find_map(called))
}

fn resolve<'a>(schema: &'a Schema, names: &NamesRef<'a>) -> &'a Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        other => other,
    }
}

/// Types without parts. Two of the same kind with parts (decimals, say) are equal only if they are the same.
fn same_plain_type(writer: &Schema, reader: &Schema) -> bool {
    writer == reader && !matches!(writer, Schema::Ref { .. })
}

fn name_of(schema: &Schema) -> String {
    match schema.name() {
        Some(name) => format!("`{name}`"),
        None => format!("{:?}", SchemaKind::from(schema)).to_lowercase(),
    }
}
