//! Bytes both ways, and what ends one of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

use super::{named, relaying_to, until};

/// Bytes that are nowhere alike.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

#[test]
fn mesh_102_a_server_may_speak_first_and_everything_passes_as_it_is() {
    let upstream = named("hello\0\r\n");
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    assert_eq!(client.read_exact(8), b"hello\0\r\n");
    client.send([0xff, 0, b'\n', 0x16]);
    assert_eq!(client.read_exact(4), [0xff, 0, b'\n', 0x16]);
}

#[test]
fn mesh_102_a_client_that_has_said_everything_still_hears_the_answer() {
    let upstream = Upstream::http1(|conn| {
        let mut all = Vec::new();
        let mut stream = conn.stream();
        stream.read_to_end(&mut all).expect("a proper end");
        conn.send(format!("{} bytes", all.len()));
    });
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    client.send([7; 100_000]).finish();
    assert_eq!(client.drain(), (b"100000 bytes".to_vec(), Ended::Closed));
}

#[test]
fn mesh_102_an_upstream_that_has_said_everything_still_hears_the_client() {
    let (heard, hears) = mpsc::channel();
    let upstream = Upstream::http1(move |conn| {
        conn.send("that is all");
        conn.finish();
        let mut all = Vec::new();
        let mut stream = conn.stream();
        stream.read_to_end(&mut all).expect("a proper end");
        heard.send(all).expect("awaited below");
    });
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    assert_eq!(client.drain(), (b"that is all".to_vec(), Ended::Closed));
    client.send("one more thing").finish();
    assert_eq!(hears.recv().expect("it was heard"), b"one more thing");
}

#[test]
fn mesh_102_a_client_s_reset_reaches_the_upstream_as_one() {
    let (told, ends) = mpsc::channel();
    let upstream = Upstream::http1(move |conn| {
        conn.send("x");
        let ended = conn.stream().read_to_end(&mut Vec::new());
        told.send(ended.is_err()).expect("awaited below");
    });
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    client.read_exact(1);
    client.reset();
    assert!(
        ends.recv().expect("it ended"),
        "a proper end came of a reset"
    );
}

#[test]
fn mesh_102_an_upstream_s_reset_reaches_the_client_as_one() {
    let upstream = Upstream::http1(|conn| {
        conn.send("half");
        conn.read_exact(1);
        conn.reset();
    });
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    client.read_exact(4);
    client.send("x");
    assert_eq!(client.drain(), (Vec::new(), Ended::Reset));
}

#[test]
fn mesh_102_much_passes_whole_in_both_directions_at_once() {
    const LENGTH: usize = 32 << 20;
    let upstream = Upstream::http1(|conn| {
        let mut writer = conn.stream().try_clone().expect("a socket can be cloned");
        let writing = std::thread::spawn(move || {
            writer.write_all(&noise(2, LENGTH)).expect("it is read");
            writer.shutdown(Shutdown::Write).expect("it is open");
        });
        let mut all = Vec::new();
        let mut stream = conn.stream();
        stream.read_to_end(&mut all).expect("a proper end");
        assert!(all == noise(1, LENGTH), "what the client sent");
        writing.join().expect("no panic");
    });
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    let sending = client.send_aside(noise(1, LENGTH));
    let stream = client.stream();
    let mut writer = stream.try_clone().expect("a socket can be cloned");
    let finishing = std::thread::spawn(move || {
        sending.join().expect("no panic").expect("it is read");
        writer
            .flush()
            .and_then(|()| writer.shutdown(Shutdown::Write))
    });
    let (all, ended) = client.drain();
    assert!(all == noise(2, LENGTH), "what the upstream sent");
    assert_eq!(ended, Ended::Closed);
    finishing.join().expect("no panic").expect("it is open");
    upstream.wait("the upstream's end", |journal| journal.ended == 1);
    upstream.assert_clean();
}

/// Writes until nobody takes more, and says how much that was.
fn fill(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).expect("a socket");
    let (piece, mut all, mut full) = ([0; 64 * 1024], 0, 0);
    // Full is what stays full while others have their turns.
    while full < 2_000 {
        match stream.write(&piece) {
            Ok(count) => (all, full) = (all + count, 0),
            Err(_) => {
                full += 1;
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        }
    }
    stream.set_nonblocking(false).expect("a socket");
    all
}

#[test]
fn mesh_102_who_does_not_read_holds_the_writer_up_and_no_memory() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        theirs.wait();
        let mut count = 0;
        let mut piece = [0; 64 * 1024];
        loop {
            match conn.stream().read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(read) => count += read,
            }
        }
        conn.send(format!("{count}"));
    });
    let gateway = relaying_to(&upstream);
    let mut client = gateway.client();
    let sent = fill(client.stream());
    // What the kernel's buffers on both sides of us take, and one piece.
    assert!(sent < 64 << 20, "{sent} bytes went somewhere");
    gate.open();
    client.finish();
    let (count, ended) = client.drain();
    assert_eq!(
        (String::from_utf8_lossy(&count).parse(), ended),
        (Ok(sent), Ended::Closed)
    );
}

#[test]
fn mesh_102_a_client_that_vanishes_behind_a_full_upstream_is_let_go_once_that_reads() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        theirs.wait();
        conn.wait_closed();
    });
    let gateway = relaying_to(&upstream);
    let client = gateway.client();
    fill(client.stream());
    client.reset();
    gate.open();
    upstream.wait("the end", |journal| journal.ended == 1);
    until("nothing is relayed any more", || {
        super::metric(&gateway, "relay_connections{listener=\"in\"}") == 0
    });
}
