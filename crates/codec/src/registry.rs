//! A schema registry that speaks the Confluent API (Confluent, Apicurio `ccompat`, Karapace).
//!
//! Subjects follow the TopicRecordNameStrategy: `<topic>-<full name>`, as several events share a topic.

use std::{fmt, sync::Arc, time::Duration};

use fleetlog_trust::CertificateFault;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::{Lookup, LookupError, SchemaSource, WriterSchema, builtin_schemas};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// The registry's own code for "there is no such schema". A 404 without it says that the address is wrong.
const SCHEMA_NOT_FOUND: u32 = 40403;
/// The same of a subject.
const SUBJECT_NOT_FOUND: u32 = 40401;

/// How to prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// User and password (or API key and secret).
    Basic(String, String),
    /// A token.
    Bearer(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(user, _) => write!(f, "Basic({user}, …)"),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

/// Where the registry is.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Base address, such as `http://registry:8081`; may carry `user:password@`.
    pub url: String,
    /// Credentials; they win over those in the address.
    pub auth: Option<RegistryAuth>,
    /// Who may have signed the server's certificate (PEM), beside those whom the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// How long one request may take, in milliseconds.
    pub timeout_ms: u64,
}

impl RegistrySettings {
    /// No credentials but the address's own, 5 s a request.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), auth: None, ca_pem: None, timeout_ms: 5000 }
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url =
            parse_url(&self.url).map_or_else(|_| "(not an address)".to_owned(), |(url, _)| url.to_string());
        let Self { auth, timeout_ms, ca_pem, .. } = self;
        f.debug_struct("RegistrySettings")
            .field("url", &url)
            .field("auth", auth)
            .field("has_ca", &ca_pem.is_some())
            .field("timeout_ms", timeout_ms)
            .finish()
    }
}

/// Why the registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The address is none.
    #[error("registry.url is no http or https address: {0}")]
    Settings(String),
    /// The certificates to trust are none.
    #[error("registry.ca_file holds no certificates (PEM): {0}")]
    Trust(String),
    /// No answer, or one that says nothing about the schema: wait and ask again.
    #[error("the schema registry does not answer: {0}")]
    Unavailable(String),
    /// It will not take the schema.
    #[error("the schema registry refused subject `{subject}`: {detail}")]
    Refused {
        /// The subject.
        subject: String,
        /// What it said.
        detail: String,
    },
    /// There is no event of that name.
    #[error("`{0}` has no schema file under schemas/")]
    NoSchema(String),
}

/// The subject of event `name` (full name) on a topic (physical name).
#[must_use]
pub fn subject(physical_topic: &str, name: &str) -> String {
    format!("{physical_topic}-{name}")
}

/// A client of the registry. Does not remember anything: [`Decoder`](crate::Decoder) and
/// [`Encoder`](crate::Encoder) do.
#[derive(Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
    url: Url,
    auth: Option<RegistryAuth>,
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryClient({})", self.url)
    }
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: u32,
    #[serde(default)]
    message: String,
}

/// An answer that is no success: its status, and what its body says.
struct Failure {
    status: StatusCode,
    code: u32,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}: {}", self.status.as_u16(), self.message)
    }
}

