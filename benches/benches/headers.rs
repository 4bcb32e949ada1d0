//! What heads cost: a request's and an answer's to be read, a request's to be judged and to be written for an upstream.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use tollgate_engine::exchange::headers::Sender;
use tollgate_engine::exchange::trace::TraceContext;
use tollgate_engine::http1::{Framing, parse_request, parse_response};
use tollgate_engine::testing::fuzz;

const SMALL: &str = "GET /items/81723 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n";

const BROWSER: &str = "GET /catalog/items/81723?color=green&size=42 HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/catalog\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: private, max-age=0\r\n\
    ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n\
    Vary: accept-encoding\r\n\
    Server: bench\r\n\r\n";

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    for (name, text) in [("small", SMALL), ("browser", BROWSER)] {
        let head = Bytes::from_static(text.as_bytes());
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(format!("parse_request/{name}"), |bencher| {
            bencher.iter(|| parse_request(black_box(&head)));
        });
        group.bench_function(format!("request_from_http1/{name}"), |bencher| {
            bencher.iter(|| fuzz::from_http1(black_box(&head)));
        });
    }
    let head = Bytes::from_static(ANSWER.as_bytes());
    group.throughput(Throughput::Bytes(head.len() as u64));
    group.bench_function("parse_response", |bencher| {
        bencher.iter(|| parse_response(black_box(&head), &Method::GET));
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    let trace = TraceContext::begin(|| 7);
    for (name, text) in [("small", SMALL), ("browser", BROWSER)] {
        let request = fuzz::from_http1(&Bytes::from_static(text.as_bytes())).expect("valid");
        let sender = Sender {
            peer: "192.0.2.1",
            scheme: "https",
            trusted: false,
            trace: &trace,
            span_id: trace.span_id,
            request_id: "0123456789abcdef0123456789abcdef",
            deadline: None,
            attempt: None,
            hedge: false,
            caller: None,
            host: None,
        };
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("write_http1/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                sender.write_http1(&mut out, black_box(&request));
                out.len()
            });
        });
        group.bench_function(format!("for_http2/{name}"), |bencher| {
            bencher.iter(|| sender.for_http2(black_box(&request)));
        });
    }
    // The whole head into memory of its own, to compare with.
    let request = fuzz::from_http1(&Bytes::from_static(BROWSER.as_bytes())).expect("valid");
    group.bench_function("whole_head/browser", |bencher| {
        let sender = Sender {
            peer: "192.0.2.1",
            scheme: "https",
            trusted: false,
            trace: &trace,
            span_id: trace.span_id,
            request_id: "0123456789abcdef0123456789abcdef",
            deadline: None,
            attempt: None,
            hedge: false,
            caller: None,
            host: None,
        };
        bencher.iter(|| fuzz::to_http1(&sender, black_box(&request), Framing::None));
    });
    group.finish();
}

criterion_group!(benches, read, write);
criterion_main!(benches);
