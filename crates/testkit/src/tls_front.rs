//! HTTPS with a user and a password before an HTTP server that has neither.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_native_tls::TlsStream;

use crate::ServerIdentity;

/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 43\r\n\
                       connection: close\r\n\r\n{\"error_code\":401,\"message\":\"unauthorized\"}\n";

/// A listener that speaks TLS, asks for an `authorization` header, and hands on what has it.
#[derive(Debug)]
pub struct TlsFront {
    port: u16,
    let_through: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Before the HTTP server at `address` (`host:port`), for those who say `authorization`.
    ///
    /// # Errors
    /// If the identity is none, or there is no port.
    pub async fn start(address: &str, authorization: &str, identity: &ServerIdentity) -> Result<Self> {
        let identity = native_tls::Identity::from_pkcs8(&identity.certificate_pem, &identity.key_pem)?;
        let acceptor = tokio_native_tls::TlsAcceptor::from(native_tls::TlsAcceptor::new(identity)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let let_through = Arc::new(AtomicUsize::new(0));
        let (counter, address) = (Arc::clone(&let_through), address.to_owned());
        let wanted = format!("authorization: {authorization}").to_lowercase();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
                let (address, wanted) = (address.clone(), wanted.clone());
                tokio::spawn(async move {
                    // Who refuses our certificate, or hangs up, is what tests do here.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let _ = serve(stream, &address, &wanted, &counter).await;
                });
            }
        });
        Ok(Self { port, let_through, task })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Requests that were handed on.
    #[must_use]
    pub fn let_through(&self) -> usize {
        self.let_through.load(Ordering::SeqCst)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request a connection: what comes after the head is handed on as it is.
async fn serve(
    mut stream: TlsStream<TcpStream>,
    address: &str,
    wanted: &str,
    counter: &AtomicUsize,
) -> Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    if !text.lines().any(|line| line == wanted) {
        stream.write_all(REFUSAL.as_bytes()).await?;
        return Ok(stream.shutdown().await?);
    }
    counter.fetch_add(1, Ordering::SeqCst);
    let mut server = TcpStream::connect(address).await?;
    // The server is to hang up after its answer, so that each request is looked at.
    let at = head.windows(2).position(|end| end == b"\r\n").unwrap_or_default();
    server.write_all(&head[..at]).await?;
    server.write_all(b"\r\nconnection: close").await?;
    server.write_all(&head[at..]).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}
