//! Who wants a certificate: what they prove, and what they get. Written down before it is answered, with what makes the
//! proof good only once in the same transaction: of two that show the same token, at whichever control plane, one is
//! believed.

use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tollgate_config::identity::{CertificateAnswer, CertificateRequest, Proof, SpiffeId};
use tollgate_engine::telemetry::log;

use super::base64::{Alphabet, read};
use super::certificate::{Csr, Shown, hex, serial};
use super::record::{self, CERTIFICATES, Issued, REVOKED, Token, Used, barred_key, token_key};
use super::rotation::SKEW;
use super::{Authority, PROOFS, Refused, Told, kubernetes, now, parsed, put};
use crate::audit::moment;
use crate::catalog::millis;
use crate::store::{Compare, StoreError, Transaction, Write};

/// A certificate is good from a little before it is made on, for clocks that are behind; in seconds.
const EARLY: u64 = 120;
/// Certificates that are out, of all and of one service.
const MOST: usize = 200_000;
const MOST_OF_ONE: usize = 20_000;
/// How often it is tried anew, when somebody else writes at the same time.
const TRIES: usize = 8;

/// What somebody gets.
pub struct Given {
    pub answer: CertificateAnswer,
    pub serial: String,
    /// Why they were believed.
    pub proof: String,
}

/// What was proven, and what makes it so.
struct Proven {
    proof: String,
    when: Vec<Compare>,
    then: Vec<Write>,
}

impl Authority {
    /// Answers a request for a certificate.
    pub async fn issue(
        &self,
        request: &CertificateRequest,
        address: &str,
    ) -> Result<Given, Refused> {
        let told = self.told()?;
        let from = { address.parse() }.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let mark = mark_of(&request.proof);
        if !self.is_known(&request.proof).await? {
            let may = self.failures().may_try(from, mark, self.started.elapsed());
            may.map_err(Refused::TooMany)?;
        }
        let result = self.answer(request, address, told).await;
        let time = self.started.elapsed();
        match &result {
            Ok(given) => {
                let which = PROOFS.iter().position(|word| given.proof.starts_with(word));
                if let Some(count) = which.and_then(|at| self.counts.issued.get(at)) {
                    count.fetch_add(1, Relaxed);
                }
                self.failures().succeeded(from, mark, time);
            }
            Err(refused) => {
                self.counts.refused.fetch_add(1, Relaxed);
                if let Refused::NotProven(_) | Refused::TokenUsed { .. } | Refused::Field(..) =
                    refused
                {
                    self.failures().failed(from, time);
                }
            }
        }
        result
    }

    async fn answer(
        &self,
        request: &CertificateRequest,
        address: &str,
        mut told: Arc<Told>,
    ) -> Result<Given, Refused> {
        let csr = Csr::read(&request.csr).map_err(|why| {
            let hint =
                "send a PKCS #10 request as PEM, with an ECDSA P-256 key, signed with SHA-256";
            Refused::Field("csr", why.to_owned(), hint)
        })?;
        let _shared = self.changing.read().await;
        for _ in 0..TRIES {
            match self.attempt(request, &csr, address, &told).await? {
                Some(given) => return Ok(given),
                None => {
                    self.look().await?;
                    told = self.told()?;
                }
            }
        }
        let why = "others were faster, again and again";
        Err(StoreError::NotWritten(why.to_owned()).into())
    }

