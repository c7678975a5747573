//! An endpoint on this machine that does what it is told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

/// What it does about each request.
#[derive(Clone)]
pub(super) enum Act {
    /// Writes this, and keeps the connection open unless the answer says otherwise.
    Answer(String),
    /// Nothing.
    Silent,
    /// Resets the connection.
    Reset,
    /// Closes the connection.
    Close,
    /// 200, and a body until nobody takes it any more.
    Endless,
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) line: String,
    /// In their order; names as they were written.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of the only header of that name.
    pub(super) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(found, _)| found == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value,
            _ => panic!("not one `{name}` in {:?}", self.headers),
        }
    }
}

/// It listens until it is dropped.
pub(super) struct Receiver {
    /// `http://127.0.0.1:port`
    pub(super) url: String,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<Request>,
    cut_off: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<()>,
}

impl Receiver {
    pub(super) async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, requests) = mpsc::unbounded_channel();
        let (cut_sender, cut_off) = mpsc::unbounded_channel();
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, act.clone(), sender.clone(), cut_sender.clone()));
            }
        });
        Self { url, connections, requests, cut_off, task }
    }

    /// The next request, waited for.
    pub(super) async fn request(&mut self) -> Request {
        self.requests.recv().await.unwrap()
    }

    /// Waits until somebody did not take a body to its end.
    pub(super) async fn cut_off(&mut self) {
        self.cut_off.recv().await.unwrap();
    }

    /// How many connections were made.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    act: Act,
    requests: mpsc::UnboundedSender<Request>,
    cut_off: mpsc::UnboundedSender<()>,
) {
    while let Some(request) = read(&mut stream).await {
        // Not everybody asks what came.
        let _ = requests.send(request);
        match &act {
            Act::Answer(answer) => {
                // A body that is longer than what is read of it is cut off.
                if stream.write_all(answer.as_bytes()).await.is_err() || answer.contains("connection: close")
                {
                    return;
                }
            }
            Act::Silent => {}
            Act::Reset => return stream.set_zero_linger().unwrap(),
            Act::Close => return,
            Act::Endless => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut written = stream.write_all(head).await;
                while written.is_ok() {
                    written = stream.write_all(b"5\r\nmore\n\r\n").await;
                }
                cut_off.send(()).unwrap();
                return;
            }
        }
    }
}

/// One request; none once the other side has hung up.
pub(super) async fn read<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let header = |text: &str| {
        let (name, value) = text.split_once(": ").unwrap();
        (name.to_owned(), value.to_owned())
    };
    let headers = rest.split("\r\n").map(header).collect();
    let mut request = Request { line: line.to_owned(), headers, body: bytes.split_off(head_end + 4) };
    let length: usize = request.header("content-length").parse().unwrap();
    while request.body.len() < length {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}
