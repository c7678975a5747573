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
pub struct Asked {
    /// The event's id.
    pub id: String,
    /// Its headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: serde_json::Value,
    /// When it had come.
    pub at: Instant,
    /// What it was answered, and after which time.
    pub reply: Reply,
}

impl Asked {
    /// Which call of this event it says to be, from 1.
    ///
    /// # Panics
    /// If it doesn't say.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.headers["fleetlog-attempt"].parse().unwrap()
    }

    /// It was answered that all is well.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reply.0 < 300
    }
}

/// What is answered: a status, after a time.
pub type Reply = (u16, Duration);

type Answers = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

/// The endpoint; it lives as long as its test.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it is called.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    times: Arc<Mutex<BTreeMap<String, usize>>>,
    answers: Arc<Mutex<Arc<Answers>>>,
}

impl Endpoint {
    /// One that answers 204 at once.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            url: format!("http://{}/hook/a-secret-path", listener.local_addr().unwrap()),
            asked: Arc::default(),
            times: Arc::default(),
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

    /// What it answers from now on: by the request, and how often this event was asked for before.
    pub fn answers(&self, with: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(with);
    }

    /// Everything that was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often each event was asked for.
    #[must_use]
    pub fn times(&self) -> BTreeMap<String, usize> {
        self.times.lock().unwrap().clone()
    }

    /// What is answered; remembered.
    fn answer(&self, asked: &mut Asked) -> Reply {
        let answers = Arc::clone(&self.answers.lock().unwrap());
        // Whoever sees it counted finds it among all that was asked.
        let mut all = self.asked.lock().unwrap();
        let mut times = self.times.lock().unwrap();
        let before = times.entry(asked.id.clone()).or_default();
        asked.reply = answers(asked, *before);
        *before += 1;
        all.push(asked.clone());
        asked.reply
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(mut asked) = request(&mut stream).await {
            let (status, after) = self.answer(&mut asked);
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
        reply: (0, Duration::ZERO),
    })
}
