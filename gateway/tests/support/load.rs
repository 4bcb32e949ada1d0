//! Clients that ask all the time and forgive nothing: kept connections, a new connection per request, HTTP/2; in clear
//! text or all of them under TLS.
//!
//! A client that is told to leave (`Connection: close`, GOAWAY) connects again, as every client does. Anything else is
//! a failure: a connection refused, a request sent and not answered, an answer cut or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::h2_client;

use super::until;

const KEPT: usize = 4;
const FRESH: usize = 2;
const HTTP2: usize = 2;
/// Between two requests of a client: enough of them are under way at any moment, and the machine is not only theirs.
const PAUSE: Duration = Duration::from_millis(1);
/// Streams of one HTTP/2 connection at once.
const STREAMS: usize = 4;
/// Whom clients want to speak to; a certificate must say so.
pub const HOST: &str = "test.example";

/// Where clients connect, and with which TLS.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

/// A connection, plain or under TLS.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

#[derive(Default)]
struct Tally {
    kept: AtomicU64,
    fresh: AtomicU64,
    http2: AtomicU64,
    failures: Mutex<Vec<String>>,
    stopping: AtomicBool,
}

impl Tally {
    fn failed(&self, words: String) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(words);
    }

    fn goes_on(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }

    fn served(&self) -> [u64; 3] {
        [&self.kept, &self.fresh, &self.http2].map(|count| count.load(Ordering::Relaxed))
    }
}

pub struct Load {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Asks for `/` until the end; every answer must be 200 and `ok`.
    pub fn begin(address: SocketAddr) -> Load {
        Load::at(Target { address, tls: None })
    }

    /// The same under TLS.
    pub fn begin_tls(address: SocketAddr, config: ClientConfig) -> Load {
        let tls = Some(Arc::new(config));
        Load::at(Target { address, tls })
    }

    fn at(target: Target) -> Load {
        let tally = Arc::new(Tally::default());
        let mut threads = Vec::new();
        let mut spawn = |count: usize, client: fn(&Target, &Tally)| {
            for _ in 0..count {
                let (target, tally) = (target.clone(), tally.clone());
                threads.push(std::thread::spawn(move || client(&target, &tally)));
            }
        };
        spawn(KEPT, kept);
        spawn(FRESH, fresh);
        spawn(HTTP2, http2);
        Load { tally, threads }
    }

    /// Waits until clients of each kind have got so many more answers.
    pub fn wait_for_more(&self, more: u64) {
        let before = self.tally.served();
        until("further answers", || {
            let now = self.tally.served();
            !self.failures().is_empty()
                || now
                    .iter()
                    .zip(before)
                    .all(|(now, before)| *now >= before + more)
        });
        self.assert_no_failure();
    }

    pub fn assert_no_failure(&self) {
        let failures = self.failures();
        assert!(
            failures.is_empty(),
            "{} failures after {:?} answers (kept, fresh, HTTP/2): {failures:#?}",
            failures.len(),
            self.tally.served()
        );
    }

    /// Lets the clients finish; fails the test on any failure. Returns how many answers came.
    pub fn end(self) -> u64 {
        self.tally.stopping.store(true, Ordering::Relaxed);
        let mut this = self;
        for thread in this.threads.drain(..) {
            thread.join().expect("clients do not panic");
        }
        this.assert_no_failure();
        this.tally.served().iter().sum()
    }

    fn failures(&self) -> Vec<String> {
        self.tally
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tally.stopping.store(true, Ordering::Relaxed);
    }
}

fn connect(target: &Target) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect_timeout(&target.address, PATIENCE)
        .map_err(|error| format!("connect: {error}"))?;
    let options = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
    options.map_err(|error| format!("options: {error}"))?;
    let Some(config) = &target.tls else {
        return Ok(Box::new(stream));
    };
    let connection =
        ClientConnection::new(config.clone(), host()).map_err(|error| format!("TLS: {error}"))?;
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

fn host() -> ServerName<'static> {
    ServerName::try_from(HOST).expect("a name")
}

/// One request and its answer; true when the connection may be used again.
fn exchange(stream: &mut dyn Stream, line: &str) -> Result<bool, String> {
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n").as_bytes())
        .map_err(|error| format!("send: {error}"))?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let length = text
                .split("\r\n")
                .find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            if answer.len() >= head + 4 + length {
                let body = &answer[head + 4..];
                if !text.starts_with("http/1.1 200") || body != b"ok" {
                    return Err(format!("answer: {}", String::from_utf8_lossy(&answer)));
                }
                return Ok(!text.contains("connection: close"));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err(format!("closed after {} bytes of the answer", answer.len())),
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) => return Err(format!("read after {} bytes: {error}", answer.len())),
        }
    }
}

