//! What whoever runs the mesh asks of the authority: a token for somebody new, a certificate that is to count no more, a
//! name that gets none, another key; and how it all stands. No secret is in an answer but a token, once, to whoever had
//! it made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_config::identity::{MOST_REVOKED, SpiffeId};

use super::certificate::{fingerprint, hex};
use super::record::{
    BARRED, Barred, CERTIFICATES, Issued, REVOKED, Revoked, TOKENS, Token, barred_key, token_key,
};
use super::rotation::NotRotated;
use super::{AT_ONCE, Authority, Refused, maker, now, parsed, put};
use crate::audit::moment;
use crate::store::{Compare, StoreError, Transaction, Write};

/// Join tokens that are kept.
const MOST_TOKENS: usize = 10_000;

/// Certificates that count no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Serial(String),
    /// Everything that was issued to it so far.
    Service(SpiffeId),
}

/// How many there are, and for how long the authority's own certificate is good.
pub struct Figures {
    pub members: usize,
    pub certificates: usize,
    pub revoked: usize,
    pub seconds_left: u64,
}

impl Authority {
    /// The identity of a service here.
    pub fn identity(&self, namespace: &str, service: &str) -> Result<SpiffeId, Refused> {
        let told = self.told()?;
        let domain = &told.authorities.trust_domain;
        SpiffeId::new(domain, namespace, service).map_err(|fault| {
            Refused::Field("service", fault.message, "name a service and its namespace")
        })
    }

