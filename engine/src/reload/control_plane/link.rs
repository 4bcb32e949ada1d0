//! One HTTP/2 connection to a control plane: the open request whose answer is the feed, and short ones beside it. The
//! only file here that knows sockets. Memory is one line and one window, whatever is sent.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, StatusCode, header};
use tokio::task::AbortHandle;
use tollgate_config::document::{At, UpstreamTls};
use tollgate_config::feed::{Subscribe, Wants, WantsAnswer};
use tollgate_config::{ControlPlane, Secret, UpstreamProtocol, Url};

use super::lines::Lines;
use crate::net::connect::{DialTls, dial};
use crate::net::tls::ClientTls;
use crate::upstream::discovery::resolve;

/// From a name to the head of an answer.
const CONNECT: Duration = Duration::from_secs(5);
/// For a short request to be answered (REG-205).
const REPORT: Duration = Duration::from_secs(10);
/// What a control plane may send ahead of us.
const WINDOW: u32 = 1 << 20;
/// Bytes of an answer about services: more names than may be wanted take less.
const WANTS: usize = 4 << 20;
/// Bytes of a short answer that are read.
const ANSWER: usize = 16 * 1024;

pub(super) struct Link {
    connection: Connection,
    body: RecvStream,
    lines: Lines,
}

/// A connection, for short requests; its task ends with it.
pub(super) struct Connection {
    desk: Desk,
    driver: AbortHandle,
    /// Our end of it.
    local: Option<IpAddr>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Where requests can be sent, for as long as the connection lives.
#[derive(Clone)]
pub(super) struct Desk {
    sender: SendRequest<Bytes>,
    authority: String,
    scheme: &'static str,
    /// `Bearer …`, if the control plane is to be shown who we are.
    token: Option<HeaderValue>,
}

impl Link {
    /// Connects and subscribes. The words of an error need the URL before them.
    pub(super) async fn open(
        url: &Url,
        settings: &ControlPlane,
        subscribe: &Subscribe,
    ) -> Result<Link, String> {
        let opening = async {
            let connection = open(url, settings).await?;
            let request = serde_json::to_vec(subscribe).map_err(|error| error.to_string())?;
            let desk = &connection.desk;
            let (status, mut body) = desk.ask(Method::POST, "/feed", request.into()).await?;
            if status != StatusCode::OK {
                let text = read(&mut body).await;
                return Err(format!("it answered {}: {text}", status.as_u16()));
            }
            Ok(Link {
                connection,
                body,
                lines: Lines::default(),
            })
        };
        within(CONNECT, opening).await
    }

    /// The next line, or why there is none. Cancelling loses nothing. `heard` is called whenever bytes arrive.
    pub(super) async fn line(&mut self, mut heard: impl FnMut()) -> Result<BytesMut, String> {
        loop {
            match self.lines.next() {
                Ok(Some(line)) => return Ok(line),
                Ok(None) => {}
                Err(_) => return Err("it sent a line that is too long".to_owned()),
            }
            match self.body.data().await {
                Some(Ok(data)) => {
                    heard();
                    self.lines.push(&data);
                    self.body
                        .flow_control()
                        .release_capacity(data.len())
                        .map_err(|error| error.to_string())?;
                }
                Some(Err(error)) => return Err(format!("the feed broke off: {error}")),
                None => return Err("the feed ended".to_owned()),
            }
        }
    }

    pub(super) fn desk(&self) -> Desk {
        self.connection.desk.clone()
    }
}

impl Connection {
    pub(super) async fn open(url: &Url, settings: &ControlPlane) -> Result<Connection, String> {
        within(CONNECT, open(url, settings)).await
    }

    /// The address of this machine that the way to the control plane begins at.
    pub(super) fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// One request; its status and, of what comes with it, the beginning.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, String), String> {
        let asking = async {
            let (status, mut body) = self.desk.ask(method, path, body).await?;
            Ok((status, read(&mut body).await))
        };
        within(REPORT, asking).await
    }
}

impl Connection {
    /// One request; its status, and what comes with it, up to so many bytes. The caller sees to it that it ends.
    pub(super) async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        most: usize,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let (status, body) = self.desk.ask(method, path, body).await?;
        Ok((status, whole(body, most).await?))
    }
}

/// All that comes with an answer.
async fn whole(mut body: RecvStream, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| format!("the answer broke off: {error}"))?;
        bytes.extend_from_slice(&data);
        if bytes.len() > most {
            return Err("its answer is too long".to_owned());
        }
        body.flow_control()
            .release_capacity(data.len())
            .map_err(|error| error.to_string())?;
    }
    Ok(bytes)
}

