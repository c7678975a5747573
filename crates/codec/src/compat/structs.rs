//! Whether the newest schema of an event is its struct, and whether every version is read into the struct as the
//! schemas say: the fast path (serde defaults, aliases, `#[serde(other)]`) against apache-avro's full resolution.

use std::collections::BTreeSet;

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use fleetlog_event::{DecodeOne, Event, EventSet, FleetEvent};

use super::{
    Random,
    files::File,
    shape::{Shape, shape_of},
};
use crate::schema::{parse_avro, with_names_of};

/// Random data tried per pair of versions.
const TRIES: u64 = 50;

/// What does not hold for event `name`, with the version it concerns.
pub(super) fn check(name: &str, versions: &[&File]) -> Vec<(u32, String)> {
    let mut problems = Vec::new();
    // Decoding picks the struct by name; that is all it is used for here.
    let _ = FleetEvent::decode(name, Check { versions, problems: &mut problems });
    problems
}

struct Check<'a> {
    versions: &'a [&'a File],
    problems: &'a mut Vec<(u32, String)>,
}

impl DecodeOne for Check<'_> {
    type Error = ();
    fn one<E: Event>(self) -> Result<E, ()> {
        let newest = self.versions.last().ok_or(())?;
        if let Err(problem) = check_struct::<E>(&newest.schema) {
            self.problems.push((newest.version, problem));
            return Err(());
        }
        for writer in self.versions {
            if let Err(problem) = check_reading::<E>(&writer.json, &newest.schema) {
                self.problems.push((writer.version, problem));
            }
        }
        for (what, json) in made_up_versions(&newest.json) {
            if let Err(problem) = check_reading::<E>(&json, &newest.schema) {
                self.problems.push((newest.version, format!("{what}: {problem}")));
            }
        }
        Err(())
    }
}

/// The schema and the struct have the same fields in the same order, the same types, the same symbols.
fn check_struct<E: Event>(schema: &Schema) -> Result<(), String> {
    let mut random = Random::new(1);
    let whole = random.value(schema, true)?;
    let event: E = fast(schema, &datum(schema, &whole)?)
        .map_err(|error| format!("struct `{}` does not read it: {error}", E::NAME))?;
    let json = serde_json::to_value(&event).map_err(|error| error.to_string())?;
    let shape = shape_of::<E>(&json).map_err(|error| error.to_string())?;
    check_shape("", schema, &json, &shape)?;
    for _ in 0..TRIES {
        let value = random.value(schema, false)?;
        let bytes = datum(schema, &value)?;
        let event: E =
            fast(schema, &bytes).map_err(|error| format!("the struct does not read {value:?}: {error}"))?;
        let writer = GenericDatumWriter::builder(schema).build().map_err(|error| error.to_string())?;
        let again = writer
            .write_ser_to_vec(&event)
            .map_err(|error| format!("the struct does not write it: {error}"))?;
        let again = GenericDatumReader::builder(schema)
            .build()
            .and_then(|reader| reader.read_value(&mut again.as_slice()))
            .map_err(|error| error.to_string())?;
        if again != value {
            return Err(format!("the struct changes data: {value:?} comes back as {again:?}"));
        }
    }
    Ok(())
}

