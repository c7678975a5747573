//! Certificates, with a real TLS server.

use fleetlog_testkit::{Authority, Validity};
use tokio::io::AsyncWriteExt;

use super::*;

/// A TLS server with a certificate for `host` that answers 200 to whoever takes it; its port.
async fn serve(authority: &Authority, host: &str, validity: Validity) -> u16 {
    let identity = authority.issue(host, validity).unwrap();
    let identity = native_tls::Identity::from_pkcs8(&identity.certificate_pem, &identity.key_pem).unwrap();
    let acceptor = tokio_native_tls::TlsAcceptor::from(native_tls::TlsAcceptor::new(identity).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who refuses our certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            receiver::read(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    port
}

/// What comes of a call to `localhost`, if this authority is trusted.
async fn called(port: u16, trusted: Option<&Authority>) -> Result<(), HandlerError> {
    let ca_pem = trusted.map(|authority| std::fs::read(authority.ca_file()).unwrap());
    let subscription = Subscription { ca_pem, ..subscription(&format!("https://localhost:{port}/")) };
    Webhook::new(&subscription).unwrap().handle(&call(door_changed())).await
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_taken() {
    let authority = Authority::new("webhooks").unwrap();
    let port = serve(&authority, "localhost", Validity::Now).await;
    assert_eq!(called(port, Some(&authority)).await, Ok(()));
}

#[tokio::test]
async fn a_refused_certificate_is_tried_again_and_named() {
    let (authority, other) = (Authority::new("webhooks").unwrap(), Authority::new("others").unwrap());
    for (host, validity, trusted, words) in [
        ("localhost", Validity::Over, Some(&authority), "its certificate has expired"),
        ("example.com", Validity::Now, Some(&authority), "its certificate is for another host"),
        ("localhost", Validity::Now, Some(&other), "its certificate is signed by an unknown authority"),
        ("localhost", Validity::Now, None, "its certificate is signed by an unknown authority"),
    ] {
        let port = serve(&authority, host, validity).await;
        let detail = retried(called(port, trusted).await);
        let expected = format!("https://localhost:{port} is not trusted: {words}");
        assert!(detail.starts_with(&expected), "{detail}");
    }
    let port = serve(&authority, "localhost", Validity::Now).await;
    let detail = retried(called(port, None).await);
    assert!(detail.contains("name the authority that signed it in the subscription's ca_file"), "{detail}");
}
