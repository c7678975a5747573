//! Writer schemas: compiled-in versions, and versions met on the way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use apache_avro::{
    Schema,
    rabin::Rabin,
    reader::datum::GenericDatumReader,
    schema::{NamesRef, ResolvedSchema},
    writer::datum::GenericDatumWriter,
};
use fleetlog_event::{Event, FleetEvent};

pub(crate) use self::{alias::with_names_of, bounds::check_bounds};

mod alias;
mod attributes;
mod bounds;
mod skim;

/// CRC-64-AVRO of a schema's canonical form; on the wire 8 bytes, little-endian.
pub type Fingerprint = u64;

/// Longest schema text that is read, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Most bytes that apache-avro reserves for what one length prefix claims, before it sees that the data is shorter.
/// More than any text of a payload within bounds has; for items of arrays of foreign schemas it is a limit of its own
/// (150,000 of them).
const ALLOCATION_BYTES_MAX: usize = 8 << 20;

/// Longest full name, in bytes: it stands in the reason of every record that is rejected.
const NAME_BYTES_MAX: usize = 400;

/// Longest text of an error, in bytes: apache-avro prints whole schemas.
const ERROR_BYTES_MAX: usize = 400;

/// A schema file compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaFile {
    /// Below `schemas/`, such as `robot/Connected.v1.avsc`.
    pub path: &'static str,
    /// Its text.
    pub json: &'static str,
}

static FILES: &[SchemaFile] = include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// Every schema file, sorted by path.
#[must_use]
pub fn builtin_files() -> &'static [SchemaFile] {
    FILES
}

/// Why a text is no schema that records can be read with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Not an Avro schema.
    #[error("not an Avro schema: {0}")]
    Invalid(String),
    /// Reading data with it could take unbounded time, stack or memory.
    #[error("the schema is refused: {0}")]
    Unbounded(String),
}

/// A schema that records were written with, ready to read them.
pub struct WriterSchema {
    name: String,
    fingerprint: Fingerprint,
    json: String,
    /// The version of our own file, if it is one.
    version: Option<u32>,
    schema: &'static Schema,
    /// The schema's named types.
    names: NamesRef<'static>,
    /// Reads a datum as it was written: straight into the struct for our own versions.
    pub(crate) plain: GenericDatumReader<'static>,
    /// Reads a datum into the newest version of our event; for versions that are not compiled in.
    pub(crate) resolving: Option<GenericDatumReader<'static>>,
}

impl std::fmt::Debug for WriterSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, fingerprint, version, .. } = self;
        write!(f, "WriterSchema({name}, version {version:?}, {fingerprint:016x})")
    }
}

impl WriterSchema {
    /// Reads a schema's JSON. A schema with the canonical form of a compiled-in one is that one.
    ///
    /// What is parsed is kept for the life of the process (once per distinct text): readers borrow from it.
    ///
    /// # Errors
    /// When it is no Avro schema, or one that hostile data could exhaust us with.
    pub fn parse(json: &str) -> Result<Arc<Self>, SchemaError> {
        static SEEN: LazyLock<Mutex<HashMap<String, Arc<WriterSchema>>>> = LazyLock::new(Mutex::default);
        let lock = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = lock().get(json) {
            return Ok(Arc::clone(seen));
        }
        let schema = parse_avro(json)?;
        let parsed = match builtin().by_fingerprint.get(&fingerprint_of(&schema)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Self::foreign(json, schema)?),
        };
        lock().insert(json.to_owned(), Arc::clone(&parsed));
        Ok(parsed)
    }

    /// The compiled-in schema with that fingerprint.
    #[must_use]
    pub fn builtin(fingerprint: Fingerprint) -> Option<Arc<Self>> {
        builtin().by_fingerprint.get(&fingerprint).cloned()
    }

    fn foreign(json: &str, schema: Schema) -> Result<Self, SchemaError> {
        check_bounds(&schema)?;
        let name_bytes = full_name(&schema).len();
        if name_bytes > NAME_BYTES_MAX {
            let detail = format!("its name has {name_bytes} bytes, at most {NAME_BYTES_MAX} are allowed");
            return Err(SchemaError::Unbounded(detail));
        }
        let newest = builtin().newest.get(full_name(&schema).as_str());
        let resolving = match newest {
            None => None,
            Some(newest) => {
                let renamed: &'static Schema = leak(parse_avro(&with_names_of(json, newest.schema)?)?);
                let reader = GenericDatumReader::builder(renamed).reader_schema(newest.schema).build();
                Some(reader.map_err(invalid)?)
            }
        };
        Self::new(json, leak(schema), None, resolving)
    }

    fn new(
        json: &str,
        schema: &'static Schema,
        version: Option<u32>,
        resolving: Option<GenericDatumReader<'static>>,
    ) -> Result<Self, SchemaError> {
        Ok(Self {
            name: full_name(schema),
            fingerprint: fingerprint_of(schema),
            json: json.to_owned(),
            version,
            schema,
            names: ResolvedSchema::try_from(schema).map_err(invalid)?.get_names().clone(),
            plain: GenericDatumReader::builder(schema).build().map_err(invalid)?,
            resolving,
        })
    }

    /// The record's full name, such as `fleetlog.robot.Connected`; the type's name for what is no record.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fingerprint of its canonical form.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its text, with defaults, aliases and docs.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Whether it is one of the compiled-in versions.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.version.is_some()
    }

    /// What is left over after the datum at the beginning of `bytes`, or why there is none.
    pub(crate) fn skim<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], skim::SkimError> {
        skim::skim(self.schema, &self.names, bytes)
    }

    /// Its version, if it is compiled in.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// As apache-avro sees it.
    #[must_use]
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }
}