/// Names and order of fields and symbols; types were checked by reading.
fn check_shape(at: &str, schema: &Schema, json: &serde_json::Value, shape: &Shape) -> Result<(), String> {
    match schema {
        Schema::Record(record) => {
            let in_schema: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
            let written: Vec<&str> =
                json.as_object().into_iter().flat_map(|object| object.keys()).map(String::as_str).collect();
            if in_schema != written {
                return Err(format!(
                    "{}the fields of `{}` are {in_schema:?}, those of the struct {written:?}",
                    place(at),
                    record.name
                ));
            }
            let names = record.fields.iter().flat_map(|field| field.aliases.iter().chain([&field.name]));
            let names: BTreeSet<&str> = names.map(String::as_str).collect();
            let read = shape.structs.get(record.name.name()).copied();
            let read = read
                .ok_or_else(|| format!("{}there is no struct called `{}`", place(at), record.name.name()))?;
            if names != read.iter().copied().collect() {
                return Err(format!(
                    "{}names and aliases of `{}` are {names:?}, those of the struct {read:?}",
                    place(at),
                    record.name
                ));
            }
            for field in &record.fields {
                check_shape(&field.name, &field.schema, &json[&field.name], shape)?;
            }
            Ok(())
        }
        Schema::Enum(symbols) => {
            let variants = shape.enums.get(symbols.name.name()).copied();
            let variants = variants
                .ok_or_else(|| format!("{}there is no enum called `{}`", place(at), symbols.name.name()))?;
            if symbols.symbols != variants {
                return Err(format!(
                    "{}the symbols of `{}` are {:?}, the variants {variants:?}",
                    place(at),
                    symbols.name,
                    symbols.symbols
                ));
            }
            Ok(())
        }
        Schema::Array(array) => check_shape(at, &array.items, &json[0], shape),
        Schema::Union(union) => {
            let variants = union.variants().iter().filter(|variant| !matches!(variant, Schema::Null));
            variants.into_iter().try_for_each(|variant| check_shape(at, variant, json, shape))
        }
        _ => Ok(()),
    }
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("`{at}`: ") }
}

/// What `writer_json` wrote is the same event by both ways of reading.
fn check_reading<E: Event>(writer_json: &str, newest: &Schema) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let writer = parse_avro(writer_json).map_err(|error| text(&error))?;
    let renamed = with_names_of(writer_json, newest)
        .and_then(|json| parse_avro(&json))
        .map_err(|error| text(&error))?;
    let full =
        GenericDatumReader::builder(&renamed).reader_schema(newest).build().map_err(|error| text(&error))?;
    let mut random = Random::new(2);
    for n in 0..TRIES {
        let value = random.value(&writer, n == 0)?;
        let bytes = datum(&writer, &value)?;
        let fast: E =
            fast(&writer, &bytes).map_err(|error| format!("the struct does not read {value:?}: {error}"))?;
        let full: E = full
            .read_value(&mut bytes.as_slice())
            .and_then(|value| apache_avro::from_value(&value))
            .map_err(|error| format!("the newest schema does not read {value:?}: {error}"))?;
        let (fast, full) = (serde_json::to_value(fast), serde_json::to_value(full));
        let (fast, full) = (fast.map_err(|error| text(&error))?, full.map_err(|error| text(&error))?);
        if fast != full {
            return Err(format!(
                "the struct reads {fast}, the schema says {full}; serde defaults, aliases and `#[serde(other)]` must \
                 agree with the schema's"
            ));
        }
    }
    Ok(())
}

/// Versions that nobody wrote yet: an older one without anything that has a default, and a newer one with a symbol
/// more in every enum.
fn made_up_versions(newest_json: &str) -> Vec<(&'static str, String)> {
    let Ok(newest) = serde_json::from_str::<serde_json::Value>(newest_json) else { return Vec::new() };
    let (mut without_defaults, mut with_symbols) = (newest.clone(), newest);
    // The head's named types are referred to elsewhere: only the event's own fields are left out.
    if let Some(fields) = without_defaults["fields"].as_array_mut() {
        fields.retain(|field| field.get("default").is_none());
    }
    add_symbols(&mut with_symbols);
    vec![
        ("written without the fields that have defaults", without_defaults.to_string()),
        ("written with enum symbols not known yet", with_symbols.to_string()),
    ]
}

fn add_symbols(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Array(parts) => parts.iter_mut().for_each(add_symbols),
        serde_json::Value::Object(object) => {
            if let Some(symbols) = object.get_mut("symbols").and_then(|symbols| symbols.as_array_mut()) {
                symbols.push("not_known_yet".into());
            }
            object.values_mut().for_each(add_symbols);
        }
        _ => {}
    }
}

fn datum(schema: &Schema, value: &Value) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let writer = GenericDatumWriter::builder(schema).build().map_err(|error| error.to_string())?;
    writer.write_value_ref(&mut bytes, value).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn fast<E: Event>(schema: &Schema, bytes: &[u8]) -> Result<E, apache_avro::Error> {
    GenericDatumReader::builder(schema).build()?.read_deser(&mut &*bytes)
}
