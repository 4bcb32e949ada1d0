//! Tells a collector of spans (OBS-110): one task on the control thread, which takes what workers handed over
//! (`telemetry::spans`), puts it into messages and sends one after another. No request waits for it, and nothing here grows
//! with a collector that is slow, away or lying: what waits is bounded where workers hand it over, the oldest leaves first,
//! and every span that is not told is counted.

mod link;
mod otlp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate_config::Traces;

use crate::telemetry::log;
use crate::telemetry::metrics::{Metrics, SpansDropped};
use crate::telemetry::spans::{Record, Spans, Wall, read};
use link::{Link, Said};
use otlp::Source;

/// From dialing to the collector's last word on one message.
const TELLING: Duration = Duration::from_secs(10);
/// Between two attempts of one message; doubled up to the second, and up to as much again by chance.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(15)];
/// How long a process that ends goes on telling.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The task, for who ends it.
pub(crate) struct Exporting {
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Must run on the control thread.
    pub(crate) fn start(spans: Arc<Spans>, metrics: Arc<Metrics>) -> Self {
        let (stop, stopping) = watch::channel(None);
        let exporter = Exporter {
            traces: spans.watch(),
            spans,
            metrics,
            stop: Stop(stopping),
            source: Source::new(),
            link: None,
            is_away: false,
        };
        Exporting {
            stop,
            task: tokio::task::spawn_local(exporter.run()),
        }
    }

    /// Tells what is left, within a bound. To be called when workers have handed over their last.
    pub(crate) async fn finish(self) {
        self.stop.send_replace(Some(Instant::now() + LAST_WORDS));
        let _ended = self.task.await;
    }
}

/// When the process ends, and until when there is still time.
#[derive(Clone)]
struct Stop(watch::Receiver<Option<Instant>>);

impl Stop {
    async fn asked(&self) -> Instant {
        match self.0.clone().wait_for(Option::is_some).await {
            Ok(at) => at.unwrap_or_else(Instant::now),
            // Nobody is left who could ask: the owner is gone without a word.
            Err(_) => Instant::now(),
        }
    }

    fn is_asked(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    async fn over(&self) {
        tokio::time::sleep_until(self.asked().await).await;
    }
}

struct Exporter {
    spans: Arc<Spans>,
    metrics: Arc<Metrics>,
    /// Whom to tell; `None`: nobody.
    traces: watch::Receiver<Option<Traces>>,
    stop: Stop,
    source: Source,
    link: Option<Link>,
    is_away: bool,
}

/// Nobody is to be told any more: the process ends, or its document names another collector, or none.
struct GaveUp;

impl Exporter {
    async fn run(mut self) {
        loop {
            let traces = self.traces.borrow_and_update().clone();
            // Another collector has another connection.
            self.link = None;
            match traces {
                Some(traces) => self.serve(&traces).await,
                None => self.rest().await,
            }
            if self.stop.is_asked() {
                return;
            }
        }
    }

    /// As long as this is whom to tell.
    async fn serve(&mut self, traces: &Traces) {
        loop {
            self.wait(traces).await;
            let stops = self.stop.is_asked();
            if self.has_changed() && !stops {
                return;
            }
            self.tell_all(traces).await;
            if stops {
                return;
            }
        }
    }

    /// As long as there is nobody to tell.
    async fn rest(&mut self) {
        // Left from before.
        drop(self.spans.take_waiting());
        tokio::select! {
            _changed = self.traces.changed() => self.traces.mark_changed(),
            _at = self.stop.asked() => {}
        }
    }

    fn has_changed(&self) -> bool {
        self.traces.has_changed().unwrap_or(true)
    }

    /// Until there is a batch, or what there is has waited long enough.
    async fn wait(&mut self, traces: &Traces) {
        tokio::select! {
            () = tokio::time::sleep(traces.batch_timeout) => {}
            () = self.spans.batch_is_full.notified() => {}
            _changed = self.traces.changed() => self.traces.mark_changed(),
            _at = self.stop.asked() => {}
        }
    }