/// The newest version of one event's schema, ready to write.
pub(crate) struct Newest {
    pub(crate) schema: &'static Schema,
    pub(crate) writer: GenericDatumWriter<'static>,
    pub(crate) written: Arc<WriterSchema>,
}

struct Builtin {
    by_fingerprint: HashMap<Fingerprint, Arc<WriterSchema>>,
    newest: HashMap<String, Newest>,
    all: Vec<Arc<WriterSchema>>,
}

#[expect(clippy::unwrap_used, reason = "the files are compiled in and tested")]
fn builtin() -> &'static Builtin {
    // Unwrap safety: constant input, parsed by a test of this crate.
    static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| Builtin::load(FILES).unwrap());
    &BUILTIN
}

impl Builtin {
    fn load(files: &[SchemaFile]) -> Result<Self, SchemaError> {
        let (mut by_fingerprint, mut newest) = (HashMap::new(), HashMap::new());
        let mut versions: BTreeMap<(String, u32), Arc<WriterSchema>> = BTreeMap::new();
        for file in files {
            let schema: &'static Schema = leak(parse_avro(file.json)?);
            let version = file_version(file.path).ok_or_else(|| {
                SchemaError::Invalid(format!("`{}` is not called <Event>.v<N>.avsc", file.path))
            })?;
            let written = Arc::new(WriterSchema::new(file.json, schema, Some(version), None)?);
            versions.insert((written.name.clone(), version), written);
        }
        // In the order of versions: the last one of a name stays as the newest.
        for ((name, _), written) in &versions {
            let writer = GenericDatumWriter::builder(written.schema).build().map_err(invalid)?;
            by_fingerprint.insert(written.fingerprint, Arc::clone(written));
            newest.insert(
                name.clone(),
                Newest { schema: written.schema, writer, written: Arc::clone(written) },
            );
        }
        Ok(Self { by_fingerprint, newest, all: versions.into_values().collect() })
    }
}

/// Every compiled-in version, by name and version.
#[must_use]
pub fn builtin_schemas() -> &'static [Arc<WriterSchema>] {
    &builtin().all
}

/// The schema that event `name` (full name) is written with.
#[must_use]
pub fn newest(name: &str) -> Option<Arc<WriterSchema>> {
    builtin().newest.get(name).map(|newest| Arc::clone(&newest.written))
}

/// The writer of event `E`.
pub(crate) fn newest_of<E: Event>() -> Option<&'static Newest> {
    builtin().newest.get(E::NAME)
}

/// Every event that can be written, with its newest schema.
pub(crate) fn newest_all() -> impl Iterator<Item = (&'static str, &'static Newest)> {
    FleetEvent::types().filter_map(|event| Some((event.name, builtin().newest.get(event.name)?)))
}

/// CRC-64-AVRO (Rabin) of the canonical form of a schema's JSON.
///
/// # Errors
/// When it is no Avro schema.
pub fn fingerprint(json: &str) -> Result<Fingerprint, SchemaError> {
    Ok(fingerprint_of(&parse_avro(json)?))
}

fn fingerprint_of(schema: &Schema) -> Fingerprint {
    // apache-avro 0.22 strips `logicalType` but leaves `{"type":"long"}` where the specification (and Java, fastavro)
    // say `"long"`; a second pass simplifies it. What does not parse again has no other form to give.
    let once = schema.canonical_form();
    let fingerprint = match Schema::parse_str(&once) {
        Ok(simplified) => simplified.fingerprint::<Rabin>(),
        Err(_) => schema.fingerprint::<Rabin>(),
    };
    // The digest's bytes are little-endian, as they stand in the single-object prefix.
    fingerprint.bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// `2` of `robot/Connected.v2.avsc`.
pub(crate) fn file_version(path: &str) -> Option<u32> {
    let (_, version) = path.strip_suffix(".avsc")?.rsplit_once(".v")?;
    version.parse().ok().filter(|n: &u32| n.to_string() == version && *n > 0)
}

/// Reads a schema's JSON. Nothing is read with apache-avro before this was called, so its limit, which the first caller
/// sets for the whole process, is ours.
pub(crate) fn parse_avro(json: &str) -> Result<Schema, SchemaError> {
    apache_avro::util::max_allocation_bytes(ALLOCATION_BYTES_MAX);
    if json.len() > SCHEMA_BYTES_MAX {
        let detail = format!("it has {} bytes, at most {SCHEMA_BYTES_MAX} are read", json.len());
        return Err(SchemaError::Unbounded(detail));
    }
    // What is no JSON is told by apache-avro, in its words.
    if let Ok(value) = serde_json::from_str(json) {
        attributes::check_attributes(&value)?;
    }
    Schema::parse_str(json).map_err(invalid)
}

fn full_name(schema: &Schema) -> String {
    match schema.name() {
        Some(name) => name.fullname(None),
        None => format!("{:?}", apache_avro::schema::SchemaKind::from(schema)).to_lowercase(),
    }
}

fn invalid(error: apache_avro::Error) -> SchemaError {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    SchemaError::Invalid(text)
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[cfg(test)]
#[path = "schema/tests.rs"]
mod tests;
