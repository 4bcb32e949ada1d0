//! A raw HTTP/1 client: sends the bytes it is given and reads answers by a strict framing of its own.
//!
//! It never repairs and never retries. Reading has a hard limit (`PATIENCE`), so a gateway that hangs fails the test
//! instead of stopping it. Called by the tests of everything that a client can see on a clear-text connection.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// One connection, and what was read from it but not yet taken.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// How an answer's end was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// HEAD, 1xx, 204, 304, or a tunnel after 101.
    None,
    Length,
    Chunked,
    UntilClose,
}

/// One answer as it came.
#[derive(Clone)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub framing: Framing,
    /// False when the connection ended before the body had: an abort, as a client sees it.
    pub complete: bool,
}

/// Why no answer was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The other side said that nothing more comes.
    Closed,
    /// The other side tore the connection down.
    Reset,
    /// Nothing came within the limit.
    Silent,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("the gateway accepts")
    }

    /// For those who may find nobody.
    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends everything. A gateway that already closed is no failure here: what counts is what it answered.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _refused = self.try_send(bytes.as_ref());
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends from another thread, so that the answer can be read while a large message is still on its way.
    pub fn send_aside(&self, bytes: Vec<u8>) -> JoinHandle<io::Result<()>> {
        let mut stream = self.stream.try_clone().expect("a socket can be cloned");
        std::thread::spawn(move || stream.write_all(&bytes))
    }

    /// A head without a body: method, target, and further lines, with the given host.
    pub fn request(&mut self, line: &str, lines: &[&str]) -> Response {
        let method = line.split(' ').next().unwrap_or_default();
        let mut head = format!("{line} HTTP/1.1\r\nHost: test.example\r\n");
        for line in lines {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.send(head);
        self.read_response_to(method)
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.request(&format!("GET {target}"), &[])
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _gone = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Tears the connection down with a reset.
    pub fn reset(self) {
        let _gone = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    pub fn local_address(&self) -> SocketAddr {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next answer, interim ones included; fails the test when there is none.
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("GET")
    }

    /// The next answer that is not interim, other than 101.
    pub fn read_final(&mut self) -> Response {
        loop {
            let response = self.read_response();
            if response.status >= 200 || response.status == 101 {
                return response;
            }
        }
    }

    pub fn read_response_to(&mut self, method: &str) -> Response {
        match self.try_response(method) {
            Ok(response) => response,
            Err(ended) => panic!(
                "no answer came: {ended:?} after {:?}",
                String::from_utf8_lossy(&self.buffer)
            ),
        }
    }

    pub fn try_response(&mut self, method: &str) -> Result<Response, Ended> {
        let deadline = Instant::now() + PATIENCE;
        let head = self.read_until(b"\r\n\r\n", deadline)?;
        let mut response = parse_head(&head);
        response.framing = framing(&response, method);
        match response.framing {
            Framing::None => {}
            Framing::Length => {
                let length: usize = response
                    .header("content-length")
                    .expect("checked")
                    .parse()
                    .expect("a length");
                while self.buffer.len() < length {
                    match self.fill(deadline) {
                        Ok(()) => {}
                        Err(Ended::Silent) => {
                            panic!("body stalled at {} of {length} bytes", self.buffer.len())
                        }
                        Err(_) => break,
                    }
                }
                response.complete = self.buffer.len() >= length;
                response.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
            }
            Framing::Chunked => response.complete = self.read_chunks(&mut response, deadline),
            Framing::UntilClose => {
                let ended = loop {
                    if let Err(ended) = self.fill(deadline) {
                        break ended;
                    }
                };
                response.complete = ended == Ended::Closed;
                response.body = std::mem::take(&mut self.buffer);
            }
        }
        Ok(response)
    }

    /// Exactly so many bytes, for tunnels and for streams that are looked at in the middle.
    pub fn read_exact(&mut self, length: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.buffer.len() < length {
            if let Err(ended) = self.fill(deadline) {
                panic!(
                    "wanted {length} bytes, {ended:?} after {:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
            }
        }
        self.buffer.drain(..length).collect()
    }

    /// Everything up to and including `end`.
    pub fn read_up_to(&mut self, end: &str) -> String {
        match self.read_until(end.as_bytes(), Instant::now() + PATIENCE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(ended) => {
                panic!(
                    "wanted {end:?}, {ended:?} after {:?}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
        }
    }

    /// The head of an answer only; the body is then read by hand.
    pub fn read_head(&mut self) -> Response {
        parse_head(self.read_up_to("\r\n\r\n").as_bytes())
    }

    /// One chunk of a chunked answer; empty at its end.
    pub fn read_chunk(&mut self) -> Vec<u8> {
        let line = self.read_up_to("\r\n");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
        let mut data = self.read_exact(size + 2);
        assert_eq!(data.split_off(size), b"\r\n", "a chunk ends with CRLF");
        data
    }

    /// Nothing more comes and the connection is gone; fails the test on any further byte and on silence.
    pub fn assert_closed(&mut self) {
        match self.drain() {
            (rest, Ended::Closed | Ended::Reset) if rest.is_empty() => {}
            (rest, ended) => {
                panic!(
                    "wanted a closed connection, got {ended:?} and {:?}",
                    String::from_utf8_lossy(&rest)
                )
            }
        }
    }

    /// Everything until the connection ends, and how it ended.
    pub fn drain(&mut self) -> (Vec<u8>, Ended) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Err(ended) = self.fill(deadline) {
                return (std::mem::take(&mut self.buffer), ended);
            }
        }
    }

    /// True when bytes are waiting that nobody asked for; looks for as long as `within`.
    pub fn hears_within(&mut self, within: Duration) -> bool {
        !self.buffer.is_empty() || self.fill(Instant::now() + within).is_ok()
    }

    fn read_chunks(&mut self, response: &mut Response, deadline: Instant) -> bool {
        loop {
            let Ok(line) = self.read_until(b"\r\n", deadline) else {
                return false;
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(line.trim_end_matches("\r\n"), 16)
                .unwrap_or_else(|_| panic!("bad chunk size line in an answer: {line:?}"));
            if size == 0 {
                loop {
                    let Ok(line) = self.read_until(b"\r\n", deadline) else {
                        return false;
                    };
                    if line == b"\r\n" {
                        return true;
                    }
                    response
                        .trailers
                        .push(split_field(&String::from_utf8_lossy(&line)));
                }
            }
            while self.buffer.len() < size + 2 {
                if self.fill(deadline).is_err() {
                    let kept = size.min(self.buffer.len());
                    response.body.extend(self.buffer.drain(..kept));
                    return false;
                }
            }
            response.body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            assert_eq!(end, b"\r\n", "a chunk of an answer ends with CRLF");
        }
    }

    fn read_until(&mut self, end: &[u8], deadline: Instant) -> Result<Vec<u8>, Ended> {
        let mut searched = 0;
        loop {
            let found = self.buffer[searched..]
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..searched + at + end.len()).collect());
            }
            searched = self.buffer.len().saturating_sub(end.len() - 1);
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), Ended> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ended::Silent);
        }
        self.stream.set_read_timeout(Some(left)).expect("not zero");
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(Ended::Closed),
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Err(Ended::Silent)
            }
            Err(_) => Err(Ended::Reset),
        }
    }
}

