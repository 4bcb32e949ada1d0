//! The HTTP probe: `GET path`, and any 2xx is well. The body is not read: the connection is dropped with the answer.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Method, Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{AsyncReadWrite, broken, unwritable};

pub(super) const AGENT: &str = "tollgate-health";

pub(super) async fn over_http1(
    stream: Box<dyn AsyncReadWrite>,
    authority: &str,
    path: &str,
) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(unwritable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = pin!(sender.send_request(request));
    let response = match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer.map_err(broken)?,
        // The connection is over before the answer was taken: it may be there all the same.
        Either::Right((_, answer)) => answer.await.map_err(broken)?,
    };
    judge(&response)
}

pub(super) async fn over_http2(
    stream: Box<dyn AsyncReadWrite>,
    authority: &str,
    path: &str,
) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("http://{authority}{path}"))
        .header(header::USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(unwritable)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(broken)?;
    let answer = async { sender.send_request(request).await.map_err(broken) };
    judge(&alongside(connection, answer).await?)
}

/// Drives a connection for as long as `work` on it takes.
pub(super) async fn alongside<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match select(pin!(work), pin!(connection)).await {
        Either::Left((result, _)) => result,
        Either::Right((_, work)) => work.await,
    }
}

fn judge(response: &Response<Incoming>) -> Result<(), String> {
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("answered {}", response.status().as_u16()))
    }
}
