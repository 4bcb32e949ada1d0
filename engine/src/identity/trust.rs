//! Whether what is told of whom to trust takes the place of what is known. Pure.
//!
//! A newer version does. A control plane that lost its memory begins with another authority and another count: whoever
//! shares no authority with what is known is such a one, and is trusted beside it, so that members who have old
//! certificates and members who have new ones still meet. The next version of the new one takes the old ones away.

use tollgate_config::identity::{MOST_AUTHORITIES, MOST_REVOKED, Trust};

/// What is to be trusted from now on; `None`: nothing else than before.
pub(super) fn next(known: Option<&Trust>, told: Trust) -> Result<Option<Trust>, String> {
    told.check()?;
    let Some(known) = known else {
        return Ok(Some(told));
    };
    if known.trust_domain != told.trust_domain {
        return Err(format!(
            "it is of the trust domain `{}`, and this data plane of `{}`",
            told.trust_domain, known.trust_domain
        ));
    }
    let shared = { told.authorities.iter() }.any(|one| known.authorities.contains(one));
    if !shared {
        return Ok(Some(beside(known, told)));
    }
    Ok((told.version > known.version).then_some(told))
}

/// Both, as far as there is room.
fn beside(known: &Trust, mut told: Trust) -> Trust {
    told.authorities.extend(known.authorities.iter().cloned());
    told.authorities.truncate(MOST_AUTHORITIES);
    for serial in &known.revoked {
        if told.revoked.len() < MOST_REVOKED && !told.revoked.contains(serial) {
            told.revoked.push(serial.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(version: u64, authorities: &[&str], revoked: &[&str]) -> Trust {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Trust {
            trust_domain: "a".to_owned(),
            version,
            authorities: owned(authorities),
            revoked: owned(revoked),
        }
    }

    #[test]
    fn the_newest_holds_and_old_news_change_nothing_mesh_304() {
        let first = trust(3, &["x"], &[]);
        assert_eq!(next(None, first.clone()), Ok(Some(first.clone())));
        assert_eq!(next(Some(&first), first.clone()), Ok(None));
        let old = trust(2, &["x"], &["1"]);
        assert_eq!(next(Some(&first), old), Ok(None));
        let rotated = trust(4, &["x", "y"], &["1"]);
        assert_eq!(next(Some(&first), rotated.clone()), Ok(Some(rotated)));
    }

    #[test]
    fn an_authority_that_lost_its_memory_is_trusted_beside_the_old_one() {
        let known = trust(9, &["x", "y"], &["1"]);
        let both = trust(1, &["z", "x", "y"], &["2", "1"]);
        let told = trust(1, &["z"], &["2"]);
        assert_eq!(next(Some(&known), told.clone()), Ok(Some(both.clone())));
        assert_eq!(next(Some(&both), told), Ok(None), "told again");
        let later = trust(2, &["z"], &[]);
        assert_eq!(next(Some(&both), later.clone()), Ok(Some(later)));
    }

    #[test]
    fn another_trust_domain_is_never_believed() {
        let known = trust(1, &["x"], &[]);
        let mut told = trust(2, &["x"], &[]);
        told.trust_domain = "b".to_owned();
        assert!(next(Some(&known), told).is_err());
        let mut hollow = trust(2, &["x"], &[]);
        hollow.authorities.clear();
        assert!(next(Some(&known), hollow).is_err());
    }
}
