//! A connection's bytes on their way to an upstream: it meets what a request meets there (permits, breaker, balance, tries
//! at other endpoints, evidence) as if it were one that asks for a tunnel, and has books of its own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::StatusCode;
use tollgate_config::identity::SpiffeId;

use super::Proxy;
use super::answer::Answer;
use super::books::{Asked, Exchange};
use super::connection::Connection;
use crate::alarm::Alarm;
use crate::exchange::Request;
use crate::exchange::error::Code;
use crate::telemetry::access::{Failure, Relayed, Services};
use crate::telemetry::metrics::{ListenerSeries, RelayEnd};
use crate::upstream::Outcome;

/// What the books of a carried connection have instead of an answer's.
pub(super) struct Carried {
    series: Arc<ListenerSeries>,
    end: RelayEnd,
}

impl Proxy {
    /// Connects a client's connection to an endpoint of its listener's `forward`. `None`: there is none to connect to, and
    /// the books are closed. Dropping the answer, or this future, closes them as cut.
    pub async fn carry(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        alarm: &Rc<Alarm>,
        series: &Arc<ListenerSeries>,
    ) -> Option<Answer> {
        let mut asked = Asked::begin(self, connection, alarm, Request::for_bytes());
        series.relay_begins(self.worker);
        let Asked { exchange, request } = &mut *asked;
        exchange.carried = Some(Carried {
            series: series.clone(),
            end: RelayEnd::Cut,
        });
        exchange.error = None;
        let world = exchange.world.clone();
        exchange.route = world
            .listener(connection.listener)
            .and_then(|listener| listener.forward);
        let carried = match exchange.route {
            None => Err(Code::NoRoute.into()),
            Some(id) => {
                let plan = world.route(id);
                let filtered = match plan.compiled.chain.is_empty() {
                    true => Ok(()),
                    false => self.filter(&world, exchange, plan, request),
                };
                match filtered {
                    Ok(()) => self.forward(exchange, plan, 0, request).await,
                    Err(error) => Err(error),
                }
            }
        };
        match carried {
            Ok(answer) => Some(answer.open(asked)),
            Err(error) => {
                exchange.failed(&error);
                exchange.end(RelayEnd::Unconnected);
                None
            }
        }
    }
}

impl Exchange {
    pub(super) fn end(&mut self, end: RelayEnd) {
        if let Some(carried) = &mut self.carried {
            carried.end = end;
        }
    }
}

impl Answer {
    /// So many bytes have gone to the upstream and to the client by now; whether they are more than before.
    pub fn carried(&mut self, to_upstream: u64, to_client: u64) -> bool {
        let Some(exchange) = self.books() else {
            return false;
        };
        let out = to_upstream.saturating_sub(exchange.bytes_in);
        let back = to_client.saturating_sub(exchange.bytes_out);
        if out + back == 0 {
            return false;
        }
        (exchange.bytes_in, exchange.bytes_out) = (to_upstream, to_client);
        if let Some(carried) = &exchange.carried {
            carried.series.relayed(exchange.proxy.worker, out, back);
        }
        true
    }

    /// It is over; the answer's end closes the books.
    pub fn carried_to(mut self, end: RelayEnd) {
        if let Some(exchange) = self.books() {
            exchange.end(end);
            // Whoever accepts connections and breaks them off without a word does not serve.
            if end == RelayEnd::UpstreamReset && exchange.bytes_out == 0 {
                exchange.outcome = Outcome::Failure;
            }
        }
        self.finish();
    }
}

impl Carried {
    pub(super) fn close(self, exchange: &Exchange, now: Instant) {
        let proxy = &exchange.proxy;
        self.series.relay_ends(proxy.worker, self.end);
        if let Some(code) = exchange.error {
            proxy.metrics.answered_error(proxy.worker, code);
        }
        let duration = now.saturating_duration_since(exchange.started);
        let status = exchange.error.map_or(StatusCode::OK, Code::status);
        let ends = exchange.count_edges(status, duration, now);
        exchange.tell_spans(&ends, Some(self.end.word()), now);
        let mut log = proxy.log();
        if !log.is_on() {
            return;
        }
        let plan = exchange.route();
        let branch = plan.and_then(|plan| plan.compiled.branches.get(exchange.branch?));
        let connection = &exchange.connection;
        log.write_relayed(&Relayed {
            now: SystemTime::now(),
            duration,
            bytes_in: exchange.bytes_in,
            bytes_out: exchange.bytes_out,
            end: self.end.word(),
            client: connection.peer,
            sni: connection.sni.as_deref(),
            original: connection.original,
            upstream: branch.map(|branch| branch.upstream.item.name.as_str()),
            endpoint: exchange.endpoint,
            attempts: exchange.attempts.get(),
            request_id: exchange.request_id.as_str(),
            error: exchange.error.map(|code| Failure {
                code: code.word(),
                details: exchange.cause.as_deref(),
            }),
            services: Services {
                edge: ends.both(),
                peer: { connection.caller.as_ref() }.map(SpiffeId::as_str),
                access: exchange.judged(),
            },
            listener: &connection.listener_name,
            generation: exchange.world.generation,
        });
    }
}
