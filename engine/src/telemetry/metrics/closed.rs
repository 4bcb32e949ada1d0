//! Labels with a closed list of values: an enum each, whose variant is the index of its cell.
//!
//! That is the whole of the rule that nobody outside chooses a label (HI-59).

use super::cell::Cell;
use crate::exchange::error::Code;

macro_rules! closed {
    ($(#[$attribute:meta])* $name:ident { $($(#[$about:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$about])* $variant,)* }

        impl $name {
            pub(crate) const WORDS: &'static [&'static str] = &[$($word,)*];
            pub(crate) const COUNT: usize = Self::WORDS.len();

            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

closed! {
    /// What a connection to an upstream is doing: `upstream_connections{state}`.
    ConnectionState {
        Connecting "connecting",
        /// At least one exchange is on it.
        Active "active",
        Idle "idle",
    }
}

closed! {
    /// How an attempt to connect ended: `upstream_connects_total{result}`.
    ConnectResult {
        Connected "connected",
        Failed "failed",
        TimedOut "timed_out",
        /// The socket was connected, TLS or HTTP/2 did not come about.
        HandshakeFailed "handshake_failed",
    }
}

closed! {
    /// Why a request was sent again: `retries_total{class}`; the words of `retry.on`.
    RetryClass {
        Connect "connect",
        Reset "reset",
        Status "status",
        Unavailable "unavailable",
        /// A kept connection was closed before the request was on it.
        Stale "stale",
        PerTryTimeout "per_try_timeout",
    }
}

closed! {
    /// Why relayed bytes came to an end: `relay_connections_total{end}`.
    RelayEnd {
        /// Both directions ended properly.
        Finished "finished",
        ClientReset "client_reset",
        UpstreamReset "upstream_reset",
        Idle "idle_timeout",
        /// By us, when the time to drain had passed.
        Cut "cut",
        /// No endpoint was connected to.
        Unconnected "unconnected",
    }
}

closed! {
    /// Which time ran out: `timeouts_total{kind}`.
    TimeoutKind {
        Connect "connect",
        Route "route",
        PerTry "per_try",
        Adaptive "adaptive",
        Deadline "deadline",
        Idle "idle",
    }
}

closed! {
    /// What the health checks and outlier detection think of an endpoint: `upstream_health{state}`.
    HealthState {
        Healthy "healthy",
        Unhealthy "unhealthy",
        Ejected "ejected",
    }
}

closed! {
    /// Why a bulkhead did not let a request through: `upstream_refusals_total{reason}`.
    Refusal {
        /// All permits were out and the queue was full.
        Full "full",
        /// Made room in the queue for somebody more important.
        Shed "shed",
        /// Waited too long.
        Expired "expired",
    }
}

closed! {
    /// What a breaker does with tries: `circuit_breaker_state{state}`.
    BreakerState {
        Closed "closed",
        Open "open",
        HalfOpen "half_open",
    }
}

closed! {
    /// Why a breaker changed: `circuit_breaker_transitions_total{reason}`.
    BreakerReason {
        /// So many failures in a row.
        Failures "failures",
        /// So large a share of failures.
        ErrorRate "error_rate",
        /// A larger share of failures than is usual.
        Deviation "deviation",
        /// So large a share of slow answers.
        Slow "slow",
        /// Its time open is over.
        OpenFor "open_for",
        ProbeFailed "probe_failed",
        /// Enough probes succeeded.
        Recovered "recovered",
        /// An operator opened, closed or released it.
        Operator "operator",
        /// What an operator did has expired.
        Expired "expired",
    }
}

closed! {
    /// What came of a hedge that was sent: `hedges_total{result}`.
    HedgeResult {
        /// Its answer was the first good one.
        Won "won",
        /// The first try's was.
        Lost "lost",
        /// Neither brought a good one.
        Neither "neither",
        /// The client left before.
        Abandoned "abandoned",
    }
}

closed! {
    /// Why a late answer got no second try: `hedges_unsent_total{reason}`.
    Unhedged {
        /// One late answer in so many is left alone, to see what hedges are good for.
        Control "control",
        NoEndpoint "no_endpoint",
        /// The breaker is not closed.
        CircuitOpen "circuit_open",
        /// The bulkhead has no permit to spare.
        Overloaded "overloaded",
        Budget "retry_budget_exhausted",
    }
}

closed! {
    /// What came of a fallback: `fallbacks_total{result}`.
    FallbackResult {
        Respond "respond",
        Upstream "upstream",
        /// The other upstream failed too.
        Failed "failed",
    }
}

closed! {
    /// What a breaker said to a try: `circuit_breaker_requests_total{result}`.
    BreakerResult {
        Admitted "admitted",
        /// Let through while half-open.
        Probe "probe",
        Refused "refused",
    }
}

/// `{priority}`, in the order of `tollgate_config::Priority`.
pub(crate) const PRIORITIES: [&str; 3] = ["critical", "default", "sheddable"];

pub(crate) const CODES: usize = Code::ALL.len();

/// A cell for each error code.
#[derive(Debug)]
pub(crate) struct ByCode([Cell; CODES]);

impl Default for ByCode {
    fn default() -> Self {
        ByCode(std::array::from_fn(|_| Cell::default()))
    }
}

impl ByCode {
    pub(crate) fn add(&self, code: Code) {
        if let Some(cell) = self.0.get(code as usize) {
            cell.add(1);
        }
    }

    pub(crate) fn value(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, Cell::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_s_number_is_its_place_in_the_list_of_all() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, index);
        }
    }
}
