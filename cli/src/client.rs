//! A small HTTP/1.1 client for a few requests: to the admin address, to a control plane, and the load that `up --load`
//! makes. Blocking, bounded in time and size; no redirects, nothing cached. How TLS is spoken, `secure` knows.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use crate::secure::Stream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest head and the largest body that are read.
const LARGEST_HEAD: u64 = 64 * 1024;
const LARGEST_BODY: u64 = 64 * 1024 * 1024;

/// An admin address, as an operator types it: `http://host:port`, or only `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    authority: String,
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!(
                    "the admin address speaks http, not {scheme}; write http://127.0.0.1:9901"
                ));
            }
            None => text,
        };
        let authority = rest.trim_end_matches('/');
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if port.is_none_or(|port| port.parse::<u16>().is_err()) || authority.contains('/') {
            return Err("write a host and a port, such as http://127.0.0.1:9901".to_owned());
        }
        Ok(Admin {
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl Admin {
    /// One request; an answer that is not a 2xx is an error in the other side's words.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<serde_json::Value, String> {
        let answer = Client::connect(&self.authority)
            .and_then(|mut client| client.send(method, path, body))
            .map_err(|error| {
                format!(
                    "{self} does not answer: {error}; is the gateway running, and is this its `server.admin`? (--admin names another)"
                )
            })?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body)
            .map_err(|_| format!("{self} is not Tollgate's admin address: no JSON at {path}"))?;
        if answer.status / 100 == 2 {
            return Ok(value);
        }
        let why = value.get("error").and_then(serde_json::Value::as_str);
        Err(why.map_or_else(
            || format!("{self} answered {} to {method} {path}", answer.status),
            str::to_owned,
        ))
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The other side closes the connection after this.
    pub(crate) last: bool,
    /// The time by the other side's clock, as it says it.
    pub(crate) date: Option<String>,
}

/// One connection; good for further requests until an answer is the last.
#[derive(Debug)]
pub(crate) struct Client {
    authority: String,
    stream: BufReader<Stream>,
}

impl Client {
    pub(crate) fn connect(authority: &str) -> io::Result<Self> {
        Client::dial(authority, |socket| Ok(Stream::Plain(socket)))
    }

    /// The same, over what `secure` makes of the socket.
    pub(crate) fn dial(
        authority: &str,
        secure: impl Fn(TcpStream) -> io::Result<Stream>,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    stream.set_nodelay(true)?;
                    return Ok(Client {
                        authority: authority.to_owned(),
                        stream: BufReader::new(secure(stream)?),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Over a connection that somebody else made.
    pub(crate) fn over(authority: &str, stream: Stream) -> Self {
        Client {
            authority: authority.to_owned(),
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        self.send_with("", method, path, body)
    }

    /// With further lines of the head, each with its end.
    pub(crate) fn send_with(
        &mut self,
        fields: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Answer> {
        let mut head = (&mut self.stream).take(LARGEST_HEAD);
        let mut line = String::new();
        head.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| malformed("no status line"))?;
        let (mut length, mut chunked, mut last, mut date) = (None, false, false, None);
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Err(malformed("the head is not complete"));
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse::<u64>().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                last = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("date") {
                date = Some(value.to_owned());
            }
        }
        let mut body = Vec::new();
        match (chunked, length) {
            (true, _) => self.chunks(&mut body)?,
            (false, Some(length)) if length <= LARGEST_BODY => {
                (&mut self.stream).take(length).read_to_end(&mut body)?;
                if body.len() as u64 != length {
                    return Err(malformed("the body broke off"));
                }
            }
            (false, Some(_)) => return Err(malformed("the body is too large")),
            (false, None) => {
                last = true;
                (&mut self.stream)
                    .take(LARGEST_BODY)
                    .read_to_end(&mut body)?;
            }
        }
        Ok(Answer {
            status,
            body,
            last,
            date,
        })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut line = String::new();
            (&mut self.stream).take(LARGEST_HEAD).read_line(&mut line)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk has no size"))?;
            if size.saturating_add(body.len() as u64) > LARGEST_BODY {
                return Err(malformed("the body is too large"));
            }
            (&mut self.stream).take(size).read_to_end(body)?;
            line.clear();
            (&mut self.stream).take(LARGEST_HEAD).read_line(&mut line)?;
            // No trailers are asked for, so the line after the last chunk is the end.
            if size == 0 {
                return Ok(());
            }
        }
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_admin_address_is_a_host_and_a_port() {
        let written = |text: &str| text.parse::<Admin>().map(|admin| admin.to_string());
        assert_eq!(written("127.0.0.1:9901").unwrap(), "http://127.0.0.1:9901");
        assert_eq!(written("http://[::1]:1/").unwrap(), "http://[::1]:1");
        assert!(written("https://a:1").unwrap_err().contains("https"));
        assert!(written("localhost").unwrap_err().contains("port"));
    }

    #[test]
    fn chunked_answers_are_read_and_the_connection_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
        });
        let mut client = Client::connect(&address).unwrap();
        let first = client.send("GET", "/", "").unwrap();
        assert_eq!(
            (first.status, &*first.body, first.last),
            (200, &b"abc"[..], false)
        );
        let second = client.send("GET", "/", "").unwrap();
        assert_eq!((second.status, second.last), (503, true));
        drop(client);
        server.join().unwrap();
    }
}
