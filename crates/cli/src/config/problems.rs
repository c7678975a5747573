//! Finds every problem of the settings at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use figment::{
    Figment,
    providers::{Format, Toml},
    value::{Dict, Value},
};

use super::{
    Config, DEFAULT_TOML, ENVIRONMENT, Loaded, Setting, Variable,
    addresses::put_together,
    files,
    kinds::{among_choices, fit, shown},
    leaves, relations, task_watch, webhooks,
};

/// The settings are not usable: every problem, each with its place.
#[derive(Debug)]
pub(crate) struct ConfigError(Vec<Problem>);

#[derive(Debug)]
struct Problem {
    place: String,
    what: String,
}

impl ConfigError {
    pub(super) fn one(place: &str, what: String) -> Self {
        Self(vec![Problem { place: place.to_owned(), what }])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {plural} in the settings:", self.0.len())?;
        for Problem { place, what } in &self.0 {
            write!(f, "\n  {place}: {what}")?;
        }
        f.write_str("\nevery key with its default: fleetlog config show --defaults")
    }
}

impl std::error::Error for ConfigError {}

/// Keys below this one are free: they are handed to librdkafka.
pub(super) const FREE: &str = "kafka.properties.";

/// Checks all there is to check, each value for itself and then the values with each other. Where a value is wrong the
/// default stands in for it, so that one problem does not hide the next.
pub(super) fn check(figment: &Figment) -> Result<Loaded, ConfigError> {
    let dict = extract(figment)?;
    let all = values(figment, &dict);
    let mut reading = Reading::new(figment, &all)?;
    reading.name_sections(&dict)?;
    for (key, value) in &reading.defaults {
        put(&mut reading.clean, key, value.clone());
    }
    for (key, value) in &all {
        reading.take(key, value);
    }
    reading.end()
}