impl Response {
    /// The only value of a header; fails the test when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(
            values.len() <= 1,
            "{name} came {} times: {values:?}",
            values.len()
        );
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of one of the gateway's own answers, which must be RFC 9457 problem JSON.
    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(
            problem["status"], self.status,
            "the problem bears the status: {self:?}"
        );
        problem
    }

    /// The stable word of one of the gateway's own answers.
    pub fn code(&self) -> String {
        self.problem()["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Whether the connection may carry another exchange.
    pub fn keeps_alive(&self) -> bool {
        let says = |word: &str| {
            self.all("connection")
                .iter()
                .flat_map(|value| value.split(','))
                .any(|token| token.trim().eq_ignore_ascii_case(word))
        };
        self.framing != Framing::UntilClose
            && !says("close")
            && (self.version == "HTTP/1.1" || says("keep-alive"))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:?} {:?}",
            self.version,
            self.status,
            self.headers,
            self.text()
        )
    }
}

fn framing(response: &Response, method: &str) -> Framing {
    let bare = method == "HEAD" || response.status < 200 || matches!(response.status, 204 | 304);
    let encodings = response.all("transfer-encoding");
    let lengths = response.all("content-length");
    assert!(
        encodings.is_empty() || lengths.is_empty(),
        "an answer bears both framings: {:?}",
        response.headers
    );
    assert!(
        lengths.len() <= 1,
        "an answer bears two lengths: {lengths:?}"
    );
    if bare {
        Framing::None
    } else if !encodings.is_empty() {
        assert_eq!(
            encodings,
            ["chunked"],
            "an answer's only transfer coding is chunked"
        );
        Framing::Chunked
    } else if !lengths.is_empty() {
        Framing::Length
    } else {
        Framing::UntilClose
    }
}

fn parse_head(head: &[u8]) -> Response {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut words = status_line.splitn(3, ' ');
    let version = words.next().unwrap_or_default().to_owned();
    assert!(
        matches!(&*version, "HTTP/1.1" | "HTTP/1.0"),
        "not a status line: {status_line:?}"
    );
    let status = words.next().and_then(|word| word.parse().ok());
    Response {
        version,
        status: status.unwrap_or_else(|| panic!("not a status line: {status_line:?}")),
        headers: lines.map(split_field).collect(),
        body: Vec::new(),
        trailers: Vec::new(),
        framing: Framing::None,
        complete: true,
    }
}

fn split_field(line: &str) -> (String, String) {
    let (name, value) = line
        .split_once(':')
        .unwrap_or_else(|| panic!("a field without a colon: {line:?}"));
    assert!(
        !name.is_empty() && !name.contains([' ', '\t', '\r', '\n']),
        "a bad field name: {line:?}"
    );
    (name.to_owned(), value.trim().to_owned())
}
