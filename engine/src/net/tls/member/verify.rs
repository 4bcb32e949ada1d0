//! What the TLS library asks in a handshake between members: which certificate we show, and whether the other one's is
//! good. Every question is answered by what `Member` holds at that moment.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::provider;
use super::refusal::{Reason, Refusal};
use super::{Expected, Facts, Member, SKEW, Trusted};

/// Shows our certificate, on both sides.
#[derive(Debug)]
pub(super) struct OwnKey(pub(super) Arc<Member>);

impl OwnKey {
    fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.0.own.load().as_ref().map(|own| own.key.clone())
    }
}

impl ResolvesServerCert for OwnKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
}

impl ResolvesClientCert for OwnKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key()
    }

    fn has_certs(&self) -> bool {
        self.0.own.load().is_some()
    }
}

/// Who may call: any member.
pub(super) struct Callers {
    member: Arc<Member>,
    provider: Arc<CryptoProvider>,
}

/// Who may be called: the member that is expected.
pub(super) struct Callees {
    member: Arc<Member>,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl Callers {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Callers {
            member,
            provider: provider(),
        }
    }
}

impl Callees {
    pub(super) fn new(member: Arc<Member>, expected: Expected) -> Self {
        Callees {
            member,
            expected,
            provider: provider(),
        }
    }
}

impl Member {
    fn trusts(&self) -> Result<Arc<Trusted>, Error> {
        let missing = || {
            let words = "this data plane does not know yet whom to trust";
            refused(Refusal::new(Reason::NotReady, words))
        };
        self.trusted().ok_or_else(missing)
    }
}

impl Trusted {
    /// What a member that trusts these says of a chain that somebody shows at this time: whom it names, or why it is refused.
    pub fn judges(
        &self,
        chain: &[CertificateDer<'_>],
        at_time: UnixTime,
    ) -> Result<Facts, Refusal> {
        let missing = || Refusal::new(Reason::NoCertificate, "it showed no certificate");
        let (first, issuers) = chain.split_first().ok_or_else(missing)?;
        let verified = at(at_time, |now| {
            self.callers.verify_client_cert(first, issuers, now)
        });
        verified
            .and_then(|_| self.judge(first))
            .map_err(|error| Refusal::of_tls(&error))
    }

    /// Whom a certificate names whose chain was found good.
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<Facts, Error> {
        let facts = Facts::of(certificate).map_err(refused)?;
        if facts.identity.trust_domain() != self.trust_domain {
            let words = format!(
                "it is {}, of another trust domain than `{}`",
                facts.identity, self.trust_domain
            );
            return Err(refused(Refusal::new(Reason::WrongDomain, words)));
        }
        if self.is_revoked(&facts.serial) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(facts)
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A member has one certificate, and needs no hint which to show.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trusted = self.member.trusts()?;
        let verified = at(now, |now| {
            let callers = &trusted.callers;
            callers.verify_client_cert(end_entity, intermediates, now)
        })?;
        trusted.judge(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        { self.provider.signature_verification_algorithms }.supported_schemes()
    }
}

impl ServerCertVerifier for Callees {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trusted = self.member.trusts()?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        at(now, |now| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trusted.roots,
                intermediates,
                now,
                algorithms,
            )
        })?;
        let facts = trusted.judge(end_entity)?;
        if !self.expected.fits(&facts.identity) {
            let words = format!("expected {}, met {}", self.expected, facts.identity);
            return Err(refused(Refusal::new(Reason::WrongName, words)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        { self.provider.signature_verification_algorithms }.supported_schemes()
    }
}

/// Asks at `now`, and once more for a certificate that begins a little later than that.
fn at<T>(now: UnixTime, verify: impl Fn(UnixTime) -> Result<T, Error>) -> Result<T, Error> {
    match verify(now) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) if not_before.as_secs() <= now.as_secs().saturating_add(SKEW.as_secs()) => {
            verify(not_before)
        }
        verdict => verdict,
    }
}

fn refused(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

impl fmt::Debug for Callees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Callees({})", self.expected)
    }
}
