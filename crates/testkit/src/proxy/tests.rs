use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::*;

/// Nothing is expected within this time; what is expected comes far sooner.
const SILENCE: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_secs(10);

/// A server that says back what it hears, with a greeting of its own; gone when dropped.
struct Echo {
    address: String,
    heard: watch::Receiver<Vec<u8>>,
    ended: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start(greeting: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (hears, heard) = watch::channel(Vec::new());
        let (ends, ended) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (hears, ends) = (hears.clone(), ends.clone());
                connections.spawn(async move {
                    client.write_all(greeting).await.unwrap();
                    let mut bytes = [0; 4096];
                    while let Ok(length @ 1..) = client.read(&mut bytes).await {
                        hears.send_modify(|heard| heard.extend_from_slice(&bytes[..length]));
                        if client.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                    ends.send_modify(|ended| *ended += 1);
                });
            }
        });
        Self { address, heard, ended, task }
    }

    async fn has_heard(&self, bytes: &[u8]) {
        timeout(LIMIT, self.heard.clone().wait_for(|heard| heard == bytes)).await.unwrap().unwrap();
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// The next `length` bytes.
async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// Nothing comes, and nothing breaks.
async fn is_silent(stream: &mut TcpStream) {
    let mut bytes = [0; 1];
    let came = timeout(SILENCE, stream.read(&mut bytes)).await;
    assert!(came.is_err(), "{came:?} came where silence was expected");
}

/// The other side is gone, by an end or by a reset.
async fn is_closed(stream: &mut TcpStream) {
    let mut bytes = [0; 1];
    let came = timeout(LIMIT, stream.read(&mut bytes)).await.unwrap();
    assert!(matches!(came, Ok(0) | Err(_)), "{came:?} came where an end was expected");
}

#[tokio::test]
async fn what_passes_arrives_as_it_was_sent_ends_included() {
    let (echo, bytes) = (Echo::start(b"hi").await, vec![7; 1_000_000]);
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(receive(&mut stream, 2).await, b"hi");
    let (mut reader, mut writer) = stream.split();
    let mut back = vec![0; bytes.len()];
    let (sent, received) = tokio::join!(writer.write_all(&bytes), reader.read_exact(&mut back));
    sent.unwrap();
    received.unwrap();
    assert_eq!(back, bytes);
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    drop(stream);
    timeout(LIMIT, echo.ended.clone().wait_for(|ended| *ended == 1)).await.unwrap().unwrap();
    timeout(LIMIT, proxy.open_becomes(0)).await.unwrap();
}

#[tokio::test]
async fn refused_are_new_connections_only() {
    let echo = Echo::start(b"").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut old = connect(&proxy).await;
    timeout(LIMIT, proxy.open_becomes(1)).await.unwrap();
    proxy.set(Way::Refuse).await;
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    old.write_all(b"still").await.unwrap();
    assert_eq!(receive(&mut old, 5).await, b"still");
    proxy.set(Way::Pass).await;
    let mut new = connect(&proxy).await;
    new.write_all(b"again").await.unwrap();
    assert_eq!(receive(&mut new, 5).await, b"again");
}

#[tokio::test]
async fn a_cut_ends_both_sides_of_all_connections_and_new_ones_are_well() {
    let echo = Echo::start(b"hi").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut streams = [connect(&proxy).await, connect(&proxy).await];
    for stream in &mut streams {
        receive(stream, 2).await;
    }
    proxy.cut().await;
    for stream in &mut streams {
        is_closed(stream).await;
    }
    timeout(LIMIT, echo.ended.clone().wait_for(|ended| *ended == 2)).await.unwrap().unwrap();
    assert_eq!(receive(&mut connect(&proxy).await, 2).await, b"hi");
}

/// A cut has to end even if who was cut comes back at once, over and over.
#[tokio::test]
async fn a_cut_does_not_wait_for_those_who_come_back() {
    let echo = Echo::start(b"hi").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let (address, (sender, mut connected)) = (proxy.address(), watch::channel(0));
    let client = tokio::spawn(async move {
        loop {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            receive(&mut stream, 2).await;
            sender.send_modify(|count| *count += 1);
            is_closed(&mut stream).await;
        }
    });
    for round in 1..=20 {
        timeout(LIMIT, connected.wait_for(|count| *count >= round)).await.unwrap().unwrap();
        timeout(LIMIT, proxy.cut()).await.unwrap();
    }
    client.abort();
}

#[tokio::test]
async fn half_open_loses_bytes_and_nobody_hears_of_it() {
    let echo = Echo::start(b"").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    stream.write_all(b"a").await.unwrap();
    receive(&mut stream, 1).await;

    proxy.set(Way::Lose(Direction::ToClient)).await;
    stream.write_all(b"b").await.unwrap();
    echo.has_heard(b"ab").await;
    is_silent(&mut stream).await;

    // What was lost is not made up for, and nothing follows it.
    proxy.set(Way::Pass).await;
    stream.write_all(b"c").await.unwrap();
    echo.has_heard(b"abc").await;
    is_silent(&mut stream).await;

    // The other direction, and not even the client's end gets through.
    proxy.set(Way::Lose(Direction::ToServer)).await;
    stream.write_all(b"d").await.unwrap();
    drop(stream);
    assert!(timeout(SILENCE, echo.ended.clone().wait_for(|ended| *ended == 1)).await.is_err());
    assert_eq!(*echo.heard.borrow(), b"abc");
    proxy.set(Way::Pass).await;
    proxy.cut().await;
    timeout(LIMIT, echo.ended.clone().wait_for(|ended| *ended == 1)).await.unwrap().unwrap();

    // A connection made while the way is half-open is taken, and dumb.
    proxy.set(Way::Lose(Direction::Both)).await;
    let mut stream = connect(&proxy).await;
    stream.write_all(b"e").await.unwrap();
    is_silent(&mut stream).await;
    assert_eq!(*echo.heard.borrow(), b"abc");
}

#[tokio::test]
async fn what_is_held_arrives_later_even_after_its_sender() {
    let echo = Echo::start(b"").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    proxy.set(Way::Hold(Direction::ToServer)).await;
    stream.write_all(b"late").await.unwrap();
    drop(stream);
    assert!(timeout(SILENCE, echo.heard.clone().changed()).await.is_err());
    proxy.set(Way::Pass).await;
    echo.has_heard(b"late").await;
    timeout(LIMIT, echo.ended.clone().wait_for(|ended| *ended == 1)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_delay_is_of_each_byte_and_ends_with_the_way() {
    let echo = Echo::start(b"").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    proxy.set(Way::Delay(Duration::from_millis(100))).await;
    let begun = Instant::now();
    for piece in [b"ab", b"cd", b"ef"] {
        stream.write_all(piece).await.unwrap();
    }
    assert_eq!(receive(&mut stream, 6).await, b"abcdef");
    // There and back; not once more for each piece.
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());

    proxy.set(Way::Delay(Duration::from_secs(3600))).await;
    stream.write_all(b"g").await.unwrap();
    is_silent(&mut stream).await;
    proxy.set(Way::Pass).await;
    assert_eq!(receive(&mut stream, 1).await, b"g");
}

#[tokio::test]
async fn a_trickle_takes_its_time() {
    let echo = Echo::start(b"").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    proxy.set(Way::Trickle { bytes_per_second: 1000 }).await;
    let begun = Instant::now();
    stream.write_all(&[1; 200]).await.unwrap();
    assert_eq!(receive(&mut stream, 200).await, [1; 200]);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_cut_after_so_many_bytes_is_exact_and_happens_once() {
    let echo = Echo::start(b"").await;
    let proxy = FaultProxy::start(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    stream.write_all(b"ab").await.unwrap();
    receive(&mut stream, 2).await;
    proxy.set(Way::CutAfter { direction: Direction::ToServer, bytes: 3 }).await;
    stream.write_all(b"cdefgh").await.unwrap();
    timeout(LIMIT, proxy.has_struck()).await.unwrap();
    echo.has_heard(b"abcde").await;
    timeout(LIMIT, echo.ended.clone().wait_for(|ended| *ended == 1)).await.unwrap().unwrap();
    let mut stream = connect(&proxy).await;
    stream.write_all(b"ij").await.unwrap();
    assert_eq!(receive(&mut stream, 2).await, b"ij");
}

#[tokio::test]
async fn new_connections_lead_where_it_says_and_a_server_that_is_not_there_closes_them() {
    let (one, two) = (Echo::start(b"1").await, Echo::start(b"2").await);
    let proxy = FaultProxy::start(&one.address).await.unwrap();
    let mut old = connect(&proxy).await;
    assert_eq!(receive(&mut old, 1).await, b"1");
    proxy.lead_to(&two.address);
    assert_eq!(receive(&mut connect(&proxy).await, 1).await, b"2");
    old.write_all(b"x").await.unwrap();
    one.has_heard(b"x").await;
    // Listened on a moment ago, and now by nobody.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    proxy.lead_to(gone.to_string());
    is_closed(&mut connect(&proxy).await).await;
}

#[tokio::test]
async fn urls_lead_through_it() {
    let proxy = FaultProxy::start("127.0.0.1:1").await.unwrap();
    let address = proxy.address();
    for (url, through) in [
        ("redis://127.0.0.1:6379/0", format!("redis://{address}/0")),
        (
            "postgres://me:a@b@host:5432/fleet?sslmode=disable",
            format!("postgres://me:a@b@{address}/fleet?sslmode=disable"),
        ),
        ("postgres://host?x=@", format!("postgres://{address}?x=@")),
    ] {
        assert_eq!(proxy.url_instead(url).unwrap(), through);
    }
    for url in ["127.0.0.1:6379", "redis:///0"] {
        assert!(proxy.url_instead(url).is_err(), "{url}");
    }
}
