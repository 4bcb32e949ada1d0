//! Certificates: what is read out of a request and of a member's certificate, and what is written into one that we sign.
//! The one room that knows their form. Of a request nothing is taken over but its key; who somebody is, the caller says.
//! No clock, no store; bytes from outside are refused with words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use tollgate_config::identity::{MOST_PEM, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// An uncompressed point of P-256.
const POINT: usize = 65;
/// Characters of a common name (RFC 5280, appendix A.1).
const COMMON_NAME: usize = 64;
/// Certificates of one PEM text.
const MOST_CHAIN: usize = 16;

/// The one kind of key that members have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey(Vec<u8>);

impl PublicKey {
    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<PublicKey> {
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let point = &info.subject_public_key.data;
        let fits = info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && curve == OID_EC_P256
            && point.len() == POINT
            && point.first() == Some(&4);
        fits.then(|| PublicKey(point.to_vec()))
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0);
        key.verify(signed, signature).is_ok()
    }

    /// Names the key.
    pub(super) fn hash(&self) -> String {
        hex(digest(&SHA256, &self.0).as_ref())
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A request whose sender holds its key.
#[derive(Debug, Clone)]
pub(super) struct Csr {
    pub(super) key: PublicKey,
    der: Vec<u8>,
}

impl Csr {
    pub(super) fn read(pem: &str) -> Result<Csr, &'static str> {
        if pem.len() > MOST_PEM {
            return Err("is larger than 64 KiB");
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| "holds no `BEGIN CERTIFICATE REQUEST`")?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|_| "is no certificate request (PKCS #10)")?;
        if !rest.is_empty() {
            return Err("has something behind its end");
        }
        let info = &request.certification_request_info;
        let key =
            PublicKey::of(&info.subject_pki).ok_or("is about a key that is not ECDSA P-256")?;
        let signed = request.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
            && request.signature_algorithm.parameters.is_none()
            && request.signature_value.unused_bits == 0
            && key.verifies(info.raw, &request.signature_value.data);
        if !signed {
            return Err("is not signed with its own key, by ECDSA with SHA-256");
        }
        Ok(Csr {
            key,
            der: der.to_vec(),
        })
    }
}

/// A certificate that somebody shows, read and believed: one of the authorities signed it.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) identity: SpiffeId,
    pub(super) serial: String,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    key: PublicKey,
}

impl Shown {
    /// The serial number that the first certificate claims to have.
    pub(super) fn serial_of(pem: &str) -> Option<String> {
        let der = one(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some(serial_of(&certificate))
    }

    /// Reads the first certificate of a chain. `authorities`: certificates that sign those of members, as PEM.
    pub(super) fn read<'a>(
        pem: &str,
        authorities: impl IntoIterator<Item = &'a str>,
    ) -> Result<Shown, &'static str> {
        let der = one(pem)?;
        let (rest, certificate) =
            X509Certificate::from_der(&der).map_err(|_| "is no certificate")?;
        if !rest.is_empty() {
            return Err("has something behind its end");
        }
        let issued = authorities.into_iter().any(|authority| {
            let Ok(der) = one(authority) else {
                return false;
            };
            let Ok((_, authority)) = X509Certificate::from_der(&der) else {
                return false;
            };
            let issuer = authority.public_key();
            authority.subject().as_raw() == certificate.issuer().as_raw()
                && certificate.verify_signature(Some(issuer)).is_ok()
        });
        if !issued {
            return Err("was not signed by an authority of this mesh");
        }
        if certificate.is_ca() {
            return Err("is an authority's");
        }
        let names = certificate.subject_alternative_name();
        let names = names.ok().flatten().ok_or("has no name")?;
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
            return Err("has not exactly one URI as its name");
        };
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let validity = certificate.validity();
        Ok(Shown {
            identity: SpiffeId::parse(uri).map_err(|_| "has a name that is no service's")?,
            serial: serial_of(&certificate),
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
            key: PublicKey::of(certificate.public_key()).ok_or("has a key that is not P-256")?,
        })
    }

    /// Whether its key signed a request.
    pub(super) fn vouches_for(&self, csr: &Csr, signature: &[u8]) -> bool {
        self.key.verifies(&csr.der, signature)
    }
}

fn one(pem: &str) -> Result<CertificateDer<'static>, &'static str> {
    if pem.len() > MOST_PEM {
        return Err("is larger than 64 KiB");
    }
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| "holds no `BEGIN CERTIFICATE`")
}

fn serial_of(certificate: &X509Certificate<'_>) -> String {
    let serial = hex(certificate.raw_serial());
    serial.trim_start_matches('0').to_owned()
}