/// What is known while the settings are read.
struct Reading<'a> {
    figment: &'a Figment,
    /// All values as they are set, by their keys.
    all: &'a BTreeMap<String, Value>,
    /// Every key that exists.
    defaults: BTreeMap<String, Value>,
    /// Begins of keys below sections whose names are refused.
    nameless: Vec<String>,
    clean: Dict,
    /// Where each key's value comes from; of a webhook also where its section does.
    sources: BTreeMap<String, String>,
    /// Keys whose own values are refused: what stands in for one is not judged.
    refused: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Reading<'a> {
    fn new(figment: &'a Figment, all: &'a BTreeMap<String, Value>) -> Result<Self, ConfigError> {
        Ok(Self {
            figment,
            all,
            defaults: values_of(DEFAULT_TOML)?,
            nameless: Vec::new(),
            clean: Dict::new(),
            sources: BTreeMap::new(),
            refused: BTreeSet::new(),
            problems: Vec::new(),
        })
    }

    /// The keys of sections that need not be there exist from now on, where they are: those of each webhook that is named, and of
    /// the watch.
    fn name_sections(&mut self, dict: &Dict) -> Result<(), ConfigError> {
        let (of_webhooks, of_watch): (Vec<_>, Vec<_>) = values_of(&webhooks::examples())?
            .into_iter()
            .partition(|(key, _)| key.starts_with(webhooks::BELOW));
        if let Some(section @ Value::Dict(..)) = dict.get(task_watch::SECTION) {
            self.sources.insert(task_watch::SECTION.to_owned(), self.place_of(task_watch::SECTION, section));
            self.defaults.extend(of_watch);
        }
        let keys = || of_webhooks.iter().filter_map(|(key, value)| Some((key.rsplit_once('.')?.1, value)));
        for (name, section) in webhooks::sections(dict) {
            let key = format!("{}{name}", webhooks::BELOW);
            let (below, place) = (format!("{key}."), self.place_of(&key, section));
            if let Some(remedy) = webhooks::name_problem(name) {
                let what = format!("`{key}` has a name that no webhook can have: {remedy}");
                self.problems.push(Problem { place, what });
                self.nameless.push(below);
                continue;
            }
            self.sources.insert(key, place);
            self.defaults.extend(keys().map(|(key, value)| (format!("{below}{key}"), value.clone())));
        }
        Ok(())
    }

    /// Where a section comes from: from where the first of its keys does.
    fn place_of(&self, key: &str, section: &Value) -> String {
        let below = format!("{key}.");
        let first = self.all.range(below.clone()..).next().filter(|(key, _)| key.starts_with(&below));
        let (of, value) = first.map_or((key, section), |(of, value)| (of.as_str(), value));
        place(self.figment, of, value)
    }

    /// Takes timeouts by type that are written as one text.
    fn take_timeouts(&mut self, text: &str, place: &str) {
        match task_watch::timeouts_of(text) {
            Ok(timeouts) => {
                for (task_type, ms) in timeouts {
                    let key = format!("{}{task_type}", task_watch::TIMEOUTS_BELOW);
                    put(&mut self.clean, &key, Value::from(ms));
                    self.sources.insert(key, place.to_owned());
                }
            }
            Err(what) => {
                let what = format!("`{}` {what}", task_watch::TIMEOUTS);
                self.problems.push(Problem { place: place.to_owned(), what });
                self.refused.insert(task_watch::TIMEOUTS.to_owned());
            }
        }
    }

    /// Takes a value that is set, or refuses it.
    fn take(&mut self, key: &str, value: &Value) {
        if self.nameless.iter().any(|below| key.starts_with(below)) {
            return;
        }
        let (mut key, mut value, mut place) =
            (key.to_owned(), value.clone(), place(self.figment, key, value));
        if let (task_watch::TIMEOUTS, Value::String(_, text)) = (key.as_str(), &value) {
            return self.take_timeouts(text, &place);
        }
        match self.in_file(&key, &value) {
            InFile::No => {}
            InFile::NotSet => return,
            InFile::Given(base, text, path) => {
                (key, value, place) = (base, Value::from(text), format!("file {path} ({place})"));
            }
            InFile::Wrong(base, what) => {
                self.problems.push(Problem { place, what });
                self.refused.insert(base);
                return;
            }
        }
        let is_text_only = is_of_environment(self.figment, &value);
        let is_timeout = key.starts_with(task_watch::TIMEOUTS_BELOW);
        let fitting = match unknown(&self.defaults, &key) {
            Some(problem) => Err(problem),
            None if is_timeout && is_text_only => Err(task_watch::no_variable(&key)),
            None => {
                let default = if is_timeout { Some(&Value::from(0_u64)) } else { self.defaults.get(&key) };
                fit(default, &value, is_text_only)
                    .and_then(|fitting| {
                        among_choices(&key, fitting.as_ref().unwrap_or(&value)).map(|()| fitting)
                    })
                    .map_err(|expected| format!("`{key}` is {}, expected {expected}", shown(&value)))
            }
        };
        match fitting {
            Ok(corrected) => put(&mut self.clean, &key, corrected.unwrap_or(value)),
            Err(what) => {
                self.problems.push(Problem { place: place.clone(), what });
                self.refused.insert(key.clone());
            }
        }
        self.sources.insert(key, place);
    }

    /// `redis.password_file` gives `redis.password` what the file holds: so with every text, and with what librdkafka is
    /// handed.
    fn in_file(&self, key: &str, value: &Value) -> InFile {
        let Some(base) = key.strip_suffix("_file").filter(|_| !self.defaults.contains_key(key)) else {
            return InFile::No;
        };
        let is_text = base.starts_with(FREE) || matches!(self.defaults.get(base), Some(Value::String(..)));
        let (true, Value::String(_, path)) = (is_text, value) else { return InFile::No };
        if path.is_empty() {
            return InFile::NotSet;
        }
        let is_set =
            |value: &Value| place(self.figment, base, value) != "default" && value.as_str() != Some("");
        if self.all.get(base).is_some_and(is_set) {
            let what = format!("`{key}` and `{base}` are both set: one of them would be for nothing");
            return InFile::Wrong(base.to_owned(), what);
        }
        match files::text_of(path) {
            Ok(text) => InFile::Given(base.to_owned(), text, path.clone()),
            Err(why) => InFile::Wrong(base.to_owned(), format!("`{key}` {why}")),
        }
    }

    /// Judges the values with each other.
    fn end(self) -> Result<Loaded, ConfigError> {
        let Self { clean, sources, refused, mut problems, .. } = self;
        let mut config = Value::from(clean.clone()).deserialize::<Config>().map_err(|errors| {
            let problem = |e: figment::Error| Problem { place: e.path.join("."), what: e.kind.to_string() };
            ConfigError(errors.into_iter().map(problem).collect())
        })?;
        let mut wrong = |key: &str, what: String| {
            let place = place_within(&sources, key).to_owned();
            problems.push(Problem { place, what: format!("`{key}` {what}") });
        };
        relations::check(&config, &mut wrong);
        webhooks::check(&config, &refused, &mut wrong);
        task_watch::check(&config, &refused, &mut wrong);
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        put_together(&mut config);
        let mut found = Vec::new();
        leaves("", &clean, &mut found);
        let setting = |(key, value): (String, Value)| Setting {
            source: sources.get(&key).map_or("default", String::as_str).to_owned(),
            value: serde_json::to_value(&value).unwrap_or_default(),
            key,
        };
        Ok(Loaded { config, settings: found.into_iter().map(setting).collect() })
    }
}

/// Where a key comes from. A section comes from where the first of its keys does, and what is not set in a section from where
/// that does.
fn place_within<'a>(sources: &'a BTreeMap<String, String>, key: &str) -> &'a str {
    let mut within = sources.range(key.to_owned()..).take_while(|(known, _)| known.starts_with(key));
    let section = || sources.get(key.rsplit_once('.')?.0);
    within.next().map(|(_, place)| place).or_else(section).map_or("settings", String::as_str)
}

