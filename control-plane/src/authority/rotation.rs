//! Which keys the authority has, and how one takes over from another: announced, so that all members trust it; then it
//! signs; then it signs no more, and is trusted until the last certificate that it signed has ended. At every moment
//! whatever is valid was signed by somebody whom every member trusts that was told in time.
//!
//! Pure: the time, what was issued, and new keys are arguments. Private keys are not known here.

use serde::{Deserialize, Serialize};
use tollgate_config::identity::{MOST_AUTHORITIES, Trust};

use super::certificate::Made;

/// Clocks of members may be so far apart, in seconds.
pub(super) const SKEW: u64 = 300;

/// What all control planes that share a store know of the authority's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authorities {
    /// Of what members are told: grows with every change of it.
    pub(super) version: u64,
    pub(super) trust_domain: String,
    /// The number of the newest key that there ever was.
    pub(super) last_number: u64,
    pub(super) known: Vec<Known>,
}

/// One key, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Never given twice.
    pub(super) number: u64,
    /// What signs members' certificates, as PEM.
    pub(super) certificate: String,
    /// Its issuers up to but without the trusted one, as PEM: sent along with members' certificates.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) chain: String,
    /// Whom members trust because of it, each as PEM.
    pub(super) trusted: Vec<String>,
    pub(super) made: u64,
    pub(super) not_after: u64,
    /// The key is somebody's own, in a file.
    #[serde(default)]
    pub(super) own: bool,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Trusted, so that it can sign from then on.
    Announced {
        signs_from: u64,
    },
    Signs {
        since: u64,
    },
    /// Signs no more; trusted until then.
    Leaving {
        since: u64,
        until: u64,
    },
}

impl Phase {
    pub(super) fn word(self) -> &'static str {
        match self {
            Phase::Announced { .. } => "announced",
            Phase::Signs { .. } => "signs",
            Phase::Leaving { .. } => "leaving",
        }
    }
}

/// A key in files, as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) certificate: String,
    pub(super) chain: String,
    pub(super) trusted: Vec<String>,
    pub(super) not_after: u64,
}

/// What is wanted of the authority; of the document, but for `has_key` and `has_members`.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'w> {
    pub(super) trust_domain: &'w str,
    pub(super) authority_lifetime: u64,
    pub(super) overlap: u64,
    /// When so much is left of a key, the next one is announced.
    pub(super) rotates_before: u64,
    pub(super) own: Option<&'w Own>,
    /// The key that signs is there.
    pub(super) has_key: bool,
    /// Certificates are out that have not ended.
    pub(super) has_members: bool,
}

/// What became of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) authorities: Authorities,
    /// A new private key, by number: durable together with the above.
    pub(super) key: Option<(u64, String)>,
    /// Whose private keys are to be forgotten.
    pub(super) forget: Vec<u64>,
    /// For the log and the audit log.
    pub(super) words: Vec<String>,
}

/// Makes a key: number, from when, until when.
pub(super) type Make<'m> = dyn FnMut(u64, u64, u64) -> Result<Made, String> + Send + 'm;

/// Why no other key takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotRotated {
    /// One does already, and signs from then on.
    Active(u64),
    /// The key is somebody's own.
    Own,
    /// So many are still trusted.
    TooMany,
}

impl Authorities {
    /// Who signs.
    pub(super) fn signs(&self) -> Option<&Known> {
        { self.known.iter() }.find(|known| matches!(known.phase, Phase::Signs { .. }))
    }

    fn announced(&self) -> Option<(&Known, u64)> {
        self.known.iter().find_map(|known| match known.phase {
            Phase::Announced { signs_from } => Some((known, signs_from)),
            _ => None,
        })
    }

    /// What members are told.
    pub(super) fn trust(&self, revoked: Vec<String>) -> Trust {
        let mut authorities: Vec<String> = Vec::new();
        for pem in self.known.iter().flat_map(|known| &known.trusted) {
            if !authorities.contains(pem) {
                authorities.push(pem.clone());
            }
        }
        Trust {
            trust_domain: self.trust_domain.clone(),
            version: self.version,
            authorities,
            revoked,
        }
    }

    /// The number of what members are told next. Begins with the time, so that a store that was lost does not begin below
    /// what members have heard.
    pub(super) fn next_version(&self, now: u64) -> u64 {
        self.version.saturating_add(1).max(now)
    }

    fn next_number(&mut self) -> u64 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }

    fn has_room_for(&self, more: usize) -> bool {
        self.trust(Vec::new()).authorities.len() + more <= MOST_AUTHORITIES
    }

    /// A new key, told to all, that signs when `overlap` is over.
    pub(super) fn rotate(
        &self,
        now: u64,
        wanted: &Wanted<'_>,
        make: &mut Make<'_>,
    ) -> Result<Result<Change, NotRotated>, String> {
        if let Some((_, signs_from)) = self.announced() {
            return Ok(Err(NotRotated::Active(signs_from)));
        }
        if self.signs().is_some_and(|known| known.own) {
            return Ok(Err(NotRotated::Own));
        }
        if !self.has_room_for(1) {
            return Ok(Err(NotRotated::TooMany));
        }
        let mut authorities = self.clone();
        let signs_from = now.saturating_add(wanted.overlap);
        let key = authorities.add(now, wanted, Phase::Announced { signs_from }, make)?;
        authorities.version = self.next_version(now);
        Ok(Ok(Change {
            words: vec![format!(
                "authority {} is announced, and signs in {} s",
                key.0, wanted.overlap
            )],
            authorities,
            key: Some(key),
            forget: Vec::new(),
        }))
    }

    fn add(
        &mut self,
        now: u64,
        wanted: &Wanted<'_>,
        phase: Phase,
        make: &mut Make<'_>,
    ) -> Result<(u64, String), String> {
        let number = self.next_number();
        let not_after = now.saturating_add(wanted.authority_lifetime);
        // Members whose clock is behind know it at once, too.
        let made = make(number, now.saturating_sub(SKEW), not_after)?;
        self.known.push(Known {
            number,
            certificate: made.certificate.clone(),
            chain: String::new(),
            trusted: vec![made.certificate],
            made: now,
            not_after,
            own: false,
            phase,
        });
        Ok((number, made.key))
    }

    /// Whoever signs, or was to sign next, gives way at once. `last`: when the last certificate of a key ends.
    fn give_way(&mut self, now: u64, last: &dyn Fn(u64) -> u64) -> Vec<u64> {
        let mut forget = Vec::new();
        for known in &mut self.known {
            if matches!(known.phase, Phase::Leaving { .. }) {
                continue;
            }
            let until = last(known.number).max(now).saturating_add(SKEW);
            known.phase = Phase::Leaving { since: now, until };
            forget.push(known.number);
        }
        forget
    }
}