async fn within<T>(
    time: Duration,
    doing: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let done = tokio::time::timeout(time, doing).await;
    done.unwrap_or_else(|_| Err(format!("no answer within {time:?}")))
}

async fn open(url: &Url, settings: &ControlPlane) -> Result<Connection, String> {
    let address = resolve(&url.address).await?;
    let tls = match url.encrypted {
        false => None,
        true => {
            let none = UpstreamTls {
                ca: None,
                name: None,
                cert: None,
                key: None,
                at: At(None),
            };
            // Read at every attempt: a renewed certificate needs no restart.
            let tls = settings.tls.as_ref().unwrap_or(&none);
            let tls = ClientTls::load(tls, UpstreamProtocol::Http2).map_err(|e| e.to_string())?;
            Some(DialTls::of(&tls, &url.address).map_err(|e| e.to_string())?)
        }
    };
    let (stream, _) = dial(address, tls.as_ref())
        .await
        .map_err(|e| e.to_string())?;
    let local = stream.socket().local_addr().ok();
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::task::spawn_local(async move {
        // Whoever waits for a stream of it is told.
        drop(connection.await);
    });
    let scheme = if url.encrypted { "https" } else { "http" };
    Ok(Connection {
        desk: Desk {
            sender,
            authority: url.address.clone(),
            scheme,
            token: settings.token.as_ref().and_then(bearer),
        },
        driver: driver.abort_handle(),
        local: local.map(|address| address.ip().to_canonical()),
    })
}

impl Desk {
    /// Says which services are wanted from now on; which of them are not registered.
    pub(super) async fn wants(self, node: &str, wants: &Wants) -> Result<WantsAnswer, String> {
        let path = format!("/nodes/{}/wants", escaped(node));
        let body = serde_json::to_vec(wants).map_err(|error| error.to_string())?;
        let asking = async {
            let (status, body) = self.ask(Method::POST, &path, body.into()).await?;
            let body = whole(body, WANTS).await?;
            if status != StatusCode::OK {
                return Err(format!("it answered {}: {}", status.as_u16(), words(&body)));
            }
            serde_json::from_slice(&body).map_err(|_| "its answer cannot be read".to_owned())
        };
        within(REPORT, asking).await
    }

    /// Sends the answer to a question.
    pub(super) async fn answer(self, node: &str, id: &str, answer: Vec<u8>) -> Result<(), String> {
        let path = format!("/nodes/{}/answers/{}", escaped(node), escaped(id));
        self.tell(&path, answer).await
    }

    /// Sends a report; what becomes of it is told, and whoever has more to say sends another one.
    pub(super) async fn report(self, node: &str, report: Vec<u8>) -> Result<(), String> {
        let path = format!("/nodes/{}/report", escaped(node));
        self.tell(&path, report).await
    }

    async fn tell(self, path: &str, words: Vec<u8>) -> Result<(), String> {
        let sending = async {
            let (status, mut body) = self.ask(Method::POST, path, words.into()).await?;
            if status.is_success() {
                return Ok(());
            }
            let text = read(&mut body).await;
            Err(format!("it answered {}: {text}", status.as_u16()))
        };
        within(REPORT, sending).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, RecvStream), String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}://{}{path}", self.scheme, self.authority))
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("tollgate/", env!("CARGO_PKG_VERSION")),
            )
            .body(())
            .map_err(|error| error.to_string())?;
        if let Some(token) = &self.token {
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        let ready = self.sender.clone().ready().await;
        let mut sender = ready.map_err(|error| error.to_string())?;
        let (answer, mut stream) = sender
            .send_request(request, false)
            .map_err(|error| error.to_string())?;
        // The library keeps what does not fit into the other side's window yet: one report, of bounded length.
        stream
            .send_data(body, true)
            .map_err(|error| error.to_string())?;
        let answer = answer.await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        Ok((head.status, body))
    }
}

/// Never part of a compression table, nor of what is logged.
fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.0)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The beginning of a short answer, on one line.
async fn read(body: &mut RecvStream) -> String {
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        text.extend_from_slice(&data);
        if text.len() > ANSWER || body.flow_control().release_capacity(data.len()).is_err() {
            break;
        }
    }
    words(&text)
}

/// The beginning of a text from outside, on one line.
pub(super) fn words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words: String = text.trim().chars().take(300).collect();
    words.replace(char::is_control, " ")
}

/// A name as one segment of a path.
pub(super) fn escaped(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}