    /// `None`: somebody else has written meanwhile.
    async fn attempt(
        &self,
        request: &CertificateRequest,
        csr: &Csr,
        address: &str,
        told: &Told,
    ) -> Result<Option<Given>, Refused> {
        let now = now();
        let domain = &told.authorities.trust_domain;
        let identity = SpiffeId::new(domain, &request.namespace, &request.service);
        let identity = identity.map_err(|fault| {
            Refused::Field("service", fault.message, "name a service and its namespace")
        })?;
        let barred = barred_key(&identity);
        if self.store.one(&barred).await?.is_some() {
            return Err(Refused::Barred(identity));
        }
        let signs = told.authorities.signs();
        let signs = signs.ok_or(Refused::NotReady("it has no key yet"))?;
        if now >= signs.not_after {
            return Err(Refused::NotReady("its own certificate has ended"));
        }
        let signer = self.signer_of(signs).await?;
        let signer = signer.ok_or(Refused::NotReady("its key is not there"))?;
        self.has_room(&identity)?;
        let proven = self
            .prove(&request.proof, &identity, csr, told, (now, address))
            .await?;

        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Refused::NotReady("the system has no random numbers"))?;
        let number = serial(random);
        let lifetime = self.settings.certificate_lifetime.as_secs().max(1);
        let not_after = now.saturating_add(lifetime).min(signs.not_after);
        // A share of short lives only: who renews at a part of a life would find that it is over already.
        let early = EARLY.min(lifetime / 10);
        let not_before = now.saturating_sub(early);
        let certificate = signer
            .sign(&csr.key, &identity, &number, (not_before, not_after))
            .map_err(|_| Refused::NotReady("its key does not sign"))?;
        let number = hex(&number);
        let issued = Issued {
            identity: identity.clone(),
            proof: proven.proof.clone(),
            address: address.to_owned(),
            issued: millis(),
            not_after,
            authority: signs.number,
        };
        let text = serde_json::to_string(&issued).unwrap_or_default();
        let mut transaction = Transaction {
            when: proven.when,
            then: proven.then,
        };
        transaction.when.extend([
            Compare::At(record::AUTHORITIES.into(), told.revision),
            Compare::Absent(barred.into()),
        ]);
        transaction
            .then
            .push(put(format!("{CERTIFICATES}{number}"), text.into()));
        if !self.store.commit(transaction).await?.written {
            return Ok(None);
        }
        *self.out().entry(identity.clone()).or_default() += 1;
        Ok(Some(Given {
            answer: CertificateAnswer {
                identity,
                certificate: certificate + &signs.chain,
                not_before,
                not_after,
                trust: told.trust.clone(),
            },
            serial: number,
            proof: proven.proof,
        }))
    }

    fn has_room(&self, identity: &SpiffeId) -> Result<(), Refused> {
        let out = self.out();
        if out.values().sum::<usize>() >= MOST {
            return Err(Refused::Full("200,000 certificates are out"));
        }
        match out.get(identity).is_some_and(|one| *one >= MOST_OF_ONE) {
            true => Err(Refused::Full("20,000 certificates of this service are out")),
            false => Ok(()),
        }
    }

    async fn prove(
        &self,
        proof: &Proof,
        identity: &SpiffeId,
        csr: &Csr,
        told: &Told,
        (now, address): (u64, &str),
    ) -> Result<Proven, Refused> {
        match proof {
            Proof::JoinToken(token) => self.join(token, identity, csr, (now, address)).await,
            Proof::Kubernetes(token) => self.pod(token, identity, now),
            Proof::Renewal {
                certificate,
                signature,
            } => {
                let renewal = (certificate.as_str(), signature.as_str());
                self.renew(renewal, identity, csr, told, now).await
            }
        }
    }

    async fn join(
        &self,
        text: &str,
        identity: &SpiffeId,
        csr: &Csr,
        (now, address): (u64, &str),
    ) -> Result<Proven, Refused> {
        let not = |why: &str| Err(Refused::NotProven(format!("the join token {why}")));
        let key = token_key(text);
        let Some(kept) = self.store.one(&key).await? else {
            return not("is not known here: mistyped, of another mesh, or over for long");
        };
        let Some(mut token) = parsed::<Token>(&kept) else {
            return not("was made by another version");
        };
        if token.identity != *identity {
            return not("is for another service");
        }
        let hash = csr.key.hash();
        // That it was used is told first: a stolen token is worth more attention than an old one.
        let proof = match &token.used {
            Some(used) if used.key != hash => {
                log::warn(
                    "a join token was used twice, with different keys: one of both has stolen it",
                    &[
                        ("identity", identity),
                        ("address", &address),
                        ("first_time", &moment(used.time.saturating_mul(1000))),
                        ("first_address", &used.address),
                    ],
                );
                return Err(Refused::TokenUsed {
                    time: used.time,
                    address: used.address.clone(),
                });
            }
            _ if now >= token.until => return not("has expired"),
            // The answer was lost; whoever holds the key is who asked before.
            Some(_) => format!("{}, once more with the same key", PROOFS[0]),
            None => PROOFS[0].to_owned(),
        };
        let mut then = Vec::new();
        if token.used.is_none() {
            token.used = Some(Used {
                time: now,
                address: address.to_owned(),
                key: hash,
            });
            let text = serde_json::to_string(&token).unwrap_or_default();
            then.push(put(key.as_str(), text.into()));
        }
        Ok(Proven {
            proof,
            when: vec![Compare::At(key.into(), kept.revision)],
            then,
        })
    }

    fn pod(&self, token: &str, identity: &SpiffeId, now: u64) -> Result<Proven, Refused> {
        let not = |why: &str| {
            Err(Refused::NotProven(format!(
                "the service-account token {why}"
            )))
        };
        let Some(settings) = &self.settings.kubernetes else {
            return not("is no proof here: the control plane has no `[identity.kubernetes]`");
        };
        let keys = self.cluster_keys();
        let Ok(keys) = &*keys else {
            return Err(Refused::NotReady("the keys of the cluster cannot be read"));
        };
        match kubernetes::verify(token, keys, settings, now) {
            Ok((namespace, service))
                if (namespace.as_str(), service.as_str())
                    == (identity.namespace(), identity.service()) =>
            {
                Ok(Proven {
                    proof: PROOFS[1].to_owned(),
                    when: Vec::new(),
                    then: Vec::new(),
                })
            }
            Ok((namespace, service)) => not(&format!("is that of `{namespace}/{service}`")),
            Err(why) => not(why),
        }
    }

    async fn renew(
        &self,
        (certificate, signature): (&str, &str),
        identity: &SpiffeId,
        csr: &Csr,
        told: &Told,
        now: u64,
    ) -> Result<Proven, Refused> {
        let not = |why: &str| {
            let words = format!("the certificate that is to be renewed {why}");
            Err(Refused::NotProven(words))
        };
        let authorities = { told.authorities.known.iter() }.map(|one| one.certificate.as_str());
        let shown = match Shown::read(certificate, authorities) {
            Ok(shown) => shown,
            Err(why) => return not(why),
        };
        if shown.identity != *identity {
            return not("is that of another service");
        }
        let revoked = format!("{REVOKED}{}", shown.serial);
        if self.store.one(&revoked).await?.is_some() {
            return not("was revoked");
        }
        let until = shown.not_after;
        if now > until.saturating_add(self.settings.grace.as_secs()) {
            let ended = moment(until.saturating_mul(1000));
            return not(&format!(
                "has expired at {ended}: join again, with a new token"
            ));
        }
        if now.saturating_add(SKEW) < shown.not_before {
            return not("is not valid yet: compare the clocks");
        }
        let signature = read(signature, Alphabet::Standard);
        if !signature.is_some_and(|signature| shown.vouches_for(csr, &signature)) {
            return not("has another key than the one that signed the request");
        }
        Ok(Proven {
            proof: PROOFS[2].to_owned(),
            when: vec![Compare::Absent(revoked.into())],
            then: Vec::new(),
        })
    }

    /// Whether it is a certificate that we wrote down, or a token that nobody used: who guesses behind the same address
    /// does not keep its owner out.
    async fn is_known(&self, proof: &Proof) -> Result<bool, Refused> {
        match proof {
            Proof::JoinToken(token) => {
                let kept = self.store.one(&token_key(token)).await?;
                let token = kept.as_ref().and_then(parsed::<Token>);
                Ok(token.is_some_and(|token| token.used.is_none()))
            }
            Proof::Kubernetes(_) => Ok(false),
            Proof::Renewal { certificate, .. } => {
                let Some(serial) = Shown::serial_of(certificate) else {
                    return Ok(false);
                };
                let kept = self.store.one(&format!("{CERTIFICATES}{serial}")).await?;
                Ok(kept.is_some())
            }
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, crate::access::failures::Failures> {
        let failures = self.failures.lock();
        failures.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Tells proofs apart, in this process and for a while.
fn mark_of(proof: &Proof) -> u64 {
    static SEED: std::sync::LazyLock<std::hash::RandomState> =
        std::sync::LazyLock::new(std::hash::RandomState::new);
    match proof {
        Proof::JoinToken(text) | Proof::Kubernetes(text) => SEED.hash_one(text),
        Proof::Renewal { certificate, .. } => SEED.hash_one(certificate),
    }
}
