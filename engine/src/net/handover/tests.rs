//! Two threads stand for two processes: the old one with a runtime, the new one without.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::net::accept::bind_workers;

/// A name nobody else has: tests run side by side, in several processes.
fn fresh_key(test: &str) -> String {
    format!("test {test} {}", std::process::id())
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn duplicates(sockets: &[TcpListener]) -> Vec<TcpListener> {
    sockets
        .iter()
        .map(|socket| socket.try_clone().unwrap())
        .collect()
}

/// The old process: offers `sockets`, says when it can be asked, and ends with who succeeded it.
fn offering(key: &str, sockets: &[TcpListener]) -> thread::JoinHandle<Successor> {
    let (ready, is_ready) = mpsc::channel();
    let (key, sockets) = (key.to_owned(), duplicates(sockets));
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let offer = Offer::new(&key).unwrap();
            ready.send(()).unwrap();
            let groups = || {
                let bind = loopback();
                let (first, rest) = sockets.split_at(1);
                let group = |kind, name: &str, sockets| Handed {
                    kind,
                    name: name.to_owned(),
                    bind,
                    sockets: duplicates(sockets),
                };
                vec![
                    group(Kind::Admin, "admin", first),
                    group(Kind::Listener, "edge", rest),
                ]
            };
            offer.serve(groups, || ()).await
        })
    });
    is_ready.recv().unwrap();
    thread
}

fn greeted(listener: &TcpListener, client: &mut TcpStream) {
    listener.set_nonblocking(false).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    client.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn sockets_that_were_taken_accept_connections_that_queued_before() {
    let key = fresh_key("queued");
    let admin = bind_workers(loopback(), 1).unwrap();
    let edge = bind_workers(loopback(), 1).unwrap();
    let address = edge[0].local_addr().unwrap();
    let all: Vec<_> = admin.into_iter().chain(edge).collect();
    let old = offering(&key, &all);
    let mut client = TcpStream::connect(address).unwrap();

    let taken = take(&key).unwrap();
    assert_eq!(taken.pid, std::process::id());
    let kinds: Vec<_> = taken
        .sockets
        .iter()
        .map(|g| (g.kind, g.name.as_str()))
        .collect();
    assert_eq!(kinds, [(Kind::Admin, "admin"), (Kind::Listener, "edge")]);
    taken.confirm.serving().unwrap();
    assert_eq!(
        old.join().unwrap(),
        Successor {
            pid: std::process::id()
        }
    );
    // The old process is gone with all its sockets.
    drop(all);
    let [_, edge] = taken.sockets.as_slice() else {
        panic!("two groups were offered")
    };
    assert_eq!(edge.sockets[0].local_addr().unwrap(), address);
    greeted(&edge.sockets[0], &mut client);
}

#[test]
fn more_sockets_than_fit_one_message_all_arrive() {
    let key = fresh_key("many");
    let sockets = bind_workers(loopback(), 2 * BATCH + 3).unwrap();
    let old = offering(&key, &sockets);
    let taken = take(&key).unwrap();
    let counts: Vec<_> = taken
        .sockets
        .iter()
        .map(|group| group.sockets.len())
        .collect();
    assert_eq!(counts, [1, 2 * BATCH + 2]);
    taken.confirm.serving().unwrap();
    old.join().unwrap();
}

#[test]
fn a_successor_that_dies_before_it_serves_leaves_the_old_process_untouched() {
    let key = fresh_key("dies");
    let sockets = bind_workers(loopback(), 2).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let old = offering(&key, &sockets);
    drop(take(&key).unwrap());
    assert!(!old.is_finished());
    // Its sockets still accept, and a second successor finds all as it was.
    let mut clients: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let accepted: usize = sockets
        .iter()
        .map(|socket| std::iter::from_fn(|| socket.accept().ok()).count())
        .sum();
    assert_eq!(accepted, clients.len());
    clients.clear();
    take(&key).unwrap().confirm.serving().unwrap();
    old.join().unwrap();
}

#[test]
fn the_key_is_free_as_soon_as_the_old_process_drains() {
    let key = fresh_key("free");
    let sockets = bind_workers(loopback(), 2).unwrap();
    let old = offering(&key, &sockets);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let taken = take(&key).unwrap();
    assert_eq!(
        Offer::new(&key).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    taken.confirm.serving().unwrap();
    Offer::new(&key).unwrap();
    old.join().unwrap();
}

#[test]
fn a_process_that_nobody_precedes_is_told_so() {
    let error = take(&fresh_key("nobody")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn whoever_talks_nonsense_gets_nothing() {
    let key = fresh_key("nonsense");
    let sockets = bind_workers(loopback(), 2).unwrap();
    let old = offering(&key, &sockets);
    for text in [
        "GET / HTTP/1.1\n",
        "take {}\n",
        "take {\"version\":99,\"pid\":1}\n",
        "\u{0}\n",
    ] {
        let mut stream = unix::UnixStream::connect_addr(&name(&key).unwrap()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // The other end closes without a word; with bytes of ours unread that may show as a reset.
        drop(stream.read_to_end(&mut answer));
        assert!(answer.is_empty(), "{text}");
    }
    take(&key).unwrap().confirm.serving().unwrap();
    old.join().unwrap();
}

#[test]
fn a_key_names_the_admin_address_or_else_the_first_listener() {
    let admin: SocketAddr = "127.0.0.1:9901".parse().unwrap();
    let edge: SocketAddr = "0.0.0.0:8080".parse().unwrap();
    assert_eq!(key(Some(admin), edge), "admin 127.0.0.1:9901");
    assert_eq!(key(None, edge), "listener 0.0.0.0:8080");
}
