//! An HTTP endpoint for webhooks: it answers as a test says, and remembers what it was asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// A request that was answered, or is to be.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The event's id.
    pub(crate) id: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: serde_json::Value,
    /// When it had come.
    pub(crate) at: Instant,
}

/// What is answered: a status, after a time.
pub(crate) type Reply = (u16, Duration);

type Answers = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

/// The endpoint; it lives as long as its test.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<Arc<Answers>>>,
}

impl Endpoint {
    /// One that answers 204 at once.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            url: format!("http://{}/hook/a-secret-path", listener.local_addr().unwrap()),
            asked: Arc::default(),
            answers: Arc::new(Mutex::new(Arc::new(|_: &Asked, _| (204, Duration::ZERO)))),
        };
        let serving = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        endpoint
    }

    /// From now on: by the request, and how often this event was asked for before.
    pub(crate) fn answers(&self, with: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(with);
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often each event was asked for.
    pub(crate) fn times(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for asked in self.asked.lock().unwrap().iter() {
            *times.entry(asked.id.clone()).or_default() += 1;
        }
        times
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(asked) = request(&mut stream).await {
            let before = {
                let mut all = self.asked.lock().unwrap();
                let before = all.iter().filter(|other| other.id == asked.id).count();
                all.push(asked.clone());
                before
            };
            let answers = Arc::clone(&self.answers.lock().unwrap());
            let (status, after) = answers(&asked, before);
            tokio::time::sleep(after).await;
            let answer = format!("HTTP/1.1 {status} As Told\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The next request of a connection; none at its end.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|bytes| *bytes > 0)?;
    assert!(line.starts_with("POST /hook/a-secret-path HTTP/1.1"), "{line}");
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked {
        id: headers["webhook-id"].clone(),
        body: serde_json::from_slice(&body).unwrap(),
        headers,
        at: Instant::now(),
    })
}
