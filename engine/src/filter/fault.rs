//! Faults on purpose: chooses requests by header and by chance, and says what is to become of them. Never waits itself: a
//! delay is noted, and whoever runs the chain waits before anything else is done for the request. Draws no chance: the
//! number comes with the caller, so a seed repeats every choice.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_config::{Abort, InjectedFault, Item, Route, Setting, ValueMatch};

use crate::exchange::error::{Error, written};
use crate::exchange::{Response, header_fits};
use crate::telemetry::metrics::FaultSeries;

/// The field that marks an answer to a request that met a fault.
const MARK: HeaderName = HeaderName::from_static("x-tollgate-fault");

/// One fault, ready to run.
#[derive(Debug)]
pub(super) struct Fault {
    delay: Option<Duration>,
    abort: Option<Setting<Abort>>,
    /// Requests whose draw lies below meet it: the share of 2^64.
    below: u128,
    headers: Box<[(HeaderName, ValueMatch)]>,
    series: Arc<FaultSeries>,
}

/// What a request met on its way through the chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// All delays together.
    delay: Duration,
    aborted: bool,
    reset: bool,
}

impl Met {
    pub(super) fn delay(&self) -> Option<Duration> {
        (!self.delay.is_zero()).then_some(self.delay)
    }

    /// As the access line and the answer tell it.
    pub(super) fn word(&self) -> Option<&'static str> {
        Some(match (self.delay().is_some(), self.aborted, self.reset) {
            (false, false, false) => return None,
            (true, false, false) => "delay",
            (false, true, _) => "abort",
            (true, true, _) => "delay, abort",
            (false, false, true) => "reset",
            (true, false, true) => "delay, reset",
        })
    }
}

impl Fault {
    pub(super) fn compile(fault: &InjectedFault, series: Arc<FaultSeries>) -> Self {
        Fault {
            delay: fault.delay.map(|delay| delay.value),
            abort: fault.abort,
            // 100 is 2^64 exactly, and no draw reaches it.
            below: (fault.percent.value / 100.0 * 2f64.powi(64)) as u128,
            headers: fault.headers.clone().into(),
            series,
        }
    }

    /// `filter`: this fault's place in the chain. `draw`: uniform over all of `u64`, one for the request.
    pub(super) fn meet(
        &self,
        filter: usize,
        headers: &HeaderMap,
        (worker, draw): (usize, u64),
        met: &mut Met,
        route: &Item<Route>,
    ) -> Result<(), Error> {
        let fits = self
            .headers
            .iter()
            .all(|(name, wanted)| header_fits(headers, name, wanted));
        if !fits || u128::from(stirred(draw, filter)) >= self.below {
            return Ok(());
        }
        if let Some(delay) = self.delay {
            met.delay = met.delay.saturating_add(delay);
            self.series.delayed(worker);
        }
        let Some(abort) = self.abort else {
            return Ok(());
        };
        match abort.value {
            Abort::Status(_) => {
                met.aborted = true;
                self.series.aborted(worker);
            }
            Abort::Reset => {
                met.reset = true;
                self.series.reset(worker);
            }
        }
        Err(Error::injected(abort.value, route.place(abort.at)))
    }
}

/// Several faults of one route choose independently of one another (the finalizer of SplitMix64).
fn stirred(draw: u64, filter: usize) -> u64 {
    let mut z = draw.wrapping_add((filter as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Marks an answer.
pub(super) fn tell(met: &Met, response: &mut Response) {
    if let Some(word) = met.word() {
        response
            .headers
            .insert(MARK, HeaderValue::from_static(word));
    }
}

/// In one line: `delay 200ms, abort 503, 10 % of requests with x-fault`.
pub(crate) fn told(fault: &InjectedFault) -> String {
    let mut parts = Vec::new();
    if let Some(delay) = fault.delay {
        parts.push(format!("delay {}", written(delay.value)));
    }
    if let Some(abort) = fault.abort {
        parts.push(format!("abort {}", abort.value));
    }
    let mut whom = format!("{} % of requests", fault.percent.value);
    let names: Vec<&str> = { fault.headers.iter() }
        .map(|(name, _)| name.as_str())
        .collect();
    if !names.is_empty() {
        whom = format!("{whom} with the right {}", names.join(", "));
    }
    parts.push(whom);
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tollgate_config::At;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn fault(percent: f64, delay: u64, abort: Option<Abort>) -> Fault {
        let metrics = Metrics::new(1);
        let delay = Setting::default_of(Duration::from_millis(delay));
        let fault = InjectedFault {
            delay: (!delay.is_zero()).then_some(delay),
            abort: abort.map(Setting::default_of),
            percent: Setting::default_of(percent),
            headers: vec![(
                HeaderName::from_static("x-fault"),
                ValueMatch::Exact("yes".to_owned()),
            )],
        };
        Fault::compile(&fault, metrics.fault("r"))
    }

    /// What so many requests with this header and draws of this seed meet.
    fn run(fault: &Fault, filter: usize, header: &'static str, seed: u64) -> Vec<Met> {
        let mut random = fastrand::Rng::with_seed(seed);
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-fault"),
            HeaderValue::from_static(header),
        )]);
        let route = route();
        (0..10_000)
            .map(|_| {
                let mut met = Met::default();
                let draw = (0, random.u64(..));
                let ended = fault.meet(filter, &headers, draw, &mut met, &route);
                assert_eq!(ended.is_err(), met.aborted || met.reset);
                met
            })
            .collect()
    }

    fn route() -> Item<Route> {
        let text = "[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = { status = 200 }\n";
        let mut loader = tollgate_config::Loader::with_environment(|_| None);
        let document = loader.load_text("t.toml", text, std::path::Path::new("/"));
        let route = document.expect("valid").routes.remove(0);
        assert_eq!(route.place(At(None)), None);
        route
    }

    #[test]
    fn a_share_is_met_by_that_share_and_the_same_seed_repeats_it() {
        for (percent, least, most) in [
            (0.0, 0, 0),
            (0.5, 25, 80),
            (10.0, 900, 1100),
            (99.9, 9970, 9999),
            (100.0, 10_000, 10_000),
        ] {
            let fault = fault(percent, 5, None);
            let met = run(&fault, 0, "yes", 7);
            let count = met.iter().filter(|met| met.delay().is_some()).count();
            assert!((least..=most).contains(&count), "{percent} %: {count}");
            assert_eq!(run(&fault, 0, "yes", 7), met, "the seed decides");
        }
    }

    #[test]
    fn requests_without_the_header_meet_nothing() {
        let fault = fault(100.0, 5, Some(Abort::Reset));
        assert!(
            run(&fault, 0, "no", 7)
                .iter()
                .all(|met| *met == Met::default())
        );
    }

    #[test]
    fn two_faults_of_one_route_choose_independently() {
        let abort = Some(Abort::Status(StatusCode::SERVICE_UNAVAILABLE));
        let (first, second) = (fault(50.0, 5, None), fault(50.0, 0, abort));
        let (first, second) = (run(&first, 0, "yes", 7), run(&second, 1, "yes", 7));
        let both = { first.iter().zip(&second) }
            .filter(|(first, second)| first.delay().is_some() && second.aborted)
            .count();
        assert!((2300..=2700).contains(&both), "{both}");
    }
}
