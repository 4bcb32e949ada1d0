//! What is sent to the authority, and whether its answer is believed. Every asking has a key of its own, which is made
//! here: an old key is never given a new certificate.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tollgate_config::identity::{CertificateAnswer, CertificateRequest, Proof};
use tollgate_config::{Identity as Section, IdentitySource};

use super::disk::Kept;
use super::names;
use crate::exchange::base64;

/// Bytes of a service-account token's file.
const MOST_TOKEN: u64 = 64 << 10;

/// A new key (PEM) and the request to sign it: proven by the current certificate, or by a token.
pub(super) fn request(
    section: &Section,
    current: Option<&Kept>,
) -> Result<(String, CertificateRequest), String> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| format!("no key can be made: {error}"))?;
    let csr = CertificateParams::new(Vec::new())
        .and_then(|parameters| parameters.serialize_request(&key))
        .map_err(|error| format!("no request can be made: {error}"))?;
    let proof = match current {
        Some(current) => renewal(current, csr.der())?,
        None => token(section)?,
    };
    let csr = { csr.pem() }.map_err(|error| format!("no request can be made: {error}"))?;
    let request = CertificateRequest {
        csr,
        service: section.service.clone(),
        namespace: section.namespace.clone(),
        proof,
    };
    Ok((key.serialize_pem(), request))
}

/// The key of the certificate that we have signs the request for the next one.
fn renewal(current: &Kept, csr: &[u8]) -> Result<Proof, String> {
    let unusable = |_| "the key of the current certificate cannot sign".to_owned();
    let key = KeyPair::from_pem(&current.key)
        .map_err(|error| format!("the key of the current certificate cannot be read: {error}"))?;
    let key = key.serialize_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key)
        .map_err(|_| unusable(()))?;
    let signature = { key.sign(&SystemRandom::new(), csr) }.map_err(|_| unusable(()))?;
    Ok(Proof::Renewal {
        certificate: current.chain.to_string(),
        signature: base64::padded(signature.as_ref()),
    })
}

fn token(section: &Section) -> Result<Proof, String> {
    match &section.source {
        IdentitySource::Authority {
            kubernetes_token: Some(file),
            ..
        } => Ok(Proof::Kubernetes(platform_token(file)?)),
        IdentitySource::Authority {
            token: Some(token), ..
        } => Ok(Proof::JoinToken(token.0.clone())),
        _ => Err("there is nothing that proves who this data plane is".to_owned()),
    }
}

/// Read at each asking: the platform replaces it.
fn platform_token(file: &Path) -> Result<String, String> {
    let unreadable = |why: String| {
        format!(
            "`identity.kubernetes_token` {} cannot be read: {why}",
            file.display()
        )
    };
    let about = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?;
    if !about.is_file() || about.len() > MOST_TOKEN {
        return Err(unreadable("it is no file of a token".to_owned()));
    }
    let token = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(unreadable("it is empty".to_owned()));
    }
    Ok(token.to_owned())
}

/// What an answer makes us, if it can be: who asked, for the key that was sent, signed by whom it says to trust.
pub(super) fn believe(
    section: &Section,
    key: &str,
    answer: CertificateAnswer,
) -> Result<Kept, String> {
    let kept = Kept::new(&answer.certificate, key, answer.trust)
        .map_err(|why| format!("its answer cannot be used: {why}"))?;
    let facts = &kept.own.facts;
    if !names(facts, section) || facts.identity != answer.identity {
        return Err(format!(
            "its answer names {}, and {}/{} was asked for",
            facts.identity, section.namespace, section.service
        ));
    }
    if facts.identity.trust_domain() != kept.trust.trust_domain {
        return Err("its answer is of another trust domain than the one to trust".to_owned());
    }
    if !kept.trusted.has_signed(&kept.own) {
        return Err(
            "its certificate was not signed by an authority that it says to trust".to_owned(),
        );
    }
    Ok(kept)
}
