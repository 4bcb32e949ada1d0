//! Probes against small servers on loopback; every step waits for a turn that the prober tells, never for time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tollgate_config::Balance;

use super::*;
use crate::testing::PATIENCE;
use crate::upstream::tests::{item, settings};

fn plain() -> Connect {
    Arc::new(|address| {
        Box::pin(async move {
            Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn AsyncReadWrite>)
        })
    })
}

fn health(probe: Probe) -> Health {
    let interval = Duration::from_millis(20);
    Health {
        probe,
        interval,
        timeout: PATIENCE,
        unhealthy_after: 3,
        healthy_after: 1,
    }
}

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(
        address,
        "orders.internal:7000".into(),
        1,
        None,
    ))
}

fn upstream(health: Health, protocol: UpstreamProtocol, address: SocketAddr) -> Arc<Upstream> {
    let settings = tollgate_config::Upstream {
        breaker: None,
        retry_budget: None,
        health: Some(health),
        protocol,
        ..settings(Balance::Random)
    };
    Arc::new(Upstream::new(
        item(settings),
        0,
        vec![endpoint(address)],
        None,
        Instant::now(),
    ))
}

/// Runs a prober while `test` listens to its turns.
async fn probing<F: Future<Output = ()>>(
    upstream: &Arc<Upstream>,
    connect: Connect,
    test: impl FnOnce(mpsc::UnboundedReceiver<(SocketAddr, Turn)>) -> F,
) {
    let (tell, turns) = mpsc::unbounded_channel();
    let prober = Prober::new(upstream.clone(), connect);
    let told = move |endpoint: &Arc<Endpoint>, turn: &Turn| {
        tell.send((endpoint.address(), turn.clone())).unwrap()
    };
    tokio::select! {
        () = prober.run(told) => panic!("a prober never ends by itself"),
        () = test(turns) => {}
        () = tokio::time::sleep(PATIENCE) => panic!("no turn in time"),
    }
}

/// The reason of the next turn, which must be for the worse.
async fn reason(turns: &mut mpsc::UnboundedReceiver<(SocketAddr, Turn)>) -> String {
    match turns.recv().await.unwrap().1 {
        Turn::Unhealthy(reason) => reason,
        Turn::Healthy => panic!("healthy"),
    }
}

async fn http_server(well: Arc<AtomicBool>, seen: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut request).await.unwrap_or(0) > 0
            {}
            *seen.lock().unwrap() = String::from_utf8(request).unwrap();
            let status = if well.load(Relaxed) {
                "204 No Content"
            } else {
                "503 Service Unavailable"
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    address
}

#[tokio::test]
async fn a_prober_can_be_spawned_and_stopped() {
    let address = ([127, 0, 0, 1], 9).into();
    let upstream = upstream(health(Probe::Tcp), UpstreamProtocol::Http1, address);
    let never: Connect = Arc::new(|_| Box::pin(std::future::pending()));
    let prober = Prober::new(upstream.clone(), never);
    let task = tokio::spawn(prober.run(|_, _| {}));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(Arc::strong_count(&upstream), 1, "nothing is left behind");
}

/// GW-706, GW-707: out after three failures, back after one success, and then slowly.
#[tokio::test]
async fn an_http_endpoint_is_out_while_it_does_not_answer_2xx() {
    let (well, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let address = http_server(well.clone(), Arc::clone(&seen)).await;
    let upstream = upstream(
        health(Probe::Http {
            path: "/ready".into(),
        }),
        UpstreamProtocol::Http1,
        address,
    );
    probing(&upstream, plain(), |mut turns| async move {
        assert_eq!(reason(&mut turns).await, "answered 503");
        well.store(true, Relaxed);
        assert_eq!(turns.recv().await.unwrap(), (address, Turn::Healthy));
    })
    .await;
    let endpoint = upstream.endpoints().iter().next().unwrap().clone();
    assert!(!endpoint.verdict.is_failing());
    assert!(endpoint.share(Instant::now().into()) < 1.0, "slow start");
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with("GET /ready HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: orders.internal:7000\r\n"), "{seen}");
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_out() {
    let address = crate::testing::upstream::Upstream::nobody();
    let upstream = upstream(health(Probe::Tcp), UpstreamProtocol::Http1, address);
    probing(&upstream, plain(), |mut turns| async move {
        let reason = reason(&mut turns).await;
        assert!(reason.starts_with("could not connect: "), "{reason}");
    })
    .await;
    assert!(
        !upstream
            .endpoints()
            .iter()
            .next()
            .unwrap()
            .is_healthy(Instant::now())
    );
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_out_when_time_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = Health {
        timeout: Duration::from_millis(20),
        ..health(Probe::Http { path: "/".into() })
    };
    let upstream = upstream(
        policy,
        UpstreamProtocol::Http1,
        listener.local_addr().unwrap(),
    );
    probing(&upstream, plain(), |mut turns| async move {
        assert_eq!(reason(&mut turns).await, "no answer within 20ms");
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_http_are_a_failure_and_no_panic() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await);
        }
    });
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let upstream = upstream(health(Probe::Http { path: "/".into() }), protocol, address);
        probing(&upstream, plain(), |mut turns| async move {
            let reason = reason(&mut turns).await;
            assert!(reason.starts_with("the exchange broke off: "), "{reason}");
        })
        .await;
    }
}

