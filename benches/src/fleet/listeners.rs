//! What many listeners of one feed cost: those who read, and those who do not.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::ours::apply;
use super::{Plane, Size};
use crate::process::usage;

pub(super) fn listeners(size: Size, control: &mut Caller, plane: &Plane) -> io::Result<()> {
    let resident = || usage(&[plane.program.id()]).resident >> 10;
    let before = resident();
    let mut open = Vec::new();
    let began = Instant::now();
    for number in 0..size.listeners {
        let mut reader = listen(plane.address, number)?;
        read_to(&mut reader, "{\"end\"")?;
        open.push(reader);
    }
    let all = open.len();
    println!(
        "{all} listeners told everything in {:?}: {} KiB more ({} KiB each)",
        began.elapsed(),
        resident().saturating_sub(before),
        resident().saturating_sub(before) / all.max(1) as u64
    );
    let began = Instant::now();
    apply(control, size, 0, 1_000_000)?;
    for reader in &mut open {
        read_to(reader, "{\"end\"")?;
    }
    println!("a change told to all {all} after {:?}", began.elapsed());
    drop(open);
    thread::sleep(Duration::from_secs(1));
    let before = resident();
    let open: Vec<_> = (0..size.listeners)
        .map(|number| listen(plane.address, number))
        .collect::<Result<_, _>>()?;
    let mut most: u64 = 0;
    for number in 0..100 {
        apply(control, size, 0, 2_000_000 + number)?;
        most = most.max(resident());
    }
    println!(
        "{} listeners that read nothing, and 100 changes: {} KiB more at most",
        open.len(),
        most.saturating_sub(before)
    );
    Ok(())
}

fn listen(plane: SocketAddr, number: usize) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(plane)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET /feed?node=reader-{number} HTTP/1.1\r\nHost: cp\r\n\r\n"
    )?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}

fn read_to(reader: &mut BufReader<TcpStream>, wanted: &str) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with(wanted) {
            return Ok(());
        }
    }
}