    /// A token with which one process may join as this service, once, and when it ends. The text is kept nowhere.
    pub async fn token(
        &self,
        identity: &SpiffeId,
        lifetime: Option<Duration>,
        by: &str,
    ) -> Result<(String, u64), Refused> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Refused::NotReady("the system has no random numbers"))?;
        let text = format!("join-{}", hex(&random));
        let now = now();
        let lifetime = lifetime.unwrap_or(self.settings.token_lifetime);
        let token = Token {
            identity: identity.clone(),
            by: by.to_owned(),
            made: now,
            until: now.saturating_add(lifetime.as_secs().max(1)),
            used: None,
        };
        if self.store.range(TOKENS).await?.kept.len() >= MOST_TOKENS {
            return Err(Refused::Full(
                "10,000 join tokens were made that are not over for a day",
            ));
        }
        let key = token_key(&text);
        let value = serde_json::to_string(&token).unwrap_or_default();
        let transaction = Transaction::put(key.as_str(), value);
        let written = self
            .store
            .commit(transaction.when(Compare::Absent(key.into())));
        match written.await?.written {
            true => Ok((text, token.until)),
            false => {
                Err(StoreError::NotWritten("the same token was made before".to_owned()).into())
            }
        }
    }

    /// Tells every member that these certificates count no more; with `bar`, the service gets no other until it is
    /// allowed. Returns how many there were.
    pub async fn revoke(&self, which: &Which, bar: bool, by: &str) -> Result<usize, Refused> {
        self.told()?;
        let _alone = self.changing.write().await;
        let now = now();
        let found: Vec<(String, Issued)> = match which {
            Which::Serial(serial) => {
                let kept = self.store.one(&format!("{CERTIFICATES}{serial}")).await?;
                let issued = kept.as_ref().and_then(parsed);
                let issued = issued.ok_or_else(|| Refused::Unknown(serial.clone()))?;
                vec![(serial.clone(), issued)]
            }
            Which::Service(identity) => {
                let all = self.issued().await?;
                all.into_iter()
                    .filter(|(_, one)| one.identity == *identity)
                    .collect()
            }
        };
        let known = self.told()?.trust.revoked.clone();
        let fresh: Vec<&(String, Issued)> = { found.iter() }
            .filter(|(serial, _)| known.binary_search(serial).is_err())
            .collect();
        if known.len() + fresh.len() > MOST_REVOKED {
            return Err(Refused::Full(
                "100,000 certificates that have not ended are revoked",
            ));
        }
        let mut writes: Vec<Write> = Vec::new();
        let barred = match which {
            Which::Service(identity) => Some(identity),
            Which::Serial(_) => found.first().map(|(_, one)| &one.identity),
        };
        // First of all: nobody slips through between the parts of a long list.
        if let Some(identity) = barred.filter(|_| bar) {
            let by = by.to_owned();
            let text = serde_json::to_string(&Barred { time: now, by }).unwrap_or_default();
            writes.push(put(barred_key(identity), text.into()));
        }
        for (serial, issued) in &fresh {
            let revoked = Revoked {
                identity: issued.identity.clone(),
                time: now,
                until: issued.not_after,
            };
            let text = serde_json::to_string(&revoked).unwrap_or_default();
            writes.push(put(format!("{REVOKED}{serial}"), text.into()));
        }
        for part in writes.chunks(AT_ONCE) {
            if !self.tell_anew(part.to_vec()).await? {
                let why = "somebody else changed the authority at the same time";
                return Err(StoreError::NotWritten(why.to_owned()).into());
            }
        }
        Ok(fresh.len())
    }

    /// A service that was barred may have certificates again. Whether it was.
    pub async fn allow(&self, identity: &SpiffeId) -> Result<bool, Refused> {
        let _alone = self.changing.write().await;
        let key: Arc<str> = barred_key(identity).into();
        let transaction = Transaction::delete(key.clone()).when(Compare::Present(key));
        Ok(self.store.commit(transaction).await?.written)
    }

    /// Another key: told to all now, signing when the overlap is over. Returns when that is.
    pub async fn rotate(&self, overlap: Option<Duration>) -> Result<u64, Refused> {
        self.told()?;
        let _alone = self.changing.write().await;
        self.look().await?;
        let told = self.told()?;
        let now = now();
        let mut wanted = self.wanted(true, true);
        wanted.overlap = overlap.map_or(wanted.overlap, |overlap| overlap.as_secs());
        let mut make = maker(&told.authorities.trust_domain);
        let rotated = told.authorities.rotate(now, &wanted, &mut *make);
        let change = match rotated {
            Ok(Ok(change)) => change,
            Ok(Err(NotRotated::Active(from))) => return Err(Refused::Rotating(from)),
            Ok(Err(NotRotated::Own)) => return Err(Refused::Own),
            Ok(Err(NotRotated::TooMany)) => {
                return Err(Refused::Full("16 authorities are trusted at once"));
            }
            Err(_) => return Err(Refused::NotReady("no key can be made")),
        };
        self.write(change, Some(told.revision)).await?;
        Ok(now.saturating_add(wanted.overlap))
    }

    async fn issued(&self) -> Result<Vec<(String, Issued)>, Refused> {
        let range = self.store.range(CERTIFICATES).await?;
        let read = |kept: &crate::store::Kept| {
            let serial = kept.key.strip_prefix(CERTIFICATES)?;
            Some((serial.to_owned(), parsed(kept)?))
        };
        Ok(range.kept.iter().filter_map(read).collect())
    }

    /// Until when the latest certificate of each member is good, in seconds since 1970; of those whose time is over, too, for as
    /// long as they are remembered. Empty where there is no authority, or no store that answers.
    pub async fn lasts(&self) -> BTreeMap<String, u64> {
        let mut lasts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (_, issued) in self.issued().await.unwrap_or_default() {
            let identity = &issued.identity;
            let name = format!("{}/{}", identity.namespace(), identity.service());
            let newer = (issued.issued, issued.not_after);
            let known = lasts.entry(name).or_insert(newer);
            *known = newer.max(*known);
        }
        let ends = lasts.into_iter().map(|(name, (_, until))| (name, until));
        ends.collect()
    }

    /// `None`: there is no authority, or none yet.
    pub fn figures(&self) -> Option<Figures> {
        let told = self.told().ok()?;
        let signs = told.authorities.signs()?;
        let out = self.out();
        Some(Figures {
            members: out.len(),
            certificates: out.values().sum(),
            revoked: told.trust.revoked.len(),
            seconds_left: signs.not_after.saturating_sub(now()),
        })
    }

    /// How it stands: keys, members, who is barred, and tokens, but for their text. With a service every certificate of
    /// it that is out.
    pub async fn standing(&self, service: Option<&SpiffeId>) -> Result<Value, Refused> {
        let told = self.told()?;
        let now = now();
        let time = |seconds: u64| moment(seconds.saturating_mul(1000));
        let revoked = |serial: &String| told.trust.revoked.binary_search(serial).is_ok();
        let one = |serial: &String, issued: &Issued| {
            json!({
                "serial": serial, "identity": issued.identity, "namespace": issued.identity.namespace(),
                "service": issued.identity.service(), "proof": issued.proof, "address": issued.address,
                "issued": moment(issued.issued), "not_after": time(issued.not_after),
                "seconds_left": issued.not_after.saturating_sub(now), "authority": issued.authority,
                "revoked": revoked(serial),
            })
        };
        let authorities = told.authorities.known.iter().map(|known| {
            use super::rotation::Phase;
            let mut value = json!({
                "number": known.number, "phase": known.phase.word(), "made": time(known.made),
                "not_after": time(known.not_after), "seconds_left": known.not_after.saturating_sub(now),
                "fingerprint": fingerprint(&known.certificate), "own": known.own,
            });
            match known.phase {
                Phase::Announced { signs_from } => value["signs_from"] = time(signs_from).into(),
                Phase::Leaving { until, .. } => value["trusted_until"] = time(until).into(),
                Phase::Signs { .. } => {}
            }
            value
        });
        let issued = self.issued().await?;
        let issued: Vec<_> = { issued.into_iter() }
            .filter(|(_, one)| {
                one.not_after > now && service.is_none_or(|own| one.identity == *own)
            })
            .collect();
        // The latest of each, and how many there are.
        let mut members: BTreeMap<&SpiffeId, (usize, &(String, Issued))> = BTreeMap::new();
        for entry in &issued {
            let row = members.entry(&entry.1.identity).or_insert((0, entry));
            row.0 += 1;
            if entry.1.issued >= row.1.1.issued {
                row.1 = entry;
            }
        }
        let members = members.values().map(|(count, (serial, issued))| {
            let mut value = one(serial, issued);
            value["certificates"] = (*count).into();
            value
        });
        let tokens = self.store.range(TOKENS).await?.kept;
        let tokens = tokens.iter().filter_map(parsed::<Token>);
        let tokens = tokens
            .filter(|token| token.until > now && token.used.is_none())
            .map(|token| {
                json!({
                    "identity": token.identity, "namespace": token.identity.namespace(),
                    "service": token.identity.service(), "by": token.by, "until": time(token.until),
                    "seconds_left": token.until.saturating_sub(now),
                })
            });
        let barred = self.store.range(BARRED).await?.kept;
        let barred = barred.iter().filter_map(|kept| {
            let (namespace, service) = kept.key.strip_prefix(BARRED)?.split_once('/')?;
            let barred: Barred = parsed(kept)?;
            Some(json!({
                "namespace": namespace, "service": service, "since": time(barred.time), "by": barred.by,
            }))
        });
        let mut value = json!({
            "trust_domain": told.trust.trust_domain,
            "version": told.trust.version,
            "authorities": authorities.collect::<Vec<_>>(),
            "members": members.collect::<Vec<_>>(),
            "barred": barred.collect::<Vec<_>>(),
            "tokens": tokens.collect::<Vec<_>>(),
            "revoked": told.trust.revoked.len(),
        });
        if service.is_some() {
            let all = issued.iter().map(|(serial, issued)| one(serial, issued));
            value["certificates"] = all.collect::<Vec<_>>().into();
        }
        Ok(value)
    }
}
