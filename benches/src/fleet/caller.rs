//! One keep-alive connection, and what is asked over it: one question at a time.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One keep-alive connection.
pub(crate) struct Caller {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Caller {
    pub(crate) fn to(address: SocketAddr) -> io::Result<Caller> {
        Caller::for_host(address, "fleet")
    }

    /// What is asked is asked of this host.
    pub(crate) fn for_host(address: SocketAddr, host: &str) -> io::Result<Caller> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Caller {
            stream: BufReader::new(stream),
            host: host.to_owned(),
        })
    }

    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let (length, host) = (body.len(), &self.host);
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(text.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

pub(crate) fn expect(answer: &(u16, String), status: u16) -> io::Result<()> {
    match answer.0 == status {
        true => Ok(()),
        false => Err(io::Error::other(format!("{}: {}", answer.0, answer.1))),
    }
}

/// A connection to a gateway that serves this.
pub(super) fn wait_for(at: SocketAddr, target: &str) -> io::Result<Caller> {
    let began = Instant::now();
    loop {
        if let Ok(mut caller) = Caller::to(at)
            && caller
                .ask("GET", target, "")
                .is_ok_and(|answer| answer.0 == 200)
        {
            return Ok(caller);
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(io::Error::other("it does not serve"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks all the time; nothing may fail.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<(u64, u64)>>,
}

impl Load {
    pub(super) fn on(at: SocketAddr, target: &'static str) -> io::Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut caller = Caller::to(at)?;
        let thread = thread::spawn(move || {
            let (mut all, mut bad) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                all += 1;
                bad += u64::from(caller.ask("GET", target, "")?.0 != 200);
                thread::sleep(Duration::from_micros(500));
            }
            Ok((all, bad))
        });
        Ok(Load { stop, thread })
    }

    pub(super) fn end(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .thread
            .join()
            .map_err(|_| io::Error::other("the load died"))?;
        let (all, bad) = ended?;
        println!("load beside it: {all} requests, {bad} failed");
        Ok(())
    }
}
