//! What a gateway asks a control plane that lends tokens of shared limits, and what it is told: `POST /leases`, one JSON
//! object each way, about all limits and clients of a gateway at once.
//!
//! Both sides use these types, and each holds the other to the bounds below. What the numbers mean together is for
//! whoever keeps them. No I/O and no clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::document::MOST_BURST;
use crate::rule;
use crate::unit::Rate;

/// Limits, and clients of all of them, in one question.
pub const MOST_LIMITS: usize = 64;
pub const MOST_ASKS: usize = 1024;
/// Bytes of a name: a gateway's, an epoch's, a limit's.
const MOST_NAME: usize = 200;

/// Without limits it only says that the gateway is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What the gateway is called, for people.
    pub node: String,
    /// Differs from every other process's.
    pub instance: String,
    /// The epoch of the lender that lent to this process last; absent: nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default)]
    pub limits: Vec<Slice>,
}

/// One limit's part of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub limit: String,
    /// As the gateway's document has them now.
    #[serde(serialize_with = "write_rate", deserialize_with = "read_rate")]
    pub rate: Rate,
    pub burst: u64,
    pub asks: Vec<Ask>,
}

/// One client's part of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The client, as a hash.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub key: u64,
    /// Tokens wanted: what the client needs in the next tenth of a second.
    pub want: u64,
    /// Tokens that the gateway took without the lender knowing; below zero: tokens that come back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub debit: i64,
    /// Tokens that it holds, before any that are wanted.
    pub held: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Differs between lenders, and between two lives of one: levels of two epochs have nothing in common.
    pub epoch: String,
    /// False: this epoch did not know the gateway (any more); what was leased to it before in this epoch has gone back.
    pub known: bool,
    /// How many gateways share.
    pub gateways: u32,
    /// For each limit of the question, for each client, in order.
    pub grants: Vec<Vec<Grant>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// At most what was wanted.
    pub tokens: u64,
    /// What is left in the client's bucket, in thousandths; below zero: used ahead.
    pub left: i64,
}

impl Question {
    /// Every field that is not as it must be: its name, and what is wrong.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut name = |field, name: &str| {
            if name.is_empty() || name.len() > MOST_NAME || name.contains(char::is_control) {
                let why = format!("must have 1 to {MOST_NAME} bytes without control characters");
                faults.push((field, why));
            }
        };
        name("node", &self.node);
        name("instance", &self.instance);
        self.from.iter().for_each(|from| name("from", from));
        for slice in &self.limits {
            name("limits.limit", &slice.limit);
        }
        if self.limits.len() > MOST_LIMITS {
            faults.push(("limits", format!("has more than {MOST_LIMITS} limits")));
        }
        let asks = self.limits.iter().map(|slice| slice.asks.len());
        if asks.sum::<usize>() > MOST_ASKS {
            let why = format!("has more than {MOST_ASKS} clients in all");
            faults.push(("limits.asks", why));
        }
        if { self.limits.iter() }.any(|slice| !(1..=MOST_BURST).contains(&slice.burst)) {
            faults.push(("limits.burst", format!("must be from 1 to {MOST_BURST}")));
        }
        faults.truncate(20);
        faults
    }
}

impl Answer {
    /// Whether it can be an answer to this question.
    pub fn fits(&self, question: &Question) -> bool {
        let named = !self.epoch.is_empty() && self.epoch.len() <= MOST_NAME;
        let both = question.limits.iter().zip(&self.grants);
        named
            && (1..=1_000_000).contains(&self.gateways)
            && self.grants.len() == question.limits.len()
            && { both }.all(|(slice, grants)| slice.asks.len() == grants.len())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn write_rate<S: Serializer>(rate: &Rate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(rate)
}

fn read_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
    let text = String::deserialize(deserializer)?;
    rule::limit_rate(&text).map_err(|fault| de::Error::custom(fault.message))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn write_key<S: Serializer>(key: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{key:014x}"))
}

fn read_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(&text, 16).map_err(|_| de::Error::custom("a key is a hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = r#"{"node":"edge-1","instance":"a1","from":"e1","limits":[{"limit":"login","rate":"5/15m","burst":5,"asks":[{"key":"00000000000c0d","want":3,"debit":-2,"held":1},{"key":"fffffffffffffff1","want":0,"held":0}]}]}"#;

    fn question() -> Question {
        serde_json::from_str(WORDS).expect("a question")
    }

    #[test]
    fn a_question_is_written_as_it_is_read() {
        let question = question();
        assert_eq!(question.limits[0].rate.to_string(), "5/15m");
        assert_eq!(question.limits[0].asks[0].key, 0xc0d);
        assert_eq!(serde_json::to_string(&question).expect("JSON"), WORDS);
        assert_eq!(question.faults(), []);
        let least = r#"{"node":"n","instance":"i"}"#;
        let least: Question = serde_json::from_str(least).expect("a greeting");
        assert_eq!((least.from, least.limits.len()), (None, 0));
    }

    #[test]
    fn what_is_beyond_the_bounds_is_named() {
        let mut wrong = question();
        wrong.node.clear();
        wrong.instance = "a\nb".to_owned();
        wrong.limits[0].burst = 0;
        wrong.limits[0].asks = vec![wrong.limits[0].asks[0]; MOST_ASKS + 1];
        let fields: Vec<_> = wrong.faults().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["node", "instance", "limits.asks", "limits.burst"]);
        wrong.limits = vec![question().limits.remove(0); MOST_LIMITS + 1];
        assert!(wrong.faults().iter().any(|(field, _)| *field == "limits"));
        for (from, to) in [
            ("5/15m", "0/15m"),
            ("5/15m", "9000000/s"),
            ("\"want\":3", "\"want\":-3"),
            ("00000000000c0d", "no"),
        ] {
            let bad = WORDS.replace(from, to);
            assert!(serde_json::from_str::<Question>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_its_question_is_seen() {
        let question = question();
        let grant = Grant { tokens: 1, left: 0 };
        let good = Answer {
            epoch: "e".to_owned(),
            known: true,
            gateways: 3,
            grants: vec![vec![grant, grant]],
        };
        assert!(good.fits(&question));
        for bad in [
            Answer {
                epoch: String::new(),
                ..good.clone()
            },
            Answer {
                gateways: 0,
                ..good.clone()
            },
            Answer {
                grants: vec![vec![grant]],
                ..good.clone()
            },
            Answer {
                grants: Vec::new(),
                ..good
            },
        ] {
            assert!(!bad.fits(&question), "{bad:?}");
        }
    }
}