fn kept(target: &Target, tally: &Tally) {
    while tally.goes_on() {
        let mut stream = match connect(target) {
            Ok(stream) => stream,
            Err(words) => return tally.failed(format!("kept: {words}")),
        };
        let mut requests = 0;
        while tally.goes_on() {
            match exchange(&mut *stream, "") {
                Ok(again) => {
                    requests += 1;
                    tally.kept.fetch_add(1, Ordering::Relaxed);
                    if !again {
                        break;
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(words) => {
                    return tally.failed(format!("kept, after {requests} requests: {words}"));
                }
            }
        }
    }
}

/// Half of them are closed by the gateway, half by the client.
fn fresh(target: &Target, tally: &Tally) {
    for line in ["", "Connection: close\r\n"].into_iter().cycle() {
        if !tally.goes_on() {
            return;
        }
        let served = connect(target).and_then(|mut stream| exchange(&mut *stream, line));
        std::thread::sleep(PAUSE);
        match served {
            Ok(_) => _ = tally.fresh.fetch_add(1, Ordering::Relaxed),
            Err(words) => return tally.failed(format!("fresh: {words}")),
        }
    }
}

fn http2(target: &Target, tally: &Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        while tally.goes_on() {
            if let Err(words) = one_http2_connection(target, tally).await {
                return tally.failed(format!("HTTP/2: {words}"));
            }
        }
    });
}

/// Until the gateway says GOAWAY, or the end.
async fn one_http2_connection(target: &Target, tally: &Tally) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(target.address)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let Some(config) = &target.tls else {
        return ask_over_http2(stream, tally).await;
    };
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TlsConnector::from(Arc::new(config))
        .connect(host(), stream)
        .await
        .map_err(|error| format!("TLS: {error}"))?;
    ask_over_http2(stream, tally).await
}

async fn ask_over_http2<S>(stream: S, tally: &Tally) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = h2::client::handshake(stream)
        .await
        .map_err(|error| format!("handshake: {error}"))?;
    let driver = tokio::spawn(connection);
    let mut told_to_leave = false;
    while tally.goes_on() && !told_to_leave {
        tokio::time::sleep(PAUSE).await;
        let mut answers = Vec::new();
        for _ in 0..STREAMS {
            match begin(sender).await {
                Ok((next, answer)) => {
                    sender = next;
                    answers.push(answer);
                }
                // Never sent; a client asks again elsewhere.
                Err(Begun::Leave(next)) => {
                    sender = next;
                    told_to_leave = true;
                    break;
                }
                Err(Begun::Failed(words)) => return Err(words),
            }
        }
        for answer in answers {
            let answered = tokio::time::timeout(PATIENCE, async {
                h2_client::read_answer(answer.await?).await
            });
            match answered.await {
                Ok(Ok(answer)) if answer.status == 200 && answer.body == b"ok" => {
                    tally.http2.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(answer)) => return Err(format!("answer: {answer:?}")),
                // Beyond the last stream of a GOAWAY: never taken, so a client asks again elsewhere (RFC 9113, 6.8).
                Ok(Err(error)) if is_told_to_leave(&error) => told_to_leave = true,
                Ok(Err(error)) => return Err(format!("a stream was lost: {error}")),
                Err(_) => return Err("no answer".into()),
            }
        }
    }
    drop(sender);
    let _ended_as_told = driver.await;
    Ok(())
}

fn is_told_to_leave(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

enum Begun {
    Leave(SendRequest<Bytes>),
    Failed(String),
}

async fn begin(
    sender: SendRequest<Bytes>,
) -> Result<(SendRequest<Bytes>, h2::client::ResponseFuture), Begun> {
    let spare = sender.clone();
    let leave = |error: h2::Error| {
        if is_told_to_leave(&error) {
            Begun::Leave(spare.clone())
        } else {
            Begun::Failed(format!("a stream could not begin: {error}"))
        }
    };
    let mut sender = sender.ready().await.map_err(leave)?;
    let request = h2_client::request("GET", "/", &[]);
    match sender.send_request(request, true) {
        Ok((answer, _)) => Ok((sender, answer)),
        Err(error) => Err(leave(error)),
    }
}
