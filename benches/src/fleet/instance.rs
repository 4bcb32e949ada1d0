//! An upstream that says its name, and remembers when it was asked last.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// An upstream that says its name, and when it was asked last.
pub(super) struct Instance {
    pub(super) address: SocketAddr,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Instance {
    pub(super) fn start(name: &'static str) -> io::Result<Instance> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let last = Arc::new(Mutex::new(None));
        let asked = last.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = asked.clone();
                thread::spawn(move || -> io::Result<()> {
                    stream.set_nodelay(true)?;
                    let mut reader = BufReader::new(stream);
                    let mut line = String::new();
                    while reader.read_line(&mut line)? > 0 {
                        if line == "\r\n" {
                            *asked.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(Instant::now());
                            let length = name.len();
                            write!(
                                reader.get_mut(),
                                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
                            )?;
                        }
                        line.clear();
                    }
                    Ok(())
                });
            }
        });
        Ok(Instance { address, last })
    }

    pub(super) fn last_asked(&self) -> Option<Instant> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
