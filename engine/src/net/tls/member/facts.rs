//! What stands in a certificate: who it names, its serial number, its times. A member's names exactly one service, is no
//! authority and is good for both sides of a connection; everything else is refused in words. Reads bytes of strangers:
//! nothing here may panic.

use rustls_pki_types::CertificateDer;
use tollgate_config::identity::SpiffeId;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::AuthorityFacts;
use super::refusal::{Reason, Refusal};

/// Of a member's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub identity: SpiffeId,
    /// Lower-case hex without leading zeros.
    pub serial: Box<str>,
    /// Seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
}

impl Facts {
    /// Whether this is a member's certificate, and whose. Says nothing about who signed it.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Facts, Refusal> {
        let parsed = parse(certificate).map_err(unfit)?;
        let twice = |_| unfit("its certificate holds an extension twice".to_owned());
        if let Some(constraints) = parsed.basic_constraints().map_err(twice)?
            && constraints.value.ca
        {
            return Err(unfit(
                "its certificate is an authority's; no service may show one".to_owned(),
            ));
        }
        if let Some(usage) = parsed.key_usage().map_err(twice)? {
            if usage.value.key_cert_sign() || usage.value.crl_sign() {
                return Err(unfit(
                    "its certificate may sign others; no service may show such a one".to_owned(),
                ));
            }
            if !usage.value.digital_signature() {
                return Err(unfit("its certificate's key may not sign".to_owned()));
            }
        }
        let purposes = parsed.extended_key_usage().map_err(twice)?;
        if !purposes.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
            return Err(unfit(
                "its certificate is not for both sides of a connection (extended key usage: serverAuth and clientAuth)"
                    .to_owned(),
            ));
        }
        let names = parsed.subject_alternative_name().map_err(twice)?;
        let mut names = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(name) => Some(*name),
                _ => None,
            });
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(unfit(
                "its certificate does not have exactly one URI name".to_owned(),
            ));
        };
        let identity = SpiffeId::parse(name).map_err(|fault| {
            let name: String = name.chars().take(200).collect();
            unfit(format!(
                "its certificate names `{}`: {}",
                name.escape_debug(),
                fault.message
            ))
        })?;
        Ok(Facts {
            identity,
            serial: serial(&parsed),
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
        })
    }
}

/// Of one whom members trust.
pub(super) fn authority(certificate: &CertificateDer<'_>) -> Result<AuthorityFacts, String> {
    let parsed = parse(certificate)?;
    Ok(AuthorityFacts {
        name: parsed.subject().to_string().chars().take(200).collect(),
        serial: serial(&parsed),
        not_after: seconds(parsed.validity().not_after.timestamp()),
    })
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, String> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("bytes follow its certificate".to_owned()),
        Err(error) => Err(format!("its certificate cannot be read: {error}")),
    }
}

fn unfit(words: String) -> Refusal {
    Refusal::new(Reason::Unfit, words)
}

fn serial(parsed: &X509Certificate<'_>) -> Box<str> {
    let hex: String = { parsed.raw_serial().iter() }
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match hex.trim_start_matches('0') {
        "" => "0".into(),
        serial => serial.into(),
    }
}

fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}