/// What time and the document ask for: the first key, the next one, the end of one. `None`: nothing.
pub(super) fn settle(
    authorities: Option<&Authorities>,
    now: u64,
    wanted: &Wanted<'_>,
    last: &dyn Fn(u64) -> u64,
    make: &mut Make<'_>,
) -> Result<Option<Change>, String> {
    let same_domain = |known: &&Authorities| {
        // What members are called cannot change under them.
        known.trust_domain == wanted.trust_domain || wanted.has_members
    };
    let mut change = Change {
        authorities: match authorities.filter(same_domain) {
            Some(known) => known.clone(),
            None => Authorities {
                version: authorities.map_or(0, |former| former.version),
                trust_domain: wanted.trust_domain.to_owned(),
                last_number: authorities.map_or(0, |former| former.last_number),
                known: Vec::new(),
            },
        },
        key: None,
        forget: Vec::new(),
        words: Vec::new(),
    };
    if let Some(former) = authorities.filter(|known| !same_domain(known)) {
        change.forget = former.known.iter().map(|known| known.number).collect();
    }
    let before = change.authorities.trust(Vec::new());
    let next = &mut change.authorities;
    match wanted.own {
        Some(own) => adopt(next, own, now, last, &mut change.forget, &mut change.words),
        None => {
            let (signs, announced) = (next.signs(), next.announced());
            let lost = signs.is_none_or(|known| known.own || !wanted.has_key);
            if let Some((number, _)) = announced
                .filter(|(_, from)| lost || now >= *from)
                .map(|(known, from)| (known.number, from))
            {
                let former: Vec<u64> = signs.map(|known| known.number).into_iter().collect();
                take_over(next, number, now, last);
                change.forget.extend(&former);
                change.words.push(format!("authority {number} signs"));
            } else if lost {
                change.forget.extend(next.give_way(now, last));
                let key = next.add(now, wanted, Phase::Signs { since: now }, make)?;
                let words = format!("authority {} signs: there was no key to sign with", key.0);
                change.words.push(words);
                change.key = Some(key);
            } else if announced.is_none()
                && signs
                    .is_some_and(|one| now.saturating_add(wanted.rotates_before) > one.not_after)
                && next.has_room_for(1)
                && let Ok(rotated) = next.rotate(now, wanted, make)?
            {
                (change.key, change.words) = (rotated.key, rotated.words);
                *next = rotated.authorities;
            }
        }
    }
    next.known.retain(|known| match known.phase {
        Phase::Leaving { until, .. } if now >= until => {
            let words = format!("authority {} is trusted no more", known.number);
            change.words.push(words);
            change.forget.push(known.number);
            false
        }
        _ => true,
    });
    let after = next.trust(Vec::new());
    if (&before.authorities, authorities.is_some()) != (&after.authorities, true) {
        next.version = authorities.map_or(now, |former| former.next_version(now));
    }
    Ok((Some(&change.authorities) != authorities).then_some(change))
}

fn take_over(next: &mut Authorities, number: u64, now: u64, last: &dyn Fn(u64) -> u64) {
    for known in &mut next.known {
        match known.phase {
            Phase::Signs { .. } => {
                let until = last(known.number).max(now).saturating_add(SKEW);
                known.phase = Phase::Leaving { since: now, until };
            }
            Phase::Announced { .. } if known.number == number => {
                known.phase = Phase::Signs { since: now };
            }
            _ => {}
        }
    }
}

/// A key in files signs from the moment that it is there: nobody else may.
fn adopt(
    next: &mut Authorities,
    own: &Own,
    now: u64,
    last: &dyn Fn(u64) -> u64,
    forget: &mut Vec<u64>,
    words: &mut Vec<String>,
) {
    let same = |known: &&mut Known| {
        known.certificate == own.certificate && matches!(known.phase, Phase::Signs { .. })
    };
    if let Some(known) = next.known.iter_mut().find(same) {
        known.chain.clone_from(&own.chain);
        known.trusted.clone_from(&own.trusted);
        return;
    }
    forget.extend(next.give_way(now, last));
    let number = next.next_number();
    next.known.push(Known {
        number,
        certificate: own.certificate.clone(),
        chain: own.chain.clone(),
        trusted: own.trusted.clone(),
        made: now,
        not_after: own.not_after,
        own: true,
        phase: Phase::Signs { since: now },
    });
    words.push(format!("authority {number} signs: the one in files"));
}
