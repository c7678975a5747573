//! A way to the server that can be cut at a chosen word.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens when a client sends the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection breaks before the server has it.
    CutBefore,
    /// The server carries it out; its answer is lost.
    LoseReply,
    /// The server has it; nothing comes back, and nothing breaks.
    Hang,
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    pub(crate) address: String,
    trouble: Arc<Mutex<Option<(&'static str, Trouble)>>>,
    struck: watch::Receiver<usize>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let trouble = Arc::new(Mutex::new(None));
        let (count, struck) = watch::channel(0);
        let planned = trouble.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(carry(client, server, planned.clone(), count.clone()));
            }
        });
        Self { address, trouble, struck }
    }

    /// The next client that sends `word` is in trouble; those after it are not.
    pub(crate) fn trouble_at(&self, word: &'static str, trouble: Trouble) {
        *self.trouble.lock().unwrap() = Some((word, trouble));
    }

    /// How often trouble struck.
    pub(crate) fn struck(&self) -> usize {
        *self.struck.borrow()
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    planned: Arc<Mutex<Option<(&'static str, Trouble)>>>,
    struck: watch::Sender<usize>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut asked = vec![0; 1 << 16];
    let mut answered = vec![0; 1 << 16];
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                match strikes(&planned, &asked[..length]) {
                    None => if to_server.write_all(&asked[..length]).await.is_err() { return },
                    Some(trouble) => {
                        struck.send_modify(|count| *count += 1);
                        if trouble == Trouble::CutBefore { return }
                        if to_server.write_all(&asked[..length]).await.is_err() { return }
                        let _ = from_server.read(&mut answered).await;
                        if trouble == Trouble::LoseReply { return }
                        // Silence until the client has had enough.
                        while matches!(from_client.read(&mut asked).await, Ok(1..)) {}
                        return;
                    }
                }
            }
            read = from_server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if to_client.write_all(&answered[..length]).await.is_err() { return }
            }
        }
    }
}

fn strikes(planned: &Mutex<Option<(&'static str, Trouble)>>, asked: &[u8]) -> Option<Trouble> {
    let mut planned = planned.lock().unwrap();
    let (word, trouble) = (*planned)?;
    if !asked.windows(word.len()).any(|window| window == word.as_bytes()) {
        return None;
    }
    *planned = None;
    Some(trouble)
}
