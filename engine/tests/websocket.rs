//! WebSocket bytes through a tunnel: large frames, floods, odd frames and either side's half-close (HI-61). What opens
//! and ends a tunnel is in `streams`.
//!
//! The gateway reads no frame: whatever a client sends must come back from the upstream bit by bit.

use std::io::{Read, Write};

use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::upstream::{Conn, Upstream};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Takes the upgrade; true when there was one.
fn accept(conn: &mut Conn) -> bool {
    conn.read_request().is_some()
        && conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
}

/// Sends back what comes, in large pieces, until the client has said that nothing more comes.
fn mirror() -> Upstream {
    Upstream::http1(|conn| {
        if !accept(conn) {
            return;
        }
        let mut piece = vec![0; 64 << 10];
        let mut stream = conn.stream();
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            if stream.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    })
}

fn open(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send(UPGRADE);
    let response = client.read_response();
    assert_eq!(response.status, 101, "{response:?}");
    client
}

/// A masked frame: first byte as given (reserved bits and all), length in its shortest form.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// Sends all of it and half-closes; the same bytes come back, and then the end.
fn assert_mirrored(bytes: Vec<u8>) {
    let upstream = mirror();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = open(&gateway);
    let sending = client.send_aside(bytes.clone());
    let echoed = client.read_exact(bytes.len());
    sending.join().expect("no panic").expect("all was taken");
    // Not `assert_eq`: nobody wants to read megabytes.
    assert!(echoed == bytes, "the bytes came back changed");
    client.finish();
    assert_eq!(client.drain(), (vec![], Ended::Closed));
}

#[test]
fn hi_61_a_frame_of_16_megabytes_crosses_untouched() {
    let payload: Vec<u8> = (0..16_u32 << 20)
        .map(|n| (n.wrapping_mul(31) >> 7) as u8)
        .collect();
    assert_mirrored(frame(0x82, &payload));
}

#[test]
fn hi_61_frames_that_no_endpoint_would_accept_cross_untouched() {
    let mut bytes = Vec::new();
    for first in 0..=255 {
        // Every reserved bit and opcode, with bad UTF-8 as text, control frames too long, continuations of nothing.
        bytes.extend(frame(first, b"\xff\xfe\xc0\x80\xed\xa0\x80"));
        bytes.extend(frame(first, &[first; 126]));
    }
    // A close frame with a forbidden code, and data behind it.
    bytes.extend(frame(0x88, &[0x03, 0xed]));
    bytes.extend(frame(0x81, b"after the close"));
    assert_mirrored(bytes);
}

#[test]
fn hi_61_a_flood_of_pings_crosses_untouched_and_harms_nobody() {
    let upstream = mirror();
    let other = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "{}\n[[route]]\nname = \"other\"\nmatch = {{ path = \"/other\" }}\nupstream = \"other\"\n\n\
         [[upstream]]\nname = \"other\"\nendpoints = [\"{}\"]\n",
        document(upstream.address(), "", "", ""),
        other.address()
    ));
    let mut client = open(&gateway);
    let flood = frame(0x89, b"p").repeat(200_000);
    let sending = client.send_aside(flood.clone());
    assert_eq!(gateway.get("/other").status, 200, "meanwhile");
    assert!(client.read_exact(flood.len()) == flood, "changed");
    sending.join().expect("no panic").expect("all was taken");
}

#[test]
fn hi_61_a_close_frame_is_passed_on_at_once() {
    let upstream = mirror();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = open(&gateway);
    let close = frame(0x88, &[0x03, 0xe8]);
    client.send(&close);
    assert_eq!(client.read_exact(close.len()), close);
}

#[test]
fn hi_61_an_upstream_that_has_said_all_still_hears_its_client() {
    let upstream = Upstream::http1(|conn| {
        if accept(conn) {
            conn.send("all");
            conn.finish();
            conn.wait_closed();
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = open(&gateway);
    assert_eq!(client.drain(), (b"all".to_vec(), Ended::Closed));
    client.send("heard");
    upstream.wait("what the client said last", |journal| {
        journal.received[0].ends_with(b"heard")
    });
    client.finish();
    upstream.wait("the tunnel's end", |journal| journal.ended == 1);
}
