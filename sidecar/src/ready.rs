//! `ready`: asks a running sidecar whether it is, for those who look from outside and can start a program: its admin
//! address is on loopback, where nobody else's probes come.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use tollgate_engine::process::exit;

/// For each step of the way.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of the answer: its first line is enough, and the rest is for whoever looks.
const MOST: u64 = 16 << 10;

pub(crate) fn ready(admin: SocketAddr) -> ExitCode {
    match ask(admin) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => ExitCode::SUCCESS,
        Ok(answer) => {
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or(&answer);
            eprintln!("not ready: {}", body.trim());
            ExitCode::from(exit::FAILURE)
        }
        Err(error) => {
            eprintln!("nobody answers at http://{admin}: {error}");
            ExitCode::from(exit::FAILURE)
        }
    }
}

fn ask(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request =
        format!("GET /health/ready HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
