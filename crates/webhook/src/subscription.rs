//! What an endpoint is to be told, and how: as an operator writes it, and as it was checked.

use std::fmt;

use fleetlog_event::{EventSet, EventType, FleetEvent};
use reqwest::{Certificate, Url};

use crate::{address::PrivateAddress, signature::Secret, text::chain};

/// Longest name, in bytes: group and topics are named after it, and a topic may have 249.
const NAME_BYTES_MAX: usize = 64;
/// How long a call may take if nothing else is said, in milliseconds: Standard Webhooks, section "Request timeouts", has 15 to
/// 30 s.
pub const TIMEOUT_MS_DEFAULT: u64 = 15_000;
/// How long a call may take at most, in milliseconds: after it a handler's call is cut off (DESIGN §7, 60 s).
pub const TIMEOUT_MS_MAX: u64 = 60_000;

/// How an event is written into a call: CloudEvents' HTTP protocol binding, section 1.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The event and its attributes in one JSON object.
    #[default]
    Structured,
    /// Attributes in headers, the event alone as the body.
    Binary,
}

/// An endpoint's subscription. Its `Debug` shows neither secrets nor more of the address than scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Names it: lower-case letters, digits, hyphens. The handler's id is `webhook-<name>`.
    pub name: String,
    /// Where to: `https://` or `http://`, without credentials.
    pub url: String,
    /// Which event types: `Connected`, `robot.Connected` or `fleetlog.robot.Connected`; none stands for all.
    pub event_types: Vec<String>,
    /// Events of which sites, as `meta.site_uid` has them; none stands for all.
    pub sites: Vec<String>,
    /// Standard Webhooks secrets, `whsec_…`. All sign, the first one first: for a change of secrets, name the new one and the
    /// old one.
    pub secrets: Vec<String>,
    /// Whether it may do without secrets.
    pub allow_unsigned: bool,
    /// How events are written.
    pub mode: Mode,
    /// Whether the endpoint may lie inside a network: at loopback, private, link-local and other addresses that are not public.
    pub allow_private: bool,
    /// How long a call may take, from looking up the name to the answer, in milliseconds.
    pub timeout_ms: u64,
    /// Who may have signed the endpoint's certificate (PEM), beside those whom the system trusts.
    pub ca_pem: Option<Vec<u8>>,
}

impl Subscription {
    /// All events of all sites, structured, within [`TIMEOUT_MS_DEFAULT`]; without secrets, which have to be given or
    /// allowed to be absent.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            event_types: Vec::new(),
            sites: Vec::new(),
            secrets: Vec::new(),
            allow_unsigned: false,
            mode: Mode::default(),
            allow_private: false,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            ca_pem: None,
        }
    }

    /// Whether it can be carried out. Asks nobody: a name is not looked up.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn check(&self) -> Result<(), SubscriptionError> {
        self.checked().map(|_| ())
    }

    /// What is allowed, and perhaps not meant; one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Ok(url) = self.parsed_url() {
            if url.scheme() == "http" {
                let origin = origin(&url);
                warnings
                    .push(format!("{origin} is called without TLS: whoever is on the way reads the events"));
            }
            let refused = url.host_str().and_then(PrivateAddress::of_literal);
            if let Some(refused) = refused.filter(|_| !self.allow_private) {
                warnings
                    .push(format!("{refused}: no call will be made unless private addresses are allowed"));
            }
        }
        if self.secrets.is_empty() && self.allow_unsigned {
            warnings.push("calls are unsigned: a receiver cannot tell them from anybody else's".to_owned());
        }
        warnings
    }

    /// Whether it asks for events of the type of that full name, wherever they happened.
    #[must_use]
    pub fn asks_for(&self, full_name: &str) -> bool {
        self.event_types.is_empty() || self.event_types.iter().any(|text| is_called(full_name, text))
    }

    /// The same, read.
    pub(crate) fn checked(&self) -> Result<Checked, SubscriptionError> {
        let mut problems = Vec::new();
        self.check_name(&mut problems);
        let url = self.parsed_url().map_err(|problem| problems.push(problem)).ok();
        let event_types = self.read_event_types(&mut problems);
        let empty_sites = self.sites.iter().enumerate().filter(|(_, site)| site.is_empty());
        problems.extend(empty_sites.map(|(n, _)| {
            Problem::new(
                format!("sites[{n}]"),
                "",
                "name a site, or leave all sites out to be told of every one",
            )
        }));
        let secrets = self.read_secrets(&mut problems);
        if !(1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            let remedy = format!("give a time of 1 to {TIMEOUT_MS_MAX} ms");
            problems.push(Problem::new("timeout_ms", self.timeout_ms.to_string(), remedy));
        }
        let authorities = self.read_authorities(&mut problems);
        match url {
            Some(url) if problems.is_empty() => Ok(Checked { url, event_types, secrets, authorities }),
            _ => Err(SubscriptionError { name: self.name.clone(), problems }),
        }
    }

    fn check_name(&self, problems: &mut Vec<Problem>) {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(is_plain) {
            let remedy = format!("give 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens");
            problems.push(Problem::new("name", self.name.clone(), remedy));
        }
    }

    fn parsed_url(&self) -> Result<Url, Problem> {
        const REMEDY: &str = "give an address such as `https://example.com/events`";
        // The text itself may hold a password: only what was understood is repeated.
        let url = Url::parse(&self.url).map_err(|error| {
            let may_be_secret = self.url.contains(['@', '?']);
            let value = if may_be_secret { "(not shown)" } else { &self.url };
            Problem::new("url", value, format!("no address ({error}): {REMEDY}"))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Problem::new(
                "url",
                format!("{}:…", url.scheme()),
                format!("no http or https: {REMEDY}"),
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let remedy = "take user and password out of it: calls prove themselves by their signature";
            return Err(Problem::new("url", origin(&url), remedy));
        }
        Ok(url)
    }

    fn read_event_types(&self, problems: &mut Vec<Problem>) -> Vec<&'static str> {
        let mut read = Vec::new();
        for (n, text) in self.event_types.iter().enumerate() {
            match event_type(FleetEvent::TYPES, text) {
                Ok(event) => read.push(event.name),
                Err(remedy) => problems.push(Problem::new(format!("event_types[{n}]"), text.clone(), remedy)),
            }
        }
        read
    }

    fn read_secrets(&self, problems: &mut Vec<Problem>) -> Vec<Secret> {
        if self.secrets.is_empty() && !self.allow_unsigned {
            let remedy = "none is there: give one (`whsec_` and the base64 of 32 random bytes), or allow calls to be unsigned";
            problems.push(Problem::new("secrets", "", remedy));
        }
        let mut read = Vec::new();
        for (n, text) in self.secrets.iter().enumerate() {
            match Secret::parse(text) {
                Ok(secret) => read.push(secret),
                Err(error) => {
                    problems.push(Problem::new(format!("secrets[{n}]"), "(not shown)", error.to_string()));
                }
            }
        }
        read
    }

    fn read_authorities(&self, problems: &mut Vec<Problem>) -> Vec<Certificate> {
        let Some(pem) = &self.ca_pem else { return Vec::new() };
        let remedy = match Certificate::from_pem_bundle(pem) {
            Ok(read) if !read.is_empty() => return read,
            Ok(_) => "holds no certificate: give PEM".to_owned(),
            Err(error) => format!("no certificates in PEM: {}", chain(&error)),
        };
        problems.push(Problem::new("ca_pem", format!("({} bytes)", pem.len()), remedy));
        Vec::new()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).map_or_else(|_| "(no address)".to_owned(), |url| origin(&url));
        f.debug_struct("Subscription")
            .field("name", &self.name)
            .field("url", &url)
            .field("event_types", &self.event_types)
            .field("sites", &self.sites)
            .field("secrets", &self.secrets.len())
            .field("allow_unsigned", &self.allow_unsigned)
            .field("mode", &self.mode)
            .field("allow_private", &self.allow_private)
            .field("timeout_ms", &self.timeout_ms)
            .field("has_ca", &self.ca_pem.is_some())
            .finish()
    }
}

