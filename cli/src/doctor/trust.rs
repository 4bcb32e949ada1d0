//! What is wrong with a member's chain of certificates, in the order in which it matters: whom it names, whether its time is
//! over, whether it was revoked, and whether whoever judges trusts its authority. A chain whose time is over is also judged at
//! a time when it was good, so that one that expired is not taken for one that is forged, nor the other way round.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use tollgate_config::identity::Trust;
use tollgate_engine::clock::http_date;
use tollgate_engine::net::tls::look::Looked;
use tollgate_engine::net::tls::{Reason, SKEW, Trusted};

use super::finding::Finding;
use super::times;

/// Less of a life than this, in percent, should have been renewed: members ask for the next one long before.
const LATE: u64 = 25;
/// An authority that ends so soon is told.
const SOON: u64 = 14 * 24 * 3600;

/// What becomes of an answer when a clock is wrong.
pub(super) struct Clock {
    /// What is known of it; `None`: nothing that matters.
    pub(super) apart: Option<String>,
}

/// The life of a member's certificate; `renew` is what to do about one that nobody renewed.
pub(super) fn life(
    what: &str,
    chain: &[CertificateDer<'_>],
    now: u64,
    clock: &Clock,
    renew: &str,
) -> Finding {
    let looked = chain.first().map(Looked::at);
    let looked = match looked {
        None => return Finding::problem(what, "it shows no certificate", ""),
        Some(Err(why)) => return Finding::problem(what, why, ""),
        Some(Ok(looked)) => looked,
    };
    let Looked {
        not_before,
        not_after,
        ..
    } = looked;
    let names = looked.names.join(", ");
    if not_after <= now {
        let since = times::span_words(now - not_after);
        let why = format!(
            "the certificate of {names} expired {since} ago, on {}",
            http_date(not_after)
        );
        return Finding::problem(what, why, renew).because(clock.apart.clone());
    }
    if not_before > now + SKEW.as_secs() {
        let until = times::span_words(not_before - now);
        let why = format!(
            "the certificate of {names} is valid only in {until}, from {} on: this machine's clock, or that of whoever signed it, is wrong",
            http_date(not_before)
        );
        let next = "set the clock that is wrong (`timedatectl`), and let both follow a time server";
        return Finding::problem(what, why, next).because(clock.apart.clone());
    }
    let whole = not_after.saturating_sub(not_before).max(1);
    let percent = (not_after - now).saturating_mul(100) / whole;
    let left = times::span_words(not_after - now);
    let why = format!(
        "{names}, good for another {left} ({percent} % of its life), until {}",
        http_date(not_after)
    );
    match percent < LATE {
        true => Finding::warning(
            what,
            format!("{why}; it should have been renewed by now"),
            renew,
        ),
        false => Finding::ok(what, why),
    }
}

/// Whether whoever trusts these takes this chain; times, which `life` tells of, aside. `None`: it does.
pub(super) fn refused(
    chain: &[CertificateDer<'_>],
    trusted: &Trusted,
    now: u64,
) -> Option<(Reason, String)> {
    let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let mut refusal = trusted.judges(chain, at(now)).err()?;
    if matches!(refusal.reason, Reason::Expired | Reason::NotYetValid) {
        let begins = Looked::at(chain.first()?).ok()?.not_before;
        refusal = trusted.judges(chain, at(begins)).err()?;
    }
    // Those in the middle may be over when the first of the chain began: that is a time, too.
    (!matches!(refusal.reason, Reason::Expired | Reason::NotYetValid))
        .then(|| (refusal.reason, refusal.to_string()))
}

/// What to do about a refusal.
pub(super) fn next_of(reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownAuthority => {
            "the two follow control planes of different authorities, or one missed a rotation: let both follow the same, and look at \
             `tollgate identity status`"
        }
        Reason::Revoked => {
            "it was taken back on purpose (tollgate audit --what identity-revoke); a new join token makes it a member again"
        }
        Reason::WrongDomain => {
            "they are of different meshes: `[identity] trust_domain` of their control planes"
        }
        _ => "look at who signed it, and for what",
    }
}

/// Authorities whose own time is over, or nearly.
pub(super) fn authorities(what: &str, trusted: &Trusted, now: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut good = 0_usize;
    for authority in &trusted.authorities {
        let name = &authority.name;
        let next = "a control plane makes the next key in time by itself, and tells members over the feed: look whether this one is \
                    connected; of a key of your own, replace it";
        if authority.not_after <= now {
            let since = times::span_words(now - authority.not_after);
            found.push((format!("the authority `{name}` expired {since} ago"), next));
        } else if authority.not_after - now < SOON {
            good += 1;
            let left = times::span_words(authority.not_after - now);
            found.push((
                format!("the authority `{name}` is good for another {left} only"),
                next,
            ));
        } else {
            good += 1;
        }
    }
    let all = found.into_iter();
    all.map(|(why, next)| match good {
        0 => Finding::problem(what, format!("{why}, and no other one is trusted"), next),
        _ => Finding::warning(what, why, next),
    })
    .collect()
}

/// Whether a member and the control plane tell the same of whom to trust.
pub(super) fn generations(what: &str, own: &Trusted, told: &Trust, url: &str) -> Option<Finding> {
    let told_all = match Trusted::new(told) {
        Ok(trusted) => trusted,
        Err(why) => {
            let why = format!("{url} tells of authorities that cannot be read: {why}");
            return Some(Finding::problem(what, why, "look at its log"));
        }
    };
    if own.trust_domain != told.trust_domain {
        let why = format!(
            "it is of the trust domain `{}`, and {url} of `{}`",
            own.trust_domain, told.trust_domain
        );
        let next = "it follows another mesh than it joined: correct `[control_plane] urls`, or let it join anew";
        return Some(Finding::problem(what, why, next));
    }
    let same = |a: &str| told_all.authorities.iter().any(|one| *one.serial == *a);
    let shared = { own.authorities.iter() }
        .filter(|one| same(&one.serial))
        .count();
    let next = "whom to trust comes over the feed: look whether it is connected; members that joined before and after a new authority \
                refuse each other until both know both";
    if shared == 0 {
        let why = format!(
            "none of the authorities that it trusts is one of {url}: every member that joins there now is a stranger to it"
        );
        return Some(Finding::problem(what, why, next));
    }
    if shared < told_all.authorities.len() {
        let why = format!(
            "{url} tells of {} authorities, and it trusts {shared} of them: it missed a rotation (version {} here, {} there)",
            told_all.authorities.len(),
            own.version,
            told.version
        );
        return Some(Finding::warning(what, why, next));
    }
    let why = format!(
        "it trusts the authorities of {url} (version {})",
        told.version
    );
    Some(Finding::ok(what, why))
}
