//! What is asked beside the load: single requests, connections that stay idle, and streams that must not be cut.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::http1::{Buffer, Connection, exchange};
use crate::summary::Failure;

/// An answer that was asked for by itself.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    head: Vec<u8>,
    pub body: Vec<u8>,
}

impl Got {
    /// The first header line of this name.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

/// One request on a connection of its own, answered within 5 s.
pub async fn get(to: SocketAddr, path: &str) -> io::Result<Got> {
    let asked = async {
        let mut stream: Connection = Box::pin(TcpStream::connect(to).await?);
        let request = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
        let mut buffer = Buffer {
            keep: true,
            ..Buffer::default()
        };
        let answer = exchange(&mut stream, request.as_bytes(), &mut buffer).await;
        let answer = answer.map_err(|broken| io::Error::other(format!("no answer: {broken:?}")))?;
        Ok(Got {
            status: answer.status,
            head: buffer.head,
            body: buffer.kept,
        })
    };
    tokio::time::timeout(Duration::from_secs(5), asked)
        .await
        .map_err(|_| io::Error::other("no answer in 5 s"))?
}

/// A keep-alive connection on which anything can be asked, one request after the other.
pub struct Wire {
    stream: Connection,
    buffer: Buffer,
    /// The last answer was the last one here.
    pub closes: bool,
}

impl Wire {
    /// Connects from this address, by which the other side tells clients apart. Both are of one family.
    pub async fn open(from: IpAddr, to: SocketAddr) -> io::Result<Wire> {
        let socket = match from {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let buffer = Buffer {
            keep: true,
            ..Buffer::default()
        };
        Ok(Wire {
            stream: Box::pin(stream),
            buffer,
            closes: false,
        })
    }

    /// Sends a whole request, and reads its answer. After an error the connection is good for nothing.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Got, Failure> {
        let answer = exchange(&mut self.stream, request, &mut self.buffer).await;
        let answer = answer.map_err(|broken| broken.failure())?;
        self.closes = answer.close;
        Ok(Got {
            status: answer.status,
            head: std::mem::take(&mut self.buffer.head),
            body: std::mem::take(&mut self.buffer.kept),
        })
    }
}

/// One idle connection after one request, for as long as it is kept.
pub struct Idle(#[expect(dead_code, reason = "held for what its drop does")] Connection);

impl Idle {
    /// Connects, asks once, and keeps the connection.
    pub async fn open(to: SocketAddr, path: &str) -> io::Result<Idle> {
        let mut stream: Connection = Box::pin(TcpStream::connect(to).await?);
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        match exchange(&mut stream, request.as_bytes(), &mut Buffer::default()).await {
            Ok(answer) if answer.status == 200 && !answer.close => Ok(Idle(stream)),
            Ok(answer) => Err(io::Error::other(format!(
                "status {} or no keep-alive",
                answer.status
            ))),
            Err(broken) => Err(io::Error::other(format!("{broken:?}"))),
        }
    }
}

/// An answer without end that is read all the time.
pub struct Stream {
    bytes: Rc<Cell<u64>>,
    /// Reads until the stream ends; aborted on drop.
    reader: JoinHandle<()>,
}

impl Stream {
    /// Asks and begins to read; needs a runtime that allows local tasks.
    pub async fn open(to: SocketAddr, path: &str) -> io::Result<Stream> {
        let mut stream = TcpStream::connect(to).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
            .await?;
        let bytes = Rc::new(Cell::new(0));
        let count = bytes.clone();
        let reader = tokio::task::spawn_local(async move {
            let mut buffer = [0u8; 1 << 10];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                count.set(count.get() + read as u64);
            }
        });
        Ok(Stream { bytes, reader })
    }

    /// Bytes so far, the head among them; `None` when the stream was cut.
    pub fn bytes(&self) -> Option<u64> {
        (!self.reader.is_finished()).then(|| self.bytes.get())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
