//! Where a request that is not gRPC becomes a call, and its answer becomes what the client understands. Comes behind the
//! chain and before everything that forwarding does, so breakers, retries, hedges, budgets and deadlines see a gRPC call
//! like any other. A request that is gRPC already passes untouched.
//!
//! An answer of one message is waited for as a whole, because how a call ended stands in its trailers, and HTTP says it
//! first. Streams go on message by message; only one is held.

mod download;
mod head;
mod upload;
mod wait;
mod web;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use tollgate_config::ErrorBody;

use super::Proxy;
use super::answer::Answer;
use super::books::Exchange;
use super::forward;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error, whole_seconds};
use crate::exchange::{Request, Response, is_grpc};
use crate::snapshot::RoutePlan;
use crate::transcode::plan::{Binding, Call, Called};
use crate::transcode::request::Said;
use crate::transcode::status::{self, Correlated, Status};
use crate::transcode::{Bound, Transcoder, Unreadable};
use download::{Download, Form};
use head::{become_call, beyond, content_type, head, refused};
use upload::Upload;
use wait::Wait;
pub(super) use wait::body_frame;

/// When to ask again for what the upstream has not told yet.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What the client speaks, when the upstream is spoken to in gRPC for it.
pub enum Translated {
    Json {
        /// The path that the client asked for.
        path: String,
    },
    Web(web::Form),
}

impl Proxy {
    /// Forwards a request of a route that translates.
    pub(super) async fn translate(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        branch: usize,
        request: &mut Request,
    ) -> Result<Answer, Error> {
        let chain = &plan.compiled.chain;
        if exchange.is_grpc || request.upgrade.is_some() {
            return self.serve(exchange, plan, branch, request).await;
        }
        if chain.has_grpc_web()
            && let Some(form) = web::Form::of(&request.headers)
        {
            return self.grpc_web(exchange, plan, branch, request, form).await;
        }
        let Some(transcoder) = chain.transcoder() else {
            return self.serve(exchange, plan, branch, request).await;
        };
        let before = request.target.clone();
        forward::rewrite(plan, request)?;
        match transcoder.find(&request.method, request.target.path()) {
            Called::Method(call) => {
                let path = before.path().to_owned();
                exchange.translated = Some(Translated::Json { path });
                self.call(exchange, plan, branch, request, transcoder, call)
                    .await
            }
            Called::Unknown => Err(Error {
                retry_after: Some(UNKNOWN),
                ..Code::DescriptorsUnavailable.into()
            }),
            _ if transcoder.passes_unmatched => {
                request.target = before;
                self.serve(exchange, plan, branch, request).await
            }
            Called::Other(methods) => {
                let names: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
                Err(Error {
                    allow: Some(names.join(", ").into()),
                    ..Code::MethodNotAllowed.into()
                })
            }
            Called::Nothing => Err(Code::UnknownMethod.into()),
        }
    }