    async fn tell_all(&mut self, traces: &Traces) {
        let runs = self.spans.take_waiting();
        let records: Vec<_> = runs.iter().flat_map(|run| read(run)).collect();
        if records.is_empty() {
            return;
        }
        let mut left = records.len();
        for batch in records.chunks(traces.batch_size.max(1)) {
            if self.tell(traces, batch).await.is_err() {
                self.link = None;
                log::warn(
                    "spans are dropped untold: the process ends, or its document names another collector",
                    &[("otlp", &traces.otlp.url.text), ("spans", &left)],
                );
                return { self.metrics.spans() }.dropped(SpansDropped::Stopped, left);
            }
            left -= batch.len();
        }
    }

    /// One message, until the collector has said something final about it.
    async fn tell(&mut self, traces: &Traces, batch: &[Record<'_>]) -> Result<(), GaveUp> {
        let message = {
            let service = self.spans.service();
            self.source
                .message(&service, &traces.attributes, &Wall::now(), batch)
        };
        let mut retry = RETRY[0];
        loop {
            let stopping = self.stop.clone();
            let said = tokio::select! {
                said = self.send(traces, &message) => said,
                () = stopping.over() => return Err(GaveUp),
            };
            self.note(traces, &said);
            match said {
                Ok(rejected) => {
                    let rejected = rejected.min(batch.len());
                    self.metrics.spans().exported(batch.len() - rejected);
                    { self.metrics.spans() }.dropped(SpansDropped::Refused, rejected);
                    return Ok(());
                }
                Err(Said::Refused(_)) => {
                    { self.metrics.spans() }.dropped(SpansDropped::Refused, batch.len());
                    return Ok(());
                }
                Err(Said::Away(_)) if self.stop.is_asked() => return Err(GaveUp),
                Err(Said::Away(_)) => {}
            }
            let pause = retry + retry.mul_f64(fastrand::f64());
            retry = (retry * 2).min(RETRY[1]);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Once more, for the last time.
                _at = self.stop.asked() => {}
                _changed = self.traces.changed() => {
                    self.traces.mark_changed();
                    return Err(GaveUp);
                }
            }
        }
    }

    /// How many of its spans were rejected, or why none was taken.
    async fn send(&mut self, traces: &Traces, message: &[u8]) -> Result<usize, Said> {
        let telling = async {
            if let Some(mut kept) = self.link.take() {
                match kept.tell(message).await {
                    // It may have been closed since; a new one may do.
                    Err(Said::Away(_)) => {}
                    said => return said.inspect(|_| self.link = Some(kept)),
                }
            }
            let mut link = Link::connect(traces).await?;
            let said = link.tell(message).await;
            if !matches!(said, Err(Said::Away(_))) {
                self.link = Some(link);
            }
            said
        };
        match tokio::time::timeout(TELLING, telling).await {
            Ok(said) => said,
            Err(_) => Err(Said::Away(format!("no answer within {TELLING:?}"))),
        }
    }

    /// Once when it goes, and once when it is back.
    fn note(&mut self, traces: &Traces, said: &Result<usize, Said>) {
        static REFUSED: log::Repeated = log::Repeated::new();
        let url = &traces.otlp.url.text;
        match said {
            Ok(_) if std::mem::take(&mut self.is_away) => {
                log::info("the collector takes spans again", &[("otlp", url)]);
            }
            Ok(_) => {}
            Err(Said::Refused(why)) => REFUSED.warn(
                "the collector refuses spans, which are dropped; correct telemetry.traces or the collector",
                &[("otlp", url), ("reason", why)],
            ),
            Err(Said::Away(why)) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    log::warn(
                        "the collector takes no spans; the latest are kept for it, older ones dropped",
                        &[("otlp", url), ("reason", why)],
                    );
                }
            }
        }
    }
}
