//! One HTTP/1 exchange with an instance: what is asked is bounded by whoever asks, in time and in bytes.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The status, and what comes with it: not at all, or up to so many bytes.
pub(super) async fn get(
    stream: TcpStream,
    host: &str,
    path: &str,
    most: Option<usize>,
) -> Result<(u16, Bytes), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "tollgate-control-plane")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let asking = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(words)?
            .into_parts();
        let status = head.status.as_u16();
        let Some(most) = most else {
            return Ok((status, Bytes::new()));
        };
        let body = Limited::new(body, most).collect().await;
        let body =
            body.map_err(|error| format!("its answer broke off, or is too long: {error}"))?;
        Ok((status, body.to_bytes()))
    };
    let mut asking = std::pin::pin!(asking);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        _ = &mut connection => asking.await,
    }
}

fn words(error: hyper::Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