/// A new key and its certificate.
pub(super) struct Made {
    /// As PEM.
    pub(super) certificate: String,
    /// As PEM (PKCS #8). Belongs into the store and nowhere else.
    pub(super) key: String,
}

/// Makes an authority that signs certificates of members and of nobody else.
pub(super) fn make(
    trust_domain: &str,
    number: u64,
    not_before: u64,
    not_after: u64,
) -> Result<Made, String> {
    let said = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(said)?;
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Tollgate");
    // Each has a name of its own, so that none is taken for another.
    let mark: String = hex(digest(&SHA256, key.public_key_raw()).as_ref());
    let mark: String = mark.chars().take(8).collect();
    let common = format!("authority {number} {mark}");
    name.push(DnType::CommonName, common);
    parameters.distinguished_name = name;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let uri = format!("spiffe://{trust_domain}");
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(said)?)];
    parameters.not_before = moment(not_before).into();
    parameters.not_after = moment(not_after).into();
    let certificate = parameters.self_signed(&key).map_err(said)?;
    Ok(Made {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// An authority's key, ready to sign.
pub(super) struct Signer(Issuer<'static, KeyPair>);

impl Signer {
    /// Of a certificate and its key, as PEM.
    pub(super) fn new(certificate: &str, key: &str) -> Result<Signer, String> {
        let key = KeyPair::from_pem(key).map_err(|_| "the key cannot be read".to_owned())?;
        let der = one(certificate).map_err(|why| format!("the certificate {why}"))?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|_| "the certificate cannot be read".to_owned())?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err("the key is not the certificate's".to_owned());
        }
        let signs = parsed.key_usage().ok().flatten();
        if !parsed.is_ca() || signs.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err("the certificate is not an authority's: it may not sign others".to_owned());
        }
        let issuer = Issuer::from_ca_cert_der(&der, key);
        issuer.map(Signer).map_err(|error| error.to_string())
    }

    /// The certificate of a member, as PEM.
    pub(super) fn sign(
        &self,
        key: &PublicKey,
        identity: &SpiffeId,
        serial: &[u8; 16],
        (not_before, not_after): (u64, u64),
    ) -> Result<String, String> {
        let said = |error: rcgen::Error| error.to_string();
        let mut parameters = CertificateParams::default();
        let mut name = DistinguishedName::new();
        let common: String = identity.service().chars().take(COMMON_NAME).collect();
        name.push(DnType::CommonName, common);
        parameters.distinguished_name = name;
        let uri = identity.as_str().to_owned();
        parameters.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(said)?)];
        parameters.serial_number = Some(SerialNumber::from_slice(serial));
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        parameters.not_before = moment(not_before).into();
        parameters.not_after = moment(not_after).into();
        let certificate = parameters.signed_by(key, &self.0).map_err(said)?;
        Ok(certificate.pem())
    }
}

/// A serial number as we write it: never negative, and without leading zeros.
pub(super) fn serial(mut random: [u8; 16]) -> [u8; 16] {
    random[0] = (random[0] & 0x3f) | 0x40;
    random
}

/// The certificates of a file, each as PEM of its own, and when the first of them ends.
pub(super) fn chain(text: &str) -> Result<(Vec<String>, u64), String> {
    if text.len() > MOST_PEM {
        return Err("it is larger than 64 KiB".to_owned());
    }
    let mut all = Vec::new();
    let mut end = None;
    for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|_| "it is no PEM".to_owned())?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|_| "it holds something that is no certificate".to_owned())?;
        let ends = parsed.validity().not_after.timestamp();
        end = end.or(u64::try_from(ends).ok());
        all.push(pem(&der));
    }
    match end {
        Some(end) if all.len() <= MOST_CHAIN => Ok((all, end)),
        Some(_) => Err(format!("it holds more than {MOST_CHAIN} certificates")),
        None => Err("it holds no certificate".to_owned()),
    }
}

fn pem(der: &[u8]) -> String {
    let letters = super::base64::write(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in letters.as_bytes().chunks(64) {
        text.extend(line.iter().map(|letter| char::from(*letter)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// The name of a certificate: SHA-256 of its DER, in hex.
pub(super) fn fingerprint(pem: &str) -> String {
    one(pem).map_or_else(|_| String::new(), |der| hex(digest(&SHA256, &der).as_ref()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn moment(seconds: u64) -> SystemTime {
    // Years that no certificate can hold are not reached: settings are bounded, and so is a file's certificate.
    let most = Duration::from_secs(seconds.min(253_402_300_799));
    UNIX_EPOCH.checked_add(most).unwrap_or(UNIX_EPOCH)
}