    async fn call(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        branch: usize,
        request: &mut Request,
        transcoder: &Arc<Transcoder>,
        call: Call<'_>,
    ) -> Result<Answer, Error> {
        let binding = call.binding;
        let coding = request.headers.get(header::CONTENT_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Code::UnsupportedContent.into());
        }
        let trouble = upload::Trouble::default();
        let mut taken = None;
        if binding.client_streams {
            let body = std::mem::replace(&mut request.body, Body::Empty);
            let target = std::mem::take(&mut request.target);
            let upload = Upload::new(
                transcoder.clone(),
                plan,
                &call,
                target,
                content_type(&request.headers),
                body,
                trouble.clone(),
            );
            request.body = Body::Remade(Box::new(upload));
        } else {
            let body = match binding.body {
                crate::transcode::plan::Body::None => Bytes::new(),
                _ => self.whole_body(exchange, plan, request, transcoder).await?,
            };
            taken = Some(body.len() as u64);
            let said = Said {
                path: request.target.path(),
                query: request.target.query(),
                content_type: content_type(&request.headers),
                body: &body,
            };
            let mut framed = Vec::with_capacity(body.len() + 64);
            call.message(transcoder, &said, &mut framed)
                .map_err(|unfit| refused(unfit, &body, transcoder, plan))?;
            request.body = Body::Full(framed.into());
        }
        let form = Form::of(&request.headers);
        become_call(exchange, plan, request, binding);
        let answer = self.serve(exchange, plan, branch, request).await;
        let mut answer = match (answer, trouble.take()) {
            (Ok(answer), None) => answer,
            (_, Some(error)) => return Err(error),
            (Err(error), None) => return Err(error),
        };
        if exchange.fallback.is_some() && !is_grpc(&answer.response.headers) {
            return Ok(answer);
        }
        if answer.response.status != StatusCode::OK || !is_grpc(&answer.response.headers) {
            let cause = format!("HTTP {}, and no gRPC", answer.response.status.as_u16());
            return Err(Error::because(Code::UpstreamBadMessage, cause));
        }
        if let Some(ended) = Status::of(&answer.response.headers) {
            // Trailers only: nothing else comes.
            return self.ended(exchange, transcoder, binding, ended, None, answer);
        }
        let wait = Wait::new(exchange, plan, binding);
        if !binding.server_streams {
            let (message, ended) = wait
                .whole(exchange, plan, &mut answer, transcoder, &trouble)
                .await?;
            if let Some(taken) = taken {
                exchange.bytes_in = taken;
            }
            return self.ended(exchange, transcoder, binding, ended, message, answer);
        }
        let mut download = Download::new(
            transcoder.clone(),
            binding,
            form,
            exchange.request_id.as_str().to_owned(),
            trouble,
        );
        if binding.raw_response {
            // Only the first message says of which type the whole is.
            match wait
                .first(exchange, plan, &mut answer, &mut download)
                .await?
            {
                Ok(kind) => head(&mut answer.response, &kind),
                Err(ended) => {
                    return self.ended(exchange, transcoder, binding, ended, None, answer);
                }
            }
        } else {
            head(&mut answer.response, form.content_type());
            if form == Form::Events {
                answer
                    .response
                    .headers
                    .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            }
        }
        let body = std::mem::replace(&mut answer.response.body, Body::Empty);
        answer.response.body = Body::Remade(Box::new(download.over(body)));
        Ok(answer)
    }

    /// A call that is over, as a whole answer.
    fn ended(
        &self,
        exchange: &mut Exchange,
        transcoder: &Transcoder,
        binding: &Binding,
        ended: Status,
        message: Option<Bytes>,
        answer: Answer,
    ) -> Result<Answer, Error> {
        let mut response = Response::new(binding.status, answer.response.headers, Body::Empty);
        // For us, whatever it says.
        let said =
            { transcoder.status_header.as_ref() }.and_then(|name| response.headers.remove(name));
        if ended.code != status::OK {
            response.status = ended.http(&transcoder.statuses);
            let id = exchange.request_id.as_str();
            let (schema, rules) = (&transcoder.schema, &transcoder.rules);
            let (kind, told) = match exchange.world.errors {
                ErrorBody::Problem => (
                    "application/problem+json",
                    ended.problem(schema, rules, response.status, id),
                ),
                ErrorBody::Envelope => {
                    let correlated = Correlated {
                        request_id: id,
                        trace: &exchange.trace.trace_id,
                    };
                    let told = ended.envelope(schema, rules, response.status, correlated);
                    ("application/json", told)
                }
            };
            head(&mut response, kind);
            if let Some(after) = ended.retry_after() {
                let value = HeaderValue::from(whole_seconds(after));
                response.headers.insert(header::RETRY_AFTER, value);
            }
            response.body = Body::Full(told.into());
            return Ok(Answer::of(response));
        }
        let Some(message) = message.or(binding.server_streams.then(Bytes::new)) else {
            return Err(Error::because(
                Code::UpstreamBadMessage,
                "the call ended well without a message",
            ));
        };
        let said = said.and_then(|value| value.to_str().ok()?.parse().ok());
        let said = said.filter(StatusCode::is_success);
        response.status = said.unwrap_or(response.status);
        let bad = |why: Unreadable| Error::because(Code::UpstreamBadMessage, why.words());
        if binding.raw_response {
            let plain = transcoder.plain(binding, &message).map_err(bad)?;
            head(&mut response, &plain.content_type);
            response.body = Body::Full(plain.data);
            return Ok(Answer::of(response));
        }
        let mut json = Vec::with_capacity(message.len() * 2 + 64);
        if transcoder.envelope && !binding.server_streams {
            let written = transcoder.enveloped(binding, &message, &mut json);
            written.map_err(bad)?;
        } else if !binding.server_streams {
            transcoder.json(binding, &message, &mut json).map_err(bad)?;
        }
        head(&mut response, "application/json");
        response.body = Body::Full(json.into());
        Ok(Answer::of(response))
    }

    /// All of a request's body, within `max_message`, the route's `max_body` and its patience.
    async fn whole_body(
        &self,
        exchange: &Exchange,
        plan: &RoutePlan,
        request: &mut Request,
        transcoder: &Transcoder,
    ) -> Result<Bytes, Error> {
        let most = transcoder.rules.max_message as u64;
        let fits = |length: u64| -> Result<(), Error> {
            if plan.item.max_body.value.is_some_and(|max| length > max) {
                return Err(forward::too_large(plan));
            }
            if length > most {
                Err(beyond(Bound::Message, transcoder, plan))
            } else {
                Ok(())
            }
        };
        fits(request.body.length().unwrap_or(0))?;
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = wait::body_frame(exchange, plan, &mut request.body).await? {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            fits((first.len() + rest.len() + data.len()) as u64)?;
            // Most bodies come in one piece, which is not copied.
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    }
}
