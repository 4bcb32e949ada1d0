//! What a control plane asks a node over its feed, and how the node answers. A node's own pages may be open to its machine
//! alone (MESH-109), so it is the node that comes with the answer.

use serde::{Deserialize, Serialize};

use super::bounds;
use crate::span::{MOST_SPANS, Span};

/// Breakers in one answer.
pub const MOST_BREAKERS: usize = 20_000;

/// `POST /nodes/{node}/answers/{id}` takes the `Answer`. A node that cannot or will not answer says nothing; whoever asked
/// waits for a bounded time only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Of the question, unique within the epoch.
    pub id: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All spans of one trace, by its 32 digits.
    Trace(String),
    /// The latest spans, newest first, so many at most.
    Traces(u32),
    /// The breakers' states: one for each part of each upstream that has one of its own.
    Breakers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the process that subscribed.
    pub instance: String,
    #[serde(flatten)]
    pub told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Spans(Vec<Span>),
    Breakers(Vec<Breaker>),
}

/// A breaker as a node sees it (CP-301).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    pub upstream: String,
    /// The service whose instances the upstream's endpoints are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `all`, `reads`, `writes`, or a route's name.
    pub part: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
}

impl Answer {
    /// Whether this can be the answer to that question; else why not.
    pub fn check(&self, what: &What) -> Result<(), String> {
        bounds::word("instance", &self.instance)?;
        match (what, &self.told) {
            (What::Trace(_) | What::Traces(_), Told::Spans(spans)) => {
                let most = match what {
                    What::Traces(most) => MOST_SPANS.min(*most as usize),
                    _ => MOST_SPANS,
                };
                if spans.len() > most {
                    return Err(format!("there are more than {most} spans"));
                }
                spans.iter().try_for_each(Span::check)?;
                match what {
                    What::Trace(id) if spans.iter().any(|span| span.trace_id != *id) => {
                        Err("a span is of another trace than was asked for".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            (What::Breakers, Told::Breakers(breakers)) => {
                if breakers.len() > MOST_BREAKERS {
                    return Err(format!("there are more than {MOST_BREAKERS} breakers"));
                }
                breakers.iter().try_for_each(Breaker::check)
            }
            (What::Trace(_) | What::Traces(_), Told::Breakers(_)) => {
                Err("breakers were not asked for".to_owned())
            }
            (What::Breakers, Told::Spans(_)) => Err("spans were not asked for".to_owned()),
        }
    }
}

impl Breaker {
    fn check(&self) -> Result<(), String> {
        bounds::word("upstream", &self.upstream)?;
        bounds::word("part", &self.part)?;
        if let Some(service) = &self.service {
            bounds::word("service", service)?;
        }
        match self.state.as_str() {
            "closed" | "open" | "half_open" => Ok(()),
            _ => Err("`state` is none of closed, open, half_open".to_owned()),
        }
    }
}

pub(super) fn check(ask: &Ask) -> Result<(), String> {
    bounds::word("id", &ask.id)?;
    match &ask.what {
        What::Trace(id) if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Err("`trace` is not 32 hexadecimal digits".to_owned())
        }
        What::Trace(_) | What::Traces(_) | What::Breakers => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::tests::span;

    fn told(told: Told) -> Answer {
        Answer {
            instance: "i".to_owned(),
            told,
        }
    }

    #[test]
    fn an_answer_is_about_what_was_asked_and_no_longer_than_it_may_be() {
        let (one, other) = ("a".repeat(32), "b".repeat(32));
        let spans = told(Told::Spans(vec![span(&one)]));
        assert_eq!(spans.check(&What::Trace(one)), Ok(()));
        assert_eq!(spans.check(&What::Traces(1)), Ok(()));
        for wrong in [What::Trace(other), What::Traces(0), What::Breakers] {
            assert!(spans.check(&wrong).is_err(), "{wrong:?}");
        }
        let mut breaker = Breaker {
            upstream: "orders".to_owned(),
            service: None,
            part: "all".to_owned(),
            state: "half_open".to_owned(),
        };
        let check =
            |breaker: &Breaker| told(Told::Breakers(vec![breaker.clone()])).check(&What::Breakers);
        assert_eq!(check(&breaker), Ok(()));
        breaker.state = "ajar".to_owned();
        assert!(check(&breaker).is_err());
        breaker.state = "open".to_owned();
        breaker.upstream = "a\nb".to_owned();
        assert!(check(&breaker).is_err());
    }

    #[test]
    fn a_question_travels_as_one_line() {
        for what in [What::Trace("0".repeat(32)), What::Traces(7), What::Breakers] {
            let id = "q".to_owned();
            let line = super::super::Line::Ask(Ask { id, what });
            let read = super::super::Line::read(line.write().as_bytes());
            assert_eq!(read.map_err(|fault| fault.message), Ok(line));
        }
        let bad = br#"{"ask":{"id":"q","what":{"trace":"x"}}}"#;
        assert!(super::super::Line::read(bad).is_err());
    }
}