/// Whether a key says in which file another one's value lies.
enum InFile {
    No,
    /// It does, and is empty.
    NotSet,
    /// The key that is given a value, the value, and the file.
    Given(String, String, String),
    /// The key that is given none, and why.
    Wrong(String, String),
}

/// How deep a variable's name may nest: deeper than any setting does.
const NESTING_MAX: usize = 16;
/// How much of such a variable's name a message shows, in characters.
const NAME_SHOWN_MAX: usize = 60;

/// Refuses names of variables that nest without end: what copies the settings recurses, and some thousand `__` in a name
/// would end the process without a word.
pub(super) fn check_nesting(variables: &[Variable]) -> Result<(), ConfigError> {
    let too_deep = variables.iter().filter(|variable| variable.key.matches('.').count() > NESTING_MAX);
    let problems: Vec<Problem> = too_deep
        .map(|variable| Problem {
            place: "the environment".to_owned(),
            what: format!(
                "`{}` nests deeper than {NESTING_MAX} levels, which no setting does",
                variable_name(&variable.key).chars().take(NAME_SHOWN_MAX).collect::<String>()
            ),
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
}

/// The variable of a key.
fn variable_name(key: &str) -> String {
    format!("FLEETLOG_{}", webhooks::without_hyphens(key).replace('.', "__").to_uppercase())
}

fn extract(figment: &Figment) -> Result<Dict, ConfigError> {
    figment.extract().map_err(|errors| {
        let problem = |e: figment::Error| Problem { place: source_of(&e), what: e.kind.to_string() };
        ConfigError(errors.into_iter().map(problem).collect())
    })
}

/// All values of a text in TOML by their keys.
fn values_of(toml: &str) -> Result<BTreeMap<String, Value>, ConfigError> {
    let figment = Figment::from(Toml::string(toml));
    Ok(values(&figment, &extract(&figment)?))
}

/// All values by their keys.
fn values(figment: &Figment, dict: &Dict) -> BTreeMap<String, Value> {
    let mut found = Vec::new();
    leaves("", dict, &mut found);
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    for (key, value) in found {
        // A property of librdkafka can come as one name with dots from a file, and as nested ones from the environment.
        let is_beaten = values.get(&key).is_some_and(|other| is_of_environment(figment, other));
        if !is_beaten {
            values.insert(key, value);
        }
    }
    values
}

/// Puts a value to its place. What is handed to librdkafka has dots in its names, and types of tasks may.
fn put(dict: &mut Dict, key: &str, value: Value) {
    let free = [FREE, task_watch::TIMEOUTS_BELOW].into_iter().find(|below| key.starts_with(below));
    let (sections, name) = match free {
        Some(below) => (below.trim_end_matches('.'), &key[below.len()..]),
        None => key.rsplit_once('.').unwrap_or(("", key)),
    };
    let mut place = dict;
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let entry = place.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
        if !matches!(entry, Value::Dict(..)) {
            *entry = Value::from(Dict::new());
        }
        let Value::Dict(_, inner) = entry else { return };
        place = inner;
    }
    place.insert(name.to_owned(), value);
}

fn source_of(error: &figment::Error) -> String {
    error.metadata.as_ref().map_or_else(
        || "settings".to_owned(),
        |m| match &m.source {
            Some(source) => source.to_string(),
            None => m.name.to_string(),
        },
    )
}

fn is_of_environment(figment: &Figment, value: &Value) -> bool {
    figment.get_metadata(value.tag()).is_some_and(|metadata| metadata.name == ENVIRONMENT)
}

/// Where a value came from: `default`, the file, or the variable's name.
fn place(figment: &Figment, key: &str, value: &Value) -> String {
    match figment.get_metadata(value.tag()) {
        Some(metadata) if metadata.name == ENVIRONMENT => variable_name(key),
        Some(metadata) => match &metadata.source {
            Some(source) => source.to_string(),
            None => "default".to_owned(),
        },
        None => "default".to_owned(),
    }
}

fn unknown(defaults: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    if key.starts_with(FREE) || key.starts_with(task_watch::TIMEOUTS_BELOW) || defaults.contains_key(key) {
        return None;
    }
    // Of a webhook's key the nearest is one of the same webhook.
    let section =
        key.rsplit_once('.').map(|(section, _)| section).filter(|_| key.starts_with(webhooks::BELOW));
    let is_near = |known: &str| match section {
        Some(section) => known.rsplit_once('.').is_some_and(|(other, _)| other == section),
        None => !known.starts_with(webhooks::BELOW),
    };
    let nearest = defaults
        .keys()
        .filter(|known| is_near(known))
        .map(|known| (distance(known, key), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
    let hint = match key {
        _ if webhooks::is_no_section(key) => ": a webhook is a section, [webhooks.NAME]",
        task_watch::SECTION => ": it is a section, [task_watch]",
        task_watch::TIMEOUTS => ": it is a table, such as { DELIVERY = 1800000 }",
        _ => &nearest,
    };
    Some(format!("unknown key `{key}`{hint}"))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