impl RegistryClient {
    /// A client; does not connect yet.
    ///
    /// # Errors
    /// When the address is none, or TLS cannot be set up.
    pub fn new(settings: &RegistrySettings) -> Result<Self, RegistryError> {
        let (url, own_auth) = parse_url(&settings.url)?;
        let mut http = reqwest::Client::builder();
        if let Some(pem) = &settings.ca_pem {
            let read = reqwest::Certificate::from_pem_bundle(pem);
            let read = read.map_err(|error| RegistryError::Trust(chain(&error)))?;
            http = read.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = http
            .timeout(Duration::from_millis(settings.timeout_ms))
            .user_agent(concat!("fleetlog/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| RegistryError::Settings(chain(&error)))?;
        Ok(Self { http, url, auth: settings.auth.clone().or(own_auth) })
    }

    /// Registers every version of event `name` (full name) for a topic, oldest first; the id of the newest.
    /// Registering again is harmless: the registry answers with the same id.
    ///
    /// # Errors
    /// When the registry cannot be reached, or refuses a version.
    pub async fn register(&self, physical_topic: &str, name: &str) -> Result<u32, RegistryError> {
        let subject = subject(physical_topic, name);
        let mut id = None;
        for version in builtin_schemas().iter().filter(|schema| schema.name() == name) {
            id = Some(self.register_text(&subject, version.json()).await?);
        }
        id.ok_or_else(|| RegistryError::NoSchema(name.to_owned()))
    }

    /// The id of event `name`'s newest schema in a topic's subject; none if the registry does not have it there.
    /// Changes nothing.
    ///
    /// # Errors
    /// When the registry cannot be reached, or answers with anything else.
    pub async fn registered(&self, physical_topic: &str, name: &str) -> Result<Option<u32>, RegistryError> {
        let newest = crate::newest(name).ok_or_else(|| RegistryError::NoSchema(name.to_owned()))?;
        let subject = subject(physical_topic, name);
        let body = serde_json::json!({ "schema": newest.json() });
        match self.request::<IdAnswer>(Method::POST, &["subjects", &subject], Some(&body)).await? {
            Ok(answer) => Ok(Some(answer.id)),
            Err(failure) if matches!(failure.code, SUBJECT_NOT_FOUND | SCHEMA_NOT_FOUND) => Ok(None),
            Err(failure) => Err(self.unavailable(&failure)),
        }
    }

    async fn register_text(&self, subject: &str, json: &str) -> Result<u32, RegistryError> {
        let body = serde_json::json!({ "schema": json });
        match self.request::<IdAnswer>(Method::POST, &["subjects", subject, "versions"], Some(&body)).await? {
            Ok(answer) => Ok(answer.id),
            Err(failure) if matches!(failure.status.as_u16(), 409 | 422) => {
                Err(RegistryError::Refused { subject: subject.to_owned(), detail: failure.to_string() })
            }
            Err(failure) => Err(self.unavailable(&failure)),
        }
    }

    async fn schema_by_id(&self, id: u32) -> Result<Arc<WriterSchema>, LookupError> {
        let not_found = |detail: String| LookupError::NotFound(format!("schema id {id}: {detail}"));
        let answer =
            self.request::<SchemaAnswer>(Method::GET, &["schemas", "ids", &id.to_string()], None).await;
        let answer = match answer.map_err(|error| LookupError::Unavailable(error.to_string()))? {
            Ok(answer) => answer,
            Err(failure) if failure.code == SCHEMA_NOT_FOUND => {
                return Err(not_found(format!("{} does not have it ({})", self.url, failure.message)));
            }
            Err(failure) => return Err(LookupError::Unavailable(self.unavailable(&failure).to_string())),
        };
        if let Some(other) = answer.schema_type.filter(|schema_type| schema_type != "AVRO") {
            return Err(not_found(format!("is a schema of type {other}, events are Avro")));
        }
        if !answer.references.is_empty() {
            return Err(not_found(
                "refers to other subjects; register it with its types in one text".to_owned(),
            ));
        }
        WriterSchema::parse(&answer.schema).map_err(|error| not_found(error.to_string()))
    }

    async fn request<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&serde_json::Value>,
    ) -> Result<Result<T, Failure>, RegistryError> {
        let unanswered = |error: reqwest::Error| {
            let error = error.without_url();
            let remedy = CertificateFault::in_chain(&error)
                .map_or_else(String::new, |fault| format!("{fault}: {}; ", fault.remedy("registry.ca_file")));
            RegistryError::Unavailable(format!("{}: {remedy}{}", self.url, chain(&error)))
        };
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url).header("accept", CONTENT_TYPE);
        request = match &self.auth {
            Some(RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            Some(RegistryAuth::Bearer(token)) => request.bearer_auth(token),
            None => request,
        };
        if let Some(body) = body {
            request = request.header("content-type", CONTENT_TYPE).body(body.to_string());
        }
        let answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unanswered)?;
        if status.is_success() {
            return serde_json::from_slice(&body).map(Ok).map_err(|error| {
                RegistryError::Unavailable(format!(
                    "{}: an answer that is none of a schema registry: {error}",
                    self.url
                ))
            });
        }
        let (code, message) = match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) => (answer.error_code, answer.message),
            Err(_) => (0, "an answer that is none of a schema registry".to_owned()),
        };
        Ok(Err(Failure { status, code, message }))
    }

    fn unavailable(&self, failure: &Failure) -> RegistryError {
        let hint = match failure.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check the credentials of registry.url",
            StatusCode::NOT_FOUND => "; check the path of registry.url",
            _ => "",
        };
        RegistryError::Unavailable(format!("{}: {failure}{hint}", self.url))
    }
}

impl SchemaSource for RegistryClient {
    fn by_id(&self, id: u32) -> Lookup<'_> {
        Box::pin(self.schema_by_id(id))
    }
    fn by_fingerprint(&self, fingerprint: u64) -> Lookup<'_> {
        let detail = format!("schema fingerprint {fingerprint:016x}: a registry finds schemas by id only");
        Box::pin(async { Err(LookupError::NotFound(detail)) })
    }
}

/// The address without credentials, and the credentials in it.
fn parse_url(text: &str) -> Result<(Url, Option<RegistryAuth>), RegistryError> {
    // The text itself may hold a password: it is not repeated.
    let mut url = Url::parse(text).map_err(|error| RegistryError::Settings(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(RegistryError::Settings(format!("its scheme is `{}`", url.scheme())));
    }
    let auth = (!url.username().is_empty()).then(|| {
        RegistryAuth::Basic(percent_decoded(url.username()), percent_decoded(url.password().unwrap_or("")))
    });
    // These fail only for addresses without a host, which http always has.
    let _ = (url.set_username(""), url.set_password(None));
    Ok((url, auth))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = (*byte == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error with its causes: reqwest's own text names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
#[path = "registry/tests.rs"]
mod tests;