/// Answers every check with this status; `NOT_FOUND` when it is `None`. Also any HTTP/2 `GET`.
async fn grpc_server(status: Arc<Mutex<Option<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let status = status.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let status = *status.lock().unwrap();
                    let head =
                        ::http::Response::builder().header("content-type", "application/grpc");
                    let (head, end) = match status {
                        Some(_) if request.method() == "POST" => (head, false),
                        Some(_) => (head.status(200), true),
                        None => (head.header("grpc-status", "5"), true),
                    };
                    let mut send = respond.send_response(head.body(()).unwrap(), end).unwrap();
                    if let Some(status) = status.filter(|_| !end) {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        send.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), false)
                            .unwrap();
                        let mut trailers = ::http::HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        send.send_trailers(trailers).unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_grpc_endpoint_is_well_while_it_says_serving() {
    let status = Arc::new(Mutex::new(Some(2)));
    let address = grpc_server(status.clone()).await;
    let upstream = upstream(
        health(Probe::Grpc {
            service: "orders".into(),
        }),
        UpstreamProtocol::Http2,
        address,
    );
    probing(&upstream, plain(), |mut turns| async move {
        assert_eq!(reason(&mut turns).await, "answered NOT_SERVING");
        *status.lock().unwrap() = Some(1);
        assert_eq!(turns.recv().await.unwrap().1, Turn::Healthy);
        *status.lock().unwrap() = None;
        assert_eq!(reason(&mut turns).await, "answered grpc-status 5");
    })
    .await;
}

#[tokio::test]
async fn an_http2_upstream_is_probed_over_http2() {
    let status = Arc::new(Mutex::new(Some(1)));
    let address = grpc_server(status).await;
    let upstream = upstream(
        health(Probe::Http {
            path: "/ready".into(),
        }),
        UpstreamProtocol::Http2,
        address,
    );
    upstream
        .endpoints()
        .iter()
        .next()
        .unwrap()
        .verdict
        .set_failing(true);
    probing(&upstream, plain(), |mut turns| async move {
        assert_eq!(turns.recv().await.unwrap().1, Turn::Healthy);
    })
    .await;
}

#[tokio::test]
async fn endpoints_that_discovery_brings_are_probed_and_those_it_takes_away_are_not() {
    let closed = |_: usize| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (first, second) = (closed(0).await, closed(1).await);
    let upstream = upstream(health(Probe::Tcp), UpstreamProtocol::Http1, first);
    let asked_after_removal = Arc::new(AtomicUsize::new(0));
    let removed = Arc::new(AtomicBool::new(false));
    let connect: Connect = {
        let (asked, removed) = (asked_after_removal.clone(), removed.clone());
        Arc::new(move |address| {
            if address == first && removed.load(Relaxed) {
                asked.fetch_add(1, Relaxed);
            }
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        })
    };
    let replaced = upstream.clone();
    probing(&upstream, connect, |mut turns| async move {
        assert_eq!(turns.recv().await.unwrap().0, first);
        replaced.replace(vec![endpoint(second)], Instant::now());
        removed.store(true, Relaxed);
        assert_eq!(turns.recv().await.unwrap().0, second);
    })
    .await;
    assert_eq!(asked_after_removal.load(Relaxed), 0);
}
