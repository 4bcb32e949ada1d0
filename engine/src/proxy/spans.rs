//! What of an exchange becomes spans (MESH-502): the tries, noted while they happen, and the request, when its books close.
//!
//! Each try has a span id of its own, which the next hop is told as its parent; the tries' parent is the request's own span.
//! Nothing is written before the end, so a client that leaves in the middle leaves no span open, and whoever closes the books
//! has closed the spans.

use std::cell::{RefCell, RefMut};
use std::net::SocketAddr;
use std::time::Instant;

use http::{HeaderValue, StatusCode};
use smallvec::SmallVec;
use tollgate_config::span::SpanKind;

use super::Proxy;
use super::books::Exchange;
use super::edges::Ends;
use crate::clock;
use crate::exchange::error::Code;
use crate::telemetry::metrics::HedgeResult;
use crate::telemetry::spans::{Head, Tag, Tags, Wanted, WorkerSpans};

/// The tries of one exchange. In a cell, because a second try begins while a first one looks at the exchange.
#[derive(Default)]
pub(super) struct Tried(RefCell<SmallVec<[Try; 1]>>);

struct Try {
    span_id: [u8; 8],
    /// From 1.
    number: u32,
    /// It was made beside another.
    hedge: bool,
    branch: Option<usize>,
    endpoint: SocketAddr,
    started: Instant,
    /// `None`: it goes on until the exchange ends.
    ended: Option<Instant>,
    came: Came,
}

#[derive(Clone, Copy)]
enum Came {
    /// Nobody waited for what would have come.
    Nothing,
    Answer {
        status: StatusCode,
        good: bool,
    },
    Failure(Code),
}

impl Try {
    fn failed(&self) -> bool {
        match self.came {
            Came::Nothing => false,
            Came::Answer { good, .. } => !good,
            Came::Failure(code) => code.status().is_server_error(),
        }
    }
}

impl Tried {
    pub(super) fn begin(
        &self,
        span_id: [u8; 8],
        (number, hedge): (u32, bool),
        branch: Option<usize>,
        endpoint: SocketAddr,
        started: Instant,
    ) {
        self.0.borrow_mut().push(Try {
            span_id,
            number,
            hedge,
            branch,
            endpoint,
            started,
            ended: None,
            came: Came::Nothing,
        });
    }

    /// An answer's head came; its body goes on.
    pub(super) fn answered(&self, number: u32, status: StatusCode, good: bool) {
        self.change(number, |one| one.came = Came::Answer { status, good });
    }

    pub(super) fn failed(&self, number: u32, code: Code) {
        self.change(number, |one| one.came = Came::Failure(code));
        self.end(number);
    }

    /// Nothing more of it is of use.
    pub(super) fn end(&self, number: u32) {
        let now = clock::recent();
        self.change(number, |one| one.ended = Some(now));
    }

    /// The exchange has done with all of them, and goes on.
    pub(super) fn end_all(&self) {
        let now = clock::recent();
        for one in self.0.borrow_mut().iter_mut() {
            one.ended.get_or_insert(now);
        }
    }

    /// It met a connection that was closed before, and is made once more under the same number.
    pub(super) fn forget(&self, number: u32) {
        self.0.borrow_mut().retain(|one| one.number != number);
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Try)) {
        let mut tries = self.0.borrow_mut();
        if let Some(one) = tries.iter_mut().rfind(|one| one.number == number) {
            change(one);
        }
    }
}

impl Proxy {
    pub(super) fn draw_span_id(&self) -> [u8; 8] {
        let mut noise = self.noise.borrow_mut();
        crate::exchange::trace::span_id(|| noise.draw())
    }

    pub(super) fn spans(&self) -> RefMut<'_, WorkerSpans> {
        self.spans.borrow_mut()
    }
}

impl Exchange {
    /// Writes all spans, if anybody wants them. `end`: of a connection whose bytes were relayed.
    pub(super) fn tell_spans(&self, ends: &Ends, end: Option<&str>, now: Instant) {
        let status = self.outcome_status();
        let failed = status.is_server_error();
        let tries = self.tried.0.borrow();
        let anything_failed = failed || tries.iter().any(Try::failed);
        let mut spans = self.proxy.spans();
        let Some(wanted) = spans.wants(&self.trace, anything_failed) else {
            return;
        };
        for one in tries.iter() {
            // What was wrong behind a good head belongs to the try that is still answering.
            let failed = one.failed() || failed && one.ended.is_none() && one.came.is_answer();
            self.tell_try(&mut spans, wanted, one, failed, now);
        }
        let head = Head {
            trace_id: self.trace.trace_id,
            span_id: self.trace.span_id,
            parent: self.trace.parent,
            kind: SpanKind::Server,
            failed,
            started: self.started,
            ended: now,
        };
        spans.write(wanted, &head, |tags| self.tag(tags, ends, end));
    }

    fn tell_try(
        &self,
        spans: &mut WorkerSpans,
        wanted: Wanted,
        one: &Try,
        failed: bool,
        now: Instant,
    ) {
        let head = Head {
            trace_id: self.trace.trace_id,
            span_id: one.span_id,
            parent: Some(self.trace.span_id),
            kind: SpanKind::Client,
            failed,
            started: one.started,
            ended: one.ended.unwrap_or(now),
        };
        let branches = self.route().map(|plan| &plan.compiled.branches);
        let branch = branches.and_then(|branches| branches.get(one.branch?));
        spans.write(wanted, &head, |tags| {
            let upstream = branch.map_or("none", |branch| &branch.upstream.item.name);
            tags.text(Tag::Upstream, upstream);
            tags.socket(Tag::Endpoint, one.endpoint);
            tags.number(Tag::Attempt, one.number.into());
            if one.hedge {
                tags.text(Tag::Hedge, "second");
            }
            match one.came {
                Came::Nothing => {}
                Came::Answer { status, .. } => tags.number(Tag::Status, status.as_u16().into()),
                Came::Failure(code) => tags.text(Tag::Code, code.word()),
            }
        });
    }

    fn tag(&self, tags: &mut Tags<'_>, ends: &Ends, end: Option<&str>) {
        if let Some(plan) = self.route() {
            tags.text(Tag::Route, &plan.item.name);
        }
        tags.text(Tag::Listener, &self.connection.listener_name);
        match end {
            Some(end) => {
                tags.text(Tag::End, end);
                tags.number(Tag::BytesIn, self.bytes_in);
                tags.number(Tag::BytesOut, self.bytes_out);
            }
            None => {
                tags.text(Tag::Method, self.method.as_str());
                tags.text(Tag::Path, &self.path);
                tags.number(Tag::Status, self.status.as_u16().into());
            }
        }
        tags.address(Tag::Client, self.connection.peer);
        let agent = self.user_agent.as_ref();
        tags.text(
            Tag::UserAgent,
            agent
                .and_then(|agent| HeaderValue::to_str(agent).ok())
                .unwrap_or(""),
        );
        tags.text(Tag::RequestId, self.request_id.as_str());
        if let Some((source, destination)) = ends.both() {
            tags.text(Tag::Source, source);
            tags.text(Tag::Destination, destination);
        }
        if let Some(code) = self.error {
            tags.text(Tag::Code, code.word());
        }
        tags.text(Tag::Fallback, self.fallback.unwrap_or(""));
        let hedge = self.hedge.get();
        tags.text(Tag::Hedge, hedge.map_or("", HedgeResult::word));
    }
}

impl Came {
    fn is_answer(self) -> bool {
        matches!(self, Came::Answer { .. })
    }
}
