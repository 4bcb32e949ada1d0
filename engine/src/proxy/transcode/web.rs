//! gRPC-Web: what browsers can say of gRPC. Messages are framed alike; trailers come as a last frame of the body, and in
//! the text form everything is base64. Nothing is looked into, so no descriptors are needed.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;

use super::Translated;
use crate::exchange::body::{Body, BodyError, Remake};
use crate::exchange::error::{Code, Error};
use crate::exchange::{Marks, Request, base64, is_grpc};
use crate::proxy::Proxy;
use crate::proxy::answer::Answer;
use crate::proxy::books::Exchange;
use crate::snapshot::RoutePlan;
use crate::transcode::text_of_base64;

/// Marks a frame of trailers.
const TRAILERS: u8 = 0x80;

/// What a client speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    is_text: bool,
    /// Behind the type, such as `+proto`.
    suffix: String,
}

impl Form {
    /// `None`: it is no gRPC-Web.
    pub(super) fn of(headers: &HeaderMap) -> Option<Form> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let rest = kind.strip_prefix("application/grpc-web")?;
        let (is_text, rest) = match rest.strip_prefix("-text") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let suffix = rest.split(';').next().unwrap_or_default().trim();
        (suffix.is_empty() || suffix.starts_with('+')).then(|| Form {
            is_text,
            suffix: suffix.to_owned(),
        })
    }

    /// Of the answer.
    pub(in crate::proxy) fn content_type(&self) -> HeaderValue {
        let text = if self.is_text { "-text" } else { "" };
        let suffix = if self.suffix.is_empty() {
            "+proto"
        } else {
            &self.suffix
        };
        HeaderValue::from_str(&format!("application/grpc-web{text}{suffix}"))
            .unwrap_or(HeaderValue::from_static("application/grpc-web+proto"))
    }
}

impl Proxy {
    pub(super) async fn grpc_web(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        branch: usize,
        request: &mut Request,
        form: Form,
    ) -> Result<Answer, Error> {
        let kind = form.content_type();
        let is_text = form.is_text;
        let inner = format!("application/grpc{}", form.suffix);
        exchange.is_grpc = true;
        exchange.translated = Some(Translated::Web(form));
        let headers = &mut request.headers;
        for name in [
            header::CONTENT_LENGTH,
            header::ACCEPT,
            HeaderName::from_static("x-grpc-web"),
        ] {
            headers.remove(name);
        }
        if let Ok(value) = HeaderValue::from_str(&inner) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        request.marks = Marks::of(headers);
        if is_text && !request.body.is_empty() {
            let body = std::mem::replace(&mut request.body, Body::Empty);
            request.body = Body::Remade(Box::new(FromText {
                body,
                rest: BytesMut::new(),
            }));
        }
        let mut answer = self.serve(exchange, plan, branch, request).await?;
        if answer.response.status != StatusCode::OK || !is_grpc(&answer.response.headers) {
            if exchange.fallback.is_some() {
                return Ok(answer);
            }
            let cause = format!("HTTP {}, and no gRPC", answer.response.status.as_u16());
            return Err(Error::because(Code::UpstreamBadMessage, cause));
        }
        let response = &mut answer.response;
        response.headers.insert(header::CONTENT_TYPE, kind);
        response.headers.remove(header::CONTENT_LENGTH);
        response.announced = None;
        if !response.body.is_empty() {
            let body = std::mem::replace(&mut response.body, Body::Empty);
            response.body = Body::Remade(Box::new(ToWeb {
                body,
                is_text,
                trailers: None,
                over: false,
            }));
        }
        Ok(answer)
    }
}

/// Base64 as it comes; each piece may be padded on its own.
struct FromText {
    body: Body,
    /// What makes no whole group of four yet.
    rest: BytesMut,
}

impl Remake for FromText {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let piece = match ready!(self.body.poll_frame(cx)) {
                None if self.rest.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(BodyError::Malformed))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            self.rest.extend_from_slice(&piece);
            let whole = self.rest.len() / 4 * 4;
            let groups = self.rest.split_to(whole);
            match text_of_base64(&groups) {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                None => return Poll::Ready(Some(Err(BodyError::Malformed))),
            }
        }
    }
}

/// The answer, with its trailers in the body.
struct ToWeb {
    body: Body,
    is_text: bool,
    trailers: Option<HeaderMap>,
    over: bool,
}

impl ToWeb {
    fn spelled(&self, bytes: Bytes) -> Bytes {
        if self.is_text {
            base64::padded(&bytes).into()
        } else {
            bytes
        }
    }
}

impl Remake for ToWeb {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match ready!(self.body.poll_frame(cx)) {
            None => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Poll::Ready(Some(Ok(Frame::data(self.spelled(data))))),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let framed = framed(&trailers);
                    (self.trailers, self.over) = (Some(trailers), true);
                    Poll::Ready(Some(Ok(Frame::data(self.spelled(framed)))))
                }
            },
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}

/// Trailers as lines of HTTP/1, in a frame.
fn framed(trailers: &HeaderMap) -> Bytes {
    let mut out = vec![TRAILERS, 0, 0, 0, 0];
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out.into()
}
