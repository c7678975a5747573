//! Why no broker answers. A question that waits in vain only says that time is up; the reason (a refused certificate, a wrong
//! password, nobody there) is told by the way, to whoever polls the client. Here somebody does.

use std::{
    fs,
    net::{TcpStream, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fleetlog_trust::CertificateFault;
use rdkafka::{
    ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{Producer as _, ProducerContext, ThreadedProducer},
};

use crate::{KafkaSettings, error_code};

/// Between two looks at what was told.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long looking at a broker's certificate may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// The setting that names whom brokers' certificates must be signed by.
const AUTHORITY: &str = "\"ssl.ca.location\" of [kafka.properties]";

/// Why the brokers do not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Of which kind.
    pub kind: TroubleKind,
    /// What was told, with the broker that it is about.
    pub text: String,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// A broker's certificate was refused.
    Certificate(CertificateFault),
    /// The brokers refused user, password or mechanism.
    Credentials,
    /// Nobody there, another protocol, or anything else that may pass.
    Connection,
}

impl Trouble {
    /// Whether waiting does not mend it.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        self.kind != TroubleKind::Connection
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.kind {
            TroubleKind::Certificate(fault) => fault.remedy(AUTHORITY),
            TroubleKind::Credentials => {
                "check sasl.mechanism, sasl.username and sasl.password in [kafka.properties]".to_owned()
            }
            TroubleKind::Connection => {
                "is it running, are kafka.brokers right, and is \"security.protocol\" of \
                                        [kafka.properties] that of their listener?"
                    .to_owned()
            }
        }
    }
}

/// Listens to a client of these settings that asks for the cluster. Ends with the first trouble that needs a person, or
/// when `timeout` is over with the last that was told; `None` if nothing was, or a broker answered.
pub async fn watch_trouble(settings: &KafkaSettings, timeout: Duration) -> Option<Trouble> {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || watch(&settings, timeout)).await.ok().flatten()
}

fn watch(settings: &KafkaSettings, timeout: Duration) -> Option<Trouble> {
    let told = Told::default();
    let client = ThreadedProducer::from_config_and_context(&settings.client(), told.clone()).ok()?;
    let deadline = Instant::now() + timeout;
    loop {
        if client.client().fetch_metadata(None, LOOK_INTERVAL).is_ok() {
            return None;
        }
        let trouble = told.last();
        if Instant::now() >= deadline || trouble.as_ref().is_some_and(Trouble::needs_a_person) {
            return trouble.map(|trouble| looked_at_closely(settings, trouble));
        }
    }
}

/// What a client told last, but that a refused certificate or password is not forgotten for a lost connection.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Trouble>>>);

impl Told {
    fn last(&self) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Told {
    /// A connection that the other side closes is no error to librdkafka, and only logged. All else is said in the error that
    /// comes of it.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            let text = message.split_once("]: ").map_or(message, |(_thread, text)| text);
            self.keep(trouble(None, text), false);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let is_summary = error_code(&error) == Some(RDKafkaErrorCode::AllBrokersDown);
        self.keep(trouble(error_code(&error), reason), is_summary);
    }
}

impl Told {
    fn keep(&self, trouble: Trouble, is_summary: bool) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = last.as_ref().is_some_and(|last| last.needs_a_person() || is_summary);
        if !keep {
            *last = Some(trouble);
        }
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

fn trouble(code: Option<RDKafkaErrorCode>, reason: &str) -> Trouble {
    let certificate = CertificateFault::told_by(reason).map(TroubleKind::Certificate);
    let kind = match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            TroubleKind::Credentials
        }
        _ => certificate.unwrap_or(TroubleKind::Connection),
    };
    // How long it took differs each time, and what is said once is known by its text.
    let text = reason.split_once(" (after ").map_or(reason, |(text, _)| text);
    Trouble { kind, text: text.to_owned() }
}

/// librdkafka says that a certificate was refused and not why: the same handshake once more tells.
fn looked_at_closely(settings: &KafkaSettings, trouble: Trouble) -> Trouble {
    let TroubleKind::Certificate(_) = trouble.kind else { return trouble };
    let Some((host, port)) = broker_in(&trouble.text) else { return trouble };
    let Some(text) = refusal(settings, host, port) else { return trouble };
    let Some(fault) = CertificateFault::told_by(&text) else { return trouble };
    Trouble {
        kind: TroubleKind::Certificate(fault),
        text: format!("broker {host}:{port}: {fault} ({})", text.trim()),
    }
}

/// The broker that a line is about: it begins `protocol://host:port/name: `.
fn broker_in(text: &str) -> Option<(&str, u16)> {
    let (_, rest) = text.split_once("://")?;
    let (host, port) = rest.split('/').next()?.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

/// What OpenSSL says of the broker's certificate, trusting whom the client trusts; `None` if it is taken, or no handshake came
/// about.
fn refusal(settings: &KafkaSettings, host: &str, port: u16) -> Option<String> {
    let mut connector = native_tls::TlsConnector::builder();
    let property = |name: &str| settings.properties.get(name);
    let own = property("ssl.ca.pem").map(|pem| pem.as_bytes().to_vec());
    let own = own.or_else(|| fs::read(property("ssl.ca.location")?).ok());
    if let Some(pem) = own {
        connector.disable_built_in_roots(true);
        for certificate in native_tls::Certificate::stack_from_pem(&pem).ok()? {
            connector.add_root_certificate(certificate);
        }
    }
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let stream = TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT)).ok()?;
    match connector.build().ok()?.connect(host, stream) {
        Err(native_tls::HandshakeError::Failure(error)) => Some(error.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_apart_by_what_mends_it() {
        let refused = trouble(
            Some(RDKafkaErrorCode::SSL),
            "sasl_ssl://k1:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: \
             broker certificate could not be verified",
        );
        assert_eq!(refused.kind, TroubleKind::Certificate(CertificateFault::Other));
        assert!(refused.needs_a_person() && refused.remedy().contains("ssl.ca.location"));
        assert_eq!(broker_in(&refused.text), Some(("k1", 9093)));
        let denied = trouble(Some(RDKafkaErrorCode::Authentication), "SASL authentication error");
        assert!(denied.needs_a_person() && denied.remedy().contains("sasl.password"));
        let away = trouble(
            Some(RDKafkaErrorCode::BrokerTransportFailure),
            "k1:9092/bootstrap: Connection refused (after 3ms in state CONNECT)",
        );
        assert_eq!(away.text, "k1:9092/bootstrap: Connection refused");
        assert!(!away.needs_a_person() && away.remedy().contains("security.protocol"));
        assert_eq!(broker_in("ssl://[::1]:9093/1: x"), Some(("::1", 9093)));
        assert_eq!(broker_in("2/2 brokers are down"), None);
    }

    #[test]
    fn what_needs_a_person_is_not_forgotten_for_what_does_not() {
        let told = Told::default();
        let say = |code, reason| told.error(KafkaError::Global(code), reason);
        say(RDKafkaErrorCode::BrokerTransportFailure, "refused");
        say(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(told.last().map(|trouble| trouble.text).as_deref(), Some("refused"));
        say(RDKafkaErrorCode::Authentication, "wrong password");
        say(RDKafkaErrorCode::BrokerTransportFailure, "refused");
        assert_eq!(told.last().map(|trouble| trouble.text).as_deref(), Some("wrong password"));
    }
}
