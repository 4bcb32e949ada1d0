//! The control plane as a lender of tokens (GW-315, CP-404): one question about all limits, one JSON object each way, over
//! a connection that is kept. Whom to ask when several are named, and what is believed of an answer, is decided here;
//! which tokens are asked for is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use tollgate_config::ControlPlane;
use tollgate_config::leases::{self, MOST_LIMITS, Question};

use super::link::Connection;
use super::machine;
use super::turns::Turns;
use crate::filter::rate_limit::lease::lender::{Ask, Grant, Lender, Lent, Slice, Told};

/// Bytes of an answer: more than one about as many clients as are ever asked for has.
const MOST: usize = 256 * 1024;

/// Where tokens are lent.
pub(crate) struct RemoteLender {
    settings: ControlPlane,
    timeout: Duration,
    node: String,
    /// Differs from that of every other process.
    instance: String,
    /// Whose leases we have.
    epoch: Option<String>,
    turns: Turns,
    open: Option<Way>,
}

/// A way to one of them.
struct Way {
    connection: Connection,
    turn: usize,
    /// When to look whether a preferred one is back.
    look_back: Option<Instant>,
}

impl RemoteLender {
    pub(crate) fn new(settings: ControlPlane, timeout: Duration, instance: String) -> Self {
        RemoteLender {
            node: settings.node.clone().unwrap_or_else(machine),
            turns: Turns::new(settings.urls.len()),
            settings,
            timeout,
            instance,
            epoch: None,
            open: None,
        }
    }

    async fn ask(&mut self, limits: Vec<leases::Slice>) -> Result<(Told, Vec<Vec<Grant>>), String> {
        // Taken: whatever goes wrong, also that nobody waits any longer, the connection goes with it.
        let open = self.open.take();
        let way = match open {
            Some(way) => way,
            None => {
                // The caller makes pauses, which grow and differ.
                let (turn, _) = self.turns.take(0.0);
                self.way(turn).await?
            }
        };
        let (answer, way) = self.question(way, limits).await?;
        self.turns.good();
        let told = self.believe(&answer, &way);
        self.open = Some(way);
        let grant = |grant: &leases::Grant| Grant {
            tokens: grant.tokens,
            left: grant.left,
        };
        let grants = answer.grants.iter();
        let grants = grants.map(|grants| grants.iter().map(grant).collect());
        Ok((told, grants.collect()))
    }

    async fn way(&self, turn: usize) -> Result<Way, String> {
        let url = self.settings.urls.get(turn).ok_or("no such URL")?;
        let opening = Connection::open(url, &self.settings);
        let opened = tokio::time::timeout(self.timeout, opening).await;
        let connection = opened
            .unwrap_or_else(|_| Err(self.late()))
            .map_err(|why| format!("{}: {why}", url.text))?;
        let pause = Turns::look_back(turn, fastrand::f64());
        Ok(Way {
            connection,
            turn,
            look_back: pause.map(|pause| Instant::now() + pause),
        })
    }

    async fn question(
        &self,
        way: Way,
        limits: Vec<leases::Slice>,
    ) -> Result<(leases::Answer, Way), String> {
        let url = self.settings.urls.get(way.turn).ok_or("no such URL")?;
        let question = Question {
            node: self.node.clone(),
            instance: self.instance.clone(),
            from: self.epoch.clone(),
            limits,
        };
        let asking = async {
            let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
            let (status, body) = way
                .connection
                .fetch(Method::POST, "/leases", Bytes::from(body), MOST)
                .await?;
            if status != StatusCode::OK {
                let words = super::link::words(&body);
                return Err(format!("it answered {}: {words}", status.as_u16()));
            }
            let answer: leases::Answer = serde_json::from_slice(&body)
                .map_err(|_| "what answers does not lend".to_owned())?;
            if !answer.fits(&question) {
                return Err("its answer does not fit the question".to_owned());
            }
            Ok(answer)
        };
        let asked = tokio::time::timeout(self.timeout, asking).await;
        let asked = asked.unwrap_or_else(|_| Err(self.late()));
        let answer = asked.map_err(|why| format!("{}: {why}", url.text))?;
        Ok((answer, way))
    }

    fn late(&self) -> String {
        format!("no answer within {} ms", self.timeout.as_millis())
    }

    /// What an answer means for what we hold.
    fn believe(&mut self, answer: &leases::Answer, way: &Way) -> Told {
        let same = self.epoch.as_ref() == Some(&answer.epoch);
        if !same {
            self.epoch = Some(answer.epoch.clone());
        }
        let url = self.settings.urls.get(way.turn);
        Told {
            gateways: answer.gateways,
            // Another one never had anything of ours to take back: what is held stays noted with it as we tell it.
            lapsed: same && !answer.known,
            lender: url.map(|url| url.text.clone()),
        }
    }

    /// Goes back to a preferred control plane when it answers: all gateways should ask the same one.
    async fn prefer(&mut self) {
        let due = |way: &Way| way.look_back.is_some_and(|when| when <= Instant::now());
        let Some(turn) = self
            .open
            .as_ref()
            .filter(|way| due(way))
            .map(|way| way.turn)
        else {
            return;
        };
        for better in 0..turn {
            if let Ok(way) = self.way(better).await {
                self.open = Some(way);
                return;
            }
        }
        if let Some(way) = &mut self.open {
            let pause = Turns::look_back(turn, fastrand::f64());
            way.look_back = pause.map(|pause| Instant::now() + pause);
        }
    }
}

impl Lender for RemoteLender {
    type Failure = String;

    const SLICES: usize = MOST_LIMITS;

    async fn lend(&mut self, slices: &[Slice]) -> Result<Lent, String> {
        let ask = |ask: &Ask| leases::Ask {
            // The lowest bits tell tiers apart, which no shared limit does.
            key: ask.key.hash() >> 8,
            want: ask.want,
            debit: ask.debit,
            held: ask.held,
        };
        let limits = slices.iter().map(|slice| leases::Slice {
            limit: slice.limit.clone(),
            rate: slice.rate,
            burst: slice.burst,
            asks: slice.asks.iter().map(ask).collect(),
        });
        let (told, grants) = self.ask(limits.collect()).await?;
        Ok(Lent {
            told: Some(told),
            grants,
        })
    }

    async fn greet(&mut self) -> Result<Told, String> {
        self.prefer().await;
        self.ask(Vec::new()).await.map(|(told, _)| told)
    }
}
