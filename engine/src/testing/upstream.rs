//! A scripted HTTP/1 upstream: plain blocking threads on port 0 that do exactly what the test says, byte by byte.
//!
//! Every connection, every request head and every body that arrives is written into a journal, and so is whatever a
//! strict reader of HTTP/1 would not accept (`violations`): a gateway must never send that, whatever it was sent.
//! Nothing here interprets leniently and nothing here sleeps.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::PATIENCE;
use super::journal::{Journal, Request, head_violation, lock};

#[derive(Default)]
struct Shared {
    journal: Mutex<Journal>,
    changed: Condvar,
    stopping: AtomicBool,
}

impl Shared {
    fn write<R>(&self, change: impl FnOnce(&mut Journal) -> R) -> R {
        let result = change(&mut lock(&self.journal));
        self.changed.notify_all();
        result
    }
}

/// A listening upstream; stops listening when dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Upstream {
    /// Runs the script once for each connection, on a thread of its own; the connection closes when it returns.
    pub fn http1(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
        Upstream::http1_on([127, 0, 0, 1].into(), script)
    }

    /// The same on another address of this machine, or of the network namespace that the caller is in.
    pub fn http1_on(
        address: IpAddr,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let theirs = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _gone = stream.set_nodelay(true);
                if theirs.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let number = theirs.write(|journal| {
                    journal.connections += 1;
                    journal.received.push(Vec::new());
                    journal.connections
                });
                let (shared, script) = (theirs.clone(), script.clone());
                thread::spawn(move || {
                    let mut conn = Conn {
                        stream,
                        buffer: Vec::new(),
                        shared: shared.clone(),
                        number,
                    };
                    script(&mut conn);
                    drop(conn);
                    shared.write(|journal| journal.ended += 1);
                });
            }
        });
        Upstream {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Answers each request with 200 and the request itself as text: line, fields, blank line, body.
    pub fn echo() -> Upstream {
        Upstream::http1(Conn::echo)
    }

    /// Answers each request with 200 and this body.
    pub fn fixed(body: &'static str) -> Upstream {
        Upstream::http1(move |conn| {
            while let Some(request) = conn.read_request() {
                conn.respond(
                    "200 OK",
                    &[],
                    if request.method() == "HEAD" { "" } else { body },
                );
            }
        })
    }

    /// A port on which nobody listens, in this process or another: it stays taken, or the next listener might get it.
    pub fn nobody() -> SocketAddr {
        static TAKEN: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("a free port");
        let address = socket.local_addr();
        lock(&TAKEN).push(socket);
        address.expect("a bound socket has an address")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn journal(&self) -> Journal {
        lock(&self.shared.journal).clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.journal().requests
    }

    /// The only request that arrived.
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request arrives: {requests:#?}");
        requests.remove(0)
    }

    pub fn connections(&self) -> usize {
        self.journal().connections
    }

    /// Waits until the journal is as wanted; fails the test with the journal when it never is.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Journal) -> bool) -> Journal {
        let deadline = Instant::now() + PATIENCE;
        let mut journal = lock(&self.shared.journal);
        while !wanted(&journal) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {what} in vain: {journal:#?}");
            journal = self
                .shared
                .changed
                .wait_timeout(journal, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        journal.clone()
    }

    /// Fails the test when anything arrived that a strict reader would refuse.
    pub fn assert_clean(&self) {
        let journal = self.journal();
        assert!(
            journal.violations.is_empty(),
            "the upstream was sent: {:#?}",
            journal.violations
        );
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
    }
}

/// One connection in a script's hands.
pub struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
    /// Counted from 1.
    pub number: usize,
}

impl Conn {
    /// The next request's head; `None` when the connection ended first.
    pub fn read_head(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                if !self.buffer.is_empty() {
                    let rest = String::from_utf8_lossy(&self.buffer).into_owned();
                    self.violation(format!("a head that never ends: {rest:?}"));
                }
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        if let Some(why) = head_violation(&head) {
            self.violation(format!("{why}: {:?}", String::from_utf8_lossy(&head)));
        }
        let number = self.number;
        let head = String::from_utf8_lossy(&head).into_owned();
        Some(self.shared.write(|journal| {
            let position = journal.requests.len();
            let (body, trailers) = (Vec::new(), Vec::new());
            let request = Request {
                connection: number,
                head,
                body,
                trailers,
                complete: false,
                position,
            };
            journal.requests.push(request.clone());
            request
        }))
    }

    /// The body of a request whose head was read; false when it was cut.
    pub fn read_body(&mut self, request: &mut Request) -> bool {
        let encodings = request.all("transfer-encoding");
        let lengths = request.all("content-length");
        let complete = match (&*encodings, &*lengths) {
            ([], []) => true,
            ([], [length]) => {
                let length: usize = length.parse().unwrap_or(0);
                let mut left = length;
                while left > 0 {
                    if self.buffer.is_empty() && !self.fill() {
                        break;
                    }
                    let piece: Vec<u8> = self.buffer.drain(..left.min(self.buffer.len())).collect();
                    left -= piece.len();
                    request.body.extend(piece);
                }
                left == 0
            }
            _ => self.read_chunks(request),
        };
        request.complete = complete;
        let copy = request.clone();
        self.shared
            .write(|journal| journal.requests[copy.position].clone_from(&copy));
        complete
    }

    /// Head and whole body; `None` when the connection ended first.
    pub fn read_request(&mut self) -> Option<Request> {
        let mut request = self.read_head()?;
        if request.header("expect").is_some() {
            self.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.read_body(&mut request).then_some(request)
    }

    /// One chunk of a chunked body, for scripts that look into the middle of a stream; `None` at its end or a cut.
    pub fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.read_line()?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let strict =
            !text.is_empty() && text.len() < 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !strict {
            self.violation(format!("a chunk size line {text:?}"));
            return None;
        }
        let size = usize::from_str_radix(&text, 16).ok()?;
        if size == 0 {
            return None;
        }
        let mut data = self.read_exact(size + 2)?;
        if data.split_off(size) != b"\r\n" {
            self.violation("a chunk without its CRLF".into());
            return None;
        }
        Some(data)
    }

    pub fn read_exact(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Sends; false when the other side is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// A whole answer with a length.
    pub fn respond(&mut self, status: &str, lines: &[&str], body: &str) -> bool {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for line in lines {
            head.push_str(line);
            head.push_str("\r\n");
        }
        self.send(format!("{head}\r\n{body}"))
    }

    /// Serves the echo until the other side is done.
    pub fn echo(&mut self) {
        while let Some(request) = self.read_request() {
            let text = format!("{}{}", request.head, String::from_utf8_lossy(&request.body));
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            let whole = if request.method() == "HEAD" {
                head
            } else {
                head + &text
            };
            if !self.send(whole) || request.header("connection") == Some("close") {
                return;
            }
        }
    }

    /// Waits until the other side closes or resets, taking whatever still comes; false when it never does.
    pub fn wait_closed(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.fill() {
            self.buffer.clear();
            if Instant::now() > deadline {
                return false;
            }
        }
        true
    }

    /// Tears the connection down: what is dropped next resets instead of closing.
    pub fn reset(&mut self) {
        let _gone = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                line.truncate(at);
                return Some(line);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn read_chunks(&mut self, request: &mut Request) -> bool {
        loop {
            // The last chunk is told from a cut by what is in front of the buffer.
            while find(&self.buffer, b"\r\n").is_none() {
                if !self.fill() {
                    return false;
                }
            }
            let last = self.buffer.starts_with(b"0\r\n");
            match self.read_chunk() {
                Some(data) => request.body.extend(data),
                None if last => break,
                None => return false,
            }
        }
        loop {
            match self.read_line() {
                Some(line) if line.is_empty() => return true,
                Some(line) => request
                    .trailers
                    .push(String::from_utf8_lossy(&line).into_owned()),
                None => return false,
            }
        }
    }

    fn fill(&mut self) -> bool {
        let _refused = self.stream.set_read_timeout(Some(PATIENCE * 2));
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(read) if read > 0 => {
                    let (number, piece) = (self.number, &piece[..read]);
                    self.buffer.extend_from_slice(piece);
                    self.shared
                        .write(|journal| journal.received[number - 1].extend_from_slice(piece));
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
    }

    fn violation(&self, what: String) {
        let number = self.number;
        self.shared.write(|journal| {
            journal
                .violations
                .push(format!("connection {number}: {what}"))
        });
    }
}

fn find(buffer: &[u8], wanted: &[u8]) -> Option<usize> {
    buffer
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::client::Client;

    #[test]
    fn the_echo_shows_what_arrived_and_writes_it_down() {
        let upstream = Upstream::echo();
        let mut client = Client::connect(upstream.address());
        client.send("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n");
        let response = client.read_response();
        assert!(response.text().ends_with("\r\n\r\nabc"), "{response:?}");
        let request = upstream.request();
        assert_eq!(
            (request.line(), &*request.trailers),
            ("POST /a HTTP/1.1", &["T: 1".to_owned()][..])
        );
        assert!(request.complete);
        upstream.assert_clean();
    }

    #[test]
    fn a_head_with_two_framings_is_a_violation() {
        let upstream = Upstream::echo();
        let mut client = Client::connect(upstream.address());
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        client.read_response();
        assert_eq!(upstream.journal().violations.len(), 1);
    }
}
