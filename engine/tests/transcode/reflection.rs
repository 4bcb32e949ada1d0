//! Descriptors that the upstream tells (GW-201), by a real server's reflection: `tonic-reflection`, in both versions.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tollgate_engine::testing::gateway::Gateway;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::shop::{json, order, set};

/// Everything that a test waits for comes within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// `shop.v1.Orders`: every method answers this one order.
#[derive(Clone)]
struct Orders;

impl NamedService for Orders {
    const NAME: &'static str = "shop.v1.Orders";
}

impl tonic::codegen::Service<Request<Body>> for Orders {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let order = order(json!({ "id": "7" }));
        let length = u32::try_from(order.len()).expect("a small order");
        let framed = [&[0][..], &length.to_be_bytes(), &order].concat();
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) });
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::new(body));
        std::future::ready(Ok(response.expect("a response")))
    }
}

/// Which reflection is served.
#[derive(Clone, Copy)]
enum Version {
    V1,
    V1Alpha,
    None,
}

/// A server of orders on a thread of its own. Gone, with its connections, when dropped.
struct Shop {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Shop {
    /// `set`: what it tells of itself. `at`: port 0 for any.
    fn start(at: SocketAddr, set: &[u8], version: Version) -> Shop {
        let mut routes = RoutesBuilder::default();
        routes.add_service(Orders);
        let told = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(set);
        match version {
            Version::V1 => drop(routes.add_service(told.build_v1().expect("a good set"))),
            Version::V1Alpha => drop(routes.add_service(told.build_v1alpha().expect("a good set"))),
            Version::None => {}
        }
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let routes = routes.routes();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let incoming = TcpIncoming::bind(at).expect("the address is free");
                bound
                    .send(incoming.local_addr().expect("it is bound"))
                    .expect("somebody waits");
                let serving = Server::builder()
                    .add_routes(routes)
                    .serve_with_incoming(incoming);
                tokio::select! {
                    ended = serving => ended.expect("it serves"),
                    _ = stopped => {}
                }
            });
        });
        Shop {
            address: address.recv().expect("the server's thread lives"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// On a loopback address of its own, so that nobody takes its port when it comes again.
    fn anywhere(set: &[u8], version: Version) -> Shop {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let id = std::process::id();
        let part = |number: u32| u8::try_from(number % 250 + 1).expect("less than 256");
        let host = [127, part(id / 250), part(id), NEXT.fetch_add(1, Relaxed)];
        Shop::start((host, 0).into(), set, version)
    }

    /// Ends it, and tells where it was.
    fn end(mut self) -> SocketAddr {
        self.stop.take();
        self.thread
            .take()
            .expect("it runs")
            .join()
            .expect("it ended well");
        self.address
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// `top`: lines above all others; `filter`: further keys of the filter.
fn document(address: SocketAddr, top: &str, filter: &str) -> String {
    format!(
        "{top}[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nname = \"shop\"\nmatch = {{ path = \"/api/*\" }}\n\
         rewrite = {{ strip_prefix = \"/api\" }}\nupstream = \"shop\"\n\
         filters = [{{ transcode = {{ reflection = true, refresh = \"1s\"{filter} }} }}]\n\n\
         [[route]]\nname = \"other\"\nmatch = {{ path = \"/other\" }}\nrespond = {{ status = 204 }}\n\n\
         [[upstream]]\nname = \"shop\"\nendpoints = [\"{address}\"]\nprotocol = \"http2\"\nbreaker = \"off\"\n"
    )
}

/// The same shop, whose orders are found elsewhere.
fn moved() -> Vec<u8> {
    let mut moved = set().to_vec();
    while let Some(at) = moved
        .windows(15)
        .position(|part| part == b"/v1/orders/{id}")
    {
        moved[at..at + 3].copy_from_slice(b"/v9");
    }
    moved
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn status(gateway: &Gateway, target: &str) -> u16 {
    gateway.get(target).status
}

#[test]
fn gw_201_an_upstream_tells_what_it_can_be_asked_in_either_version() {
    for version in [Version::V1, Version::V1Alpha] {
        let shop = Shop::anywhere(set(), version);
        let gateway = Gateway::start(&document(shop.address, "", ""));
        until("the descriptors", || {
            status(&gateway, "/api/v1/orders/7") == 200
        });
        let answer = gateway.get("/api/v1/orders/7");
        assert_eq!(json(&answer)["id"], "7");
        assert_eq!(status(&gateway, "/api/v1/nothing"), 404);
        let metrics = gateway.metrics();
        assert!(
            metrics.contains("descriptor_fetches_total{upstream=\"shop\"}"),
            "{metrics}"
        );
    }
}

#[test]
fn gw_201_other_descriptors_are_taken_and_those_that_do_not_fit_the_document_are_not() {
    let shop = Shop::anywhere(set(), Version::V1);
    let gateway = Gateway::start(&document(
        shop.address,
        "",
        ", services = [\"shop.v1.Orders\"]",
    ));
    until("the descriptors", || {
        status(&gateway, "/api/v1/orders/7") == 200
    });
    let shop = Shop::start(shop.end(), &moved(), Version::V1);
    until("the new ones", || {
        status(&gateway, "/api/v9/orders/7") == 200
    });
    assert_ne!(status(&gateway, "/api/v1/orders/7"), 200, "it moved away");

    // A document that names what the upstream does not have is taken: what else stands in it must not wait. The route does.
    let wrong = document(shop.address, "", ", services = [\"shop.v1.Nowhere\"]");
    gateway.edit(&wrong).expect("it is taken");
    let answer = gateway.get("/api/v9/orders/7");
    assert_eq!(
        (answer.status, &json(&answer)["code"]),
        (503, &"descriptors_unavailable".into())
    );
    assert_eq!(status(&gateway, "/other"), 204);
    gateway
        .edit(&document(shop.address, "", ""))
        .expect("it is good");
    until("it fits again", || {
        status(&gateway, "/api/v9/orders/7") == 200
    });
}

#[test]
fn gw_201_an_upstream_that_tells_nothing_holds_up_nobody() {
    let shop = Shop::anywhere(set(), Version::None);
    let gateway = Gateway::start(&document(shop.address, "", ", unmatched = \"pass\""));
    let answer = gateway.get("/api/v1/orders/7");
    assert_eq!(
        (answer.status, &json(&answer)["code"]),
        (503, &"descriptors_unavailable".into())
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(status(&gateway, "/other"), 204);
    until("failures are counted", || {
        let metrics = gateway.metrics();
        let failures = metrics
            .lines()
            .find(|line| line.starts_with("descriptor_fetch_failures_total{upstream=\"shop\"}"));
        failures.is_some_and(|line| !line.ends_with(" 0"))
    });
    // It learns to, without a word to the gateway.
    let _shop = Shop::start(shop.end(), set(), Version::V1);
    until("the descriptors", || {
        status(&gateway, "/api/v1/orders/7") == 200
    });
}

#[test]
fn gw_201_the_last_descriptors_are_there_when_the_upstream_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let top = format!("[server]\nstate_dir = \"{}\"\n\n", folder.path().display());
    let shop = Shop::anywhere(set(), Version::V1);
    let text = document(shop.address, &top, "");
    let gateway = Gateway::start(&text);
    until("the descriptors", || {
        status(&gateway, "/api/v1/orders/7") == 200
    });
    let kept = folder.path().join("descriptors");
    until("they are kept", || {
        std::fs::read_dir(&kept).is_ok_and(|files| {
            files
                .flatten()
                .any(|file| file.path().extension().is_some_and(|end| end == "binpb"))
        })
    });
    gateway.stop();
    shop.end();

    let gateway = Gateway::start(&text);
    let answer = gateway.get("/api/v1/orders/7");
    assert_eq!(
        (answer.status, &json(&answer)["code"]),
        (503, &"connect_failed".into()),
        "it is known what to call"
    );
    assert_eq!(status(&gateway, "/api/v1/nothing"), 404);
    gateway.stop();

    // No route asks any more: nothing is left of it.
    let gateway = Gateway::start(&text);
    let rest = text.replace("reflection = true, refresh = \"1s\"", "convention = true");
    assert!(gateway.edit(&rest).is_err(), "descriptors from nowhere");
    let (head, tail) = text
        .split_once("[[route]]\nname = \"shop\"")
        .expect("a route");
    let (_, tail) = tail.split_once("[[route]]").expect("another route");
    gateway
        .edit(&format!("{head}[[route]]{tail}"))
        .expect("it is good");
    until("they are forgotten", || {
        std::fs::read_dir(&kept).is_ok_and(|mut files| files.next().is_none())
    });
}
