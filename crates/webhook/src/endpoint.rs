//! One call over HTTP: what is sent, what comes back, and nothing that does not end.

use std::{error::Error, sync::Arc, time::Duration};

use fleetlog_trust::CertificateFault;
use reqwest::{Response, Url, header, redirect};
use tokio::time::{Instant, timeout_at};

use crate::{
    Message, Subscription, SubscriptionError,
    address::{PrivateAddress, PublicOnly, of_system},
    subscription::{Checked, origin},
    text::{causes, chain},
};

/// How much of an answer's body is read, in bytes. Up to it the connection is used again, beyond it closed.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How much of it is kept for people, in bytes.
const BODY_START_BYTES: usize = 1 << 10;
/// How long an answer's body is read: what the status says is known without it.
const BODY_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a connection that is not used stays open. Below the idle time of common servers: a call on a connection that is
/// being closed has to be repeated.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// What an endpoint answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header `retry-after`, as it came.
    pub retry_after: Option<String>,
    /// Header `date`, as it came.
    pub date: Option<String>,
    /// Header `location`, as it came.
    pub location: Option<String>,
    /// How the body begins: at most 1 KiB.
    pub body_start: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The time was over.
    #[error("did not answer within {timeout_ms} ms")]
    Timeout {
        /// The subscription's `timeout_ms`.
        timeout_ms: u64,
    },
    /// Its certificate was refused.
    #[error("is not trusted: {fault} ({detail}); {}", .fault.remedy("the subscription's ca_file"))]
    Certificate {
        /// Why.
        fault: CertificateFault,
        /// The TLS library's words.
        detail: String,
    },
    /// No connection: its name is unknown, nobody listens, no TLS.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Something answered that does not speak HTTP.
    #[error("answered something that is no HTTP: {0}")]
    NotHttp(String),
    /// The connection broke before the answer was there.
    #[error("broke off the call: {0}")]
    BrokenOff(String),
    /// It lies where no calls are made to. Nothing was sent.
    #[error("is not called: {0}; if that is meant, allow private addresses in the subscription")]
    PrivateAddress(PrivateAddress),
}

/// Where calls go. Keeps connections open between them.
#[derive(Debug)]
pub(crate) struct Endpoint {
    http: reqwest::Client,
    url: Url,
    timeout_ms: u64,
    /// Its address is written out and not public; no resolver is asked about such.
    refused: Option<PrivateAddress>,
}

impl Endpoint {
    /// Does not connect yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(subscription: &Subscription, checked: Checked) -> Result<Self, SubscriptionError> {
        let timeout_ms = subscription.timeout_ms;
        let mut http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            // A proxy would look up the name itself, past the resolver below.
            .no_proxy()
            .referer(false)
            .pool_idle_timeout(IDLE_TIME_MAX)
            // Shared among the addresses of a name, so that one that is silent does not use up the time of the others.
            .connect_timeout(Duration::from_millis(timeout_ms));
        http = checked.authorities.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        if !subscription.allow_private {
            http = http.dns_resolver(Arc::new(PublicOnly::new(of_system)));
        }
        let http =
            http.build().map_err(|error| SubscriptionError::tls(&subscription.name, &chain(&error)))?;
        let literal = checked.url.host_str().and_then(PrivateAddress::of_literal);
        let refused = literal.filter(|_| !subscription.allow_private);
        Ok(Self { http, url: checked.url, timeout_ms, refused })
    }

    /// What of its address may be shown: scheme, host and port.
    pub(crate) fn origin(&self) -> String {
        origin(&self.url)
    }

    /// Makes one call. Takes the subscription's `timeout_ms` at most.
    ///
    /// # Errors
    /// When no answer came back: [`NoAnswer`]. An answer of whatever status is one.
    pub(crate) async fn call(&self, message: &Message) -> Result<Answer, NoAnswer> {
        if let Some(refused) = &self.refused {
            return Err(NoAnswer::PrivateAddress(refused.clone()));
        }
        let timeout = NoAnswer::Timeout { timeout_ms: self.timeout_ms };
        let deadline = Instant::now() + Duration::from_millis(self.timeout_ms);
        let mut request = self.http.post(self.url.clone()).body(message.body.clone());
        for (name, value) in &message.headers {
            request = request.header(*name, value);
        }
        let sent = timeout_at(deadline, request.send()).await.map_err(|_| timeout)?;
        let mut response = sent.map_err(|error| self.no_answer(&error.without_url()))?;
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after: header(header::RETRY_AFTER),
            date: header(header::DATE),
            location: header(header::LOCATION),
            body_start: Vec::new(),
        };
        let body = read_body(&mut response, &mut answer.body_start);
        // What is there when the time is over is kept.
        let _ = timeout_at(deadline.min(Instant::now() + BODY_TIME_MAX), body).await;
        Ok(answer)
    }

    fn no_answer(&self, error: &reqwest::Error) -> NoAnswer {
        if let Some(refused) = PrivateAddress::in_chain(error) {
            return NoAnswer::PrivateAddress(refused.clone());
        }
        let detail = chain(error);
        if let Some(fault) = CertificateFault::in_chain(error) {
            return NoAnswer::Certificate { fault, detail };
        }
        if error.is_connect() {
            return NoAnswer::Unreachable(detail);
        }
        if error.is_timeout() {
            return NoAnswer::Timeout { timeout_ms: self.timeout_ms };
        }
        if is_no_http(error) { NoAnswer::NotHttp(detail) } else { NoAnswer::BrokenOff(detail) }
    }
}

/// Reads up to [`BODY_BYTES_MAX`] and keeps how it begins. A body that breaks off is one that ends.
async fn read_body(response: &mut Response, start: &mut Vec<u8>) {
    let mut read_bytes = 0;
    while read_bytes < BODY_BYTES_MAX {
        let Ok(Some(chunk)) = response.chunk().await else { return };
        read_bytes += chunk.len();
        let wanted = BODY_START_BYTES.saturating_sub(start.len()).min(chunk.len());
        start.extend_from_slice(&chunk[..wanted]);
    }
}

fn is_no_http(error: &(dyn Error + 'static)) -> bool {
    causes(error).filter_map(|error| error.downcast_ref()).any(hyper::Error::is_parse)
}