/// A subscription that can be carried out.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) url: Url,
    /// Full names; none stands for all.
    pub(crate) event_types: Vec<&'static str>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) authorities: Vec<Certificate>,
}

/// Why a subscription cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("webhook `{name}`: {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct SubscriptionError {
    /// The subscription's name.
    pub name: String,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
}

impl SubscriptionError {
    /// There is no client to be had with these authorities.
    pub(crate) fn tls(name: &str, detail: &str) -> Self {
        let remedy = format!("TLS cannot be set up ({detail}): look at the certificates that it names");
        Self { name: name.to_owned(), problems: vec![Problem::new("ca_pem", "(not shown)", remedy)] }
    }
}

/// One thing that is wrong with a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `event_types[1]`.
    pub field: String,
    /// What it is; what may be secret is not repeated.
    pub value: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    fn new(field: impl Into<String>, value: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, remedy } = self;
        write!(f, "{field} is `{value}`: {remedy}")
    }
}

/// Scheme, host and port of an address: what of it may be shown.
pub(crate) fn origin(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// An address as it may be shown to who knows it: scheme, host and port, and `/***` where there is more. What is no address with
/// a host may be anything, a secret too, and is not shown at all.
#[must_use]
pub fn shown_url(text: &str) -> String {
    let Some(url) = Url::parse(text).ok().filter(Url::has_host) else { return "***".to_owned() };
    let is_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    format!("{}{}", origin(&url), if is_more { "/***" } else { "" })
}

/// Whether that is one of an event type's names: the full one, or one shortened from the front.
fn is_called(full_name: &str, text: &str) -> bool {
    full_name.strip_suffix(text).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The one of `types` that is called so, in full or shortened as long as it is unique; else what to do.
fn event_type(types: &[EventType], text: &str) -> Result<EventType, String> {
    let found: Vec<&EventType> = types.iter().filter(|event| is_called(event.name, text)).collect();
    match found[..] {
        [event] => Ok(*event),
        [] => {
            let nearest = nearest(types, text).unwrap_or_default();
            Err(format!("there is no such event, the nearest is `{nearest}`; all: fleetlog schemas list"))
        }
        _ => {
            let names: Vec<&str> = found.iter().map(|event| event.name).collect();
            Err(format!("more than one event is called so, give one of {}", names.join(", ")))
        }
    }
}

/// The event type whose name, in any of its forms, takes the fewest changes to get to.
fn nearest(types: &[EventType], text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    let distance = |event: &EventType| {
        let without_product = event.name.trim_start_matches("fleetlog.");
        let forms = [event.name, without_product, event.short_name()];
        forms.iter().map(|form| strsim::osa_distance(&text, &form.to_lowercase())).min()
    };
    types.iter().min_by_key(|event| distance(event)).map(EventType::short_name)
}

#[cfg(test)]
mod tests;
