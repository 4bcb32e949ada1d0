//! Whom a route serves (GW-904): roles, permissions, ownership, addresses. What a client is told of a refusal is its code
//! alone; which rule it broke, and where that stands, goes to the log.

use std::net::IpAddr;

use tollgate_config::path::{PathPattern, Segment};
use tollgate_config::{Allow, AllowRule, At, Item, Route};

use super::jwt::Identity;
use crate::exchange::error::{Code, Error};
use crate::route::pattern_of;

/// The rules of one filter, with their parameters found in the path's pattern.
#[derive(Debug)]
pub(super) struct Rules {
    allow: Allow,
    at: At,
    /// For the rule that all must keep, then for each of `any_of`: which segment of the path is its owner's.
    owned: Box<[Option<usize>]>,
    asks_address: bool,
}

/// Who asks for what.
pub(super) struct Case<'a> {
    pub(super) who: Option<&'a Identity>,
    /// In normal form.
    pub(super) path: &'a str,
    pub(super) address: IpAddr,
}

impl Rules {
    pub(super) fn compile(allow: &Allow, at: At, route: &Route) -> Self {
        let pattern = pattern_of(&route.matches);
        let owned = allow.rules().map(|rule| {
            let owner = rule.owner.as_ref()?;
            segment(pattern?, &owner.parameter)
        });
        Rules {
            owned: owned.collect(),
            asks_address: allow.rules().any(|rule| !rule.cidr.is_empty()),
            allow: allow.clone(),
            at,
        }
    }

    /// Whether the client's address must be found out.
    pub(super) fn asks_address(&self) -> bool {
        self.asks_address
    }

    pub(super) fn ask(&self, case: &Case<'_>, route: &Item<Route>) -> Result<(), Error> {
        let mut rules = self.allow.rules().zip(&self.owned);
        let all = rules
            .next()
            .is_none_or(|(rule, owned)| case.keeps(rule, *owned));
        let any =
            self.allow.any_of.is_empty() || rules.any(|(rule, owned)| case.keeps(rule, *owned));
        if all && any {
            return Ok(());
        }
        // Somebody else's token might do; an address is what it is.
        if case.who.is_none() && self.allow.rules().any(AllowRule::asks_who) {
            return Err(Error::because(
                Code::TokenRequired,
                "no token that holds, and a rule asks who calls",
            ));
        }
        let place = route.place(self.at).unwrap_or_else(|| route.begins());
        let who = case.who.map_or("nobody", Identity::subject);
        let why = format!(
            "{who} at {} does not keep {} ({place})",
            case.address, self.allow
        );
        Err(Error::because(Code::Forbidden, why))
    }
}

/// Which segment of a path a capture is.
fn segment(pattern: &PathPattern, name: &str) -> Option<usize> {
    pattern
        .segments
        .iter()
        .position(|segment| matches!(segment, Segment::Capture(known) if known == name))
}

impl Case<'_> {
    fn keeps(&self, rule: &AllowRule, owned: Option<usize>) -> bool {
        let role = || match self.who {
            Some(who) => rule.roles.iter().any(|role| who.has_role(role)),
            None => false,
        };
        let permissions = || match self.who {
            Some(who) => rule.permissions.iter().all(|one| who.may(one)),
            None => false,
        };
        let owns = || {
            let owner = rule.owner.as_ref()?;
            let claimed = self.who?.claim(&owner.claim)?;
            let named = self.path.split('/').nth(owned? + 1)?;
            Some(!claimed.is_empty() && is_same(named, claimed))
        };
        (rule.roles.is_empty() || role())
            && (rule.permissions.is_empty() || permissions())
            && (rule.owner.is_none() || owns().unwrap_or(false))
            && (rule.cidr.is_empty() || rule.cidr.iter().any(|block| block.contains(self.address)))
    }
}

/// Whether a segment in normal form stands for this text. Its escapes are whole and in capitals.
fn is_same(segment: &str, text: &str) -> bool {
    let mut rest = segment.as_bytes();
    let mut wanted = text.bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    return false;
                };
                (u8::try_from(high * 16 + low).unwrap_or_default(), tail)
            }
            (byte, tail) => (*byte, tail),
        };
        if wanted.next() != Some(byte) {
            return false;
        }
        rest = tail;
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_compared_as_what_it_stands_for() {
        for (segment, text, same) in [
            ("42", "42", true),
            ("42", "4", false),
            ("4", "42", false),
            ("a%20b", "a b", true),
            ("caf%C3%A9", "café", true),
            ("%2", "%2", true),
            ("100%25", "100%", true),
            ("a+b", "a b", false),
            ("A", "a", false),
        ] {
            assert_eq!(is_same(segment, text), same, "{segment} {text}");
        }
    }
}
