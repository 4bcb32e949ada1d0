//! HTTP/2 by hand: frames are written and read as bytes, so that a test can say what no honest client would.
//!
//! It keeps no state machine and no flow control, acknowledges nothing unless told to, and announces a header table of
//! size zero so that answers can be read without one. Well-behaved clients are in `http2`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::hpack;
use super::{PATIENCE, client::Ended};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream, or the connection under it, answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Head and body, with END_STREAM.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// RST_STREAM with its code; whether a head came before it.
    Reset {
        code: u32,
        after_head: bool,
    },
    /// GOAWAY with its code, other than NO_ERROR.
    GoAway(u32),
    Ended(Ended),
}

/// One connection.
pub struct H2Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl H2Raw {
    /// Preface and SETTINGS exchanged in both directions.
    pub fn connect(address: SocketAddr) -> H2Raw {
        H2Raw::connect_with(address, &[])
    }

    /// As `connect`, with further settings.
    pub fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> H2Raw {
        let mut raw = H2Raw::connect_silently(address);
        raw.send(PREFACE);
        // A header table of size zero.
        let mut payload = vec![0, 1, 0, 0, 0, 0];
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        raw.frame(SETTINGS, 0, 0, &payload);
        loop {
            let frame = raw
                .read_frame()
                .unwrap_or_else(|ended| panic!("no SETTINGS came: {ended:?}"));
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                raw.frame(SETTINGS, ACK, 0, &[]);
                return raw;
            }
        }
    }

    /// Nothing is said yet.
    pub fn connect_silently(address: SocketAddr) -> H2Raw {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the gateway accepts");
        stream
            .set_nodelay(true)
            .expect("a connected socket takes options");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a connected socket takes options");
        H2Raw {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A gateway that already closed is no failure here; false then.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.send(&frame(kind, flags, stream, payload))
    }

    /// A request without a body.
    pub fn get(&mut self, stream: u32, path: &str) -> bool {
        self.headers(stream, END_STREAM, &request("GET", path))
    }

    /// HEADERS with END_HEADERS and these fields, literally.
    pub fn headers(&mut self, stream: u32, flags: u8, fields: &[(&[u8], &[u8])]) -> bool {
        self.frame(HEADERS, flags | END_HEADERS, stream, &hpack::encode(fields))
    }

    pub fn data(&mut self, stream: u32, flags: u8, data: &[u8]) -> bool {
        self.frame(DATA, flags, stream, data)
    }

    pub fn reset(&mut self, stream: u32, code: u32) -> bool {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub fn window_update(&mut self, stream: u32, by: u32) -> bool {
        self.frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
    }

    pub fn read_frame(&mut self) -> Result<Frame, Ended> {
        self.read_frame_by(Instant::now() + PATIENCE)
    }

    pub fn read_frame_by(&mut self, deadline: Instant) -> Result<Frame, Ended> {
        while self.buffer.len() < 9 {
            self.fill(deadline)?;
        }
        let length =
            u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]) as usize;
        while self.buffer.len() < 9 + length {
            self.fill(deadline)?;
        }
        let head: Vec<u8> = self.buffer.drain(..9).collect();
        let payload = self.buffer.drain(..length).collect();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// Reads until this stream has ended, acknowledging settings and pings; what becomes of it.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let (mut status, mut headers, mut body) = (None, Vec::new(), Vec::new());
        loop {
            let frame = match self.read_frame_by(deadline) {
                Ok(frame) => frame,
                Err(ended) => return Outcome::Ended(ended),
            };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => {
                    self.frame(SETTINGS, ACK, 0, &[]);
                }
                PING if frame.flags & ACK == 0 => {
                    self.frame(PING, ACK, 0, &frame.payload);
                }
                GOAWAY if frame.code() != 0 => return Outcome::GoAway(frame.code()),
                RST_STREAM if frame.stream == stream => {
                    return Outcome::Reset {
                        code: frame.code(),
                        after_head: status.is_some(),
                    };
                }
                HEADERS if frame.stream == stream => {
                    for (name, value) in hpack::decode(&frame.payload) {
                        if name == ":status" {
                            status = value.parse().ok();
                        } else {
                            headers.push((name, value));
                        }
                    }
                }
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => {}
            }
            let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
            if let (true, Some(status)) = (ends && frame.stream == stream, status) {
                return Outcome::Answer {
                    status,
                    headers,
                    body,
                };
            }
        }
    }

    /// Reads until GOAWAY or the end of the connection; the code of the first GOAWAY that tells an error.
    pub fn read_goaway(&mut self) -> Result<u32, Ended> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.read_frame_by(deadline)?;
            if frame.kind == GOAWAY && frame.code() != 0 {
                return Ok(frame.code());
            }
        }
    }

    /// Reads until the other side has closed; false when it does not within the limit.
    pub fn wait_closed(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.fill(deadline) {
                Ok(()) => self.buffer.clear(),
                Err(ended) => return ended != Ended::Silent,
            }
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
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(Ended::Silent),
                _ => Err(Ended::Reset),
            },
        }
    }

    /// From now on a write that is stuck for this long fails.
    pub fn write_limit(&mut self, limit: Duration) {
        self.stream
            .set_write_timeout(Some(limit))
            .expect("a connected socket takes options");
    }
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let bytes = self
            .payload
            .get(at..at + 4)
            .expect("a frame with an error code");
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Answer { status, headers, body } => {
                let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
                write!(f, "answer {status} {headers:?} {text:?}")
            }
            Outcome::Reset { code, after_head } => write!(f, "reset {code}, after a head: {after_head}"),
            Outcome::GoAway(code) => write!(f, "GOAWAY {code}"),
            Outcome::Ended(ended) => write!(f, "{ended:?}"),
        }
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.payload);
        write!(
            f,
            "frame {} flags {:#x} stream {} {text:?}",
            self.kind, self.flags, self.stream
        )
    }
}

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The four pseudo-headers of an ordinary request.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a [u8], &'a [u8])> {
    vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"test.example"),
        (b":path", path.as_bytes()),
    ]
}
