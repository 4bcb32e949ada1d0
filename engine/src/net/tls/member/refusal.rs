//! Why a handshake between members came to nothing: a reason that is counted, and words for whoever reads the log.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use rustls_pki_types::UnixTime;

use crate::clock::http_date;

/// At which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Somebody connected to a listener.
    Server,
    /// We connected to an endpoint.
    Client,
}

impl Side {
    pub const ALL: [Side; 2] = [Side::Server, Side::Client];

    pub fn word(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Client => "client",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident $word:literal,)*) => {
        /// The kinds of failure, for counting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($variant,)*
        }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];
            pub const COUNT: usize = Reason::ALL.len();

            pub fn word(self) -> &'static str {
                match self { $(Reason::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    NoCertificate "no_certificate",
    UnknownAuthority "unknown_authority",
    Expired "expired",
    NotYetValid "not_yet_valid",
    Revoked "revoked",
    WrongDomain "wrong_domain",
    WrongName "wrong_name",
    Unfit "unfit",
    NotTls13 "not_tls13",
    ClearText "clear_text",
    NoProtocol "no_protocol",
    RefusedUs "refused_us",
    NotReady "not_ready",
    TimedOut "timed_out",
    Broken "broken",
    Other "other",
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    words: String,
}

impl Refusal {
    pub fn new(reason: Reason, words: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            words: words.into(),
        }
    }

    /// What the TLS library, or the socket under it, says.
    pub fn of(error: &io::Error) -> Refusal {
        let inner = error.get_ref();
        if let Some(refusal) = inner.and_then(|inner| inner.downcast_ref::<Refusal>()) {
            return refusal.clone();
        }
        match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Refusal::of_tls(error),
            None => Refusal::new(Reason::Broken, format!("the connection broke: {error}")),
        }
    }

    pub(super) fn of_tls(error: &Error) -> Refusal {
        match error {
            Error::InvalidCertificate(error) => Refusal::of_certificate(error),
            Error::NoCertificatesPresented => {
                Refusal::new(Reason::NoCertificate, "it showed no certificate")
            }
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )
            | Error::AlertReceived(AlertDescription::ProtocolVersion) => Refusal::new(
                Reason::NotTls13,
                "it does not speak TLS 1.3, which members do",
            ),
            Error::InvalidMessage(_) => Refusal::new(Reason::ClearText, "it does not speak TLS"),
            Error::NoApplicationProtocol
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Refusal::new(
                Reason::NoProtocol,
                "it speaks no protocol that we speak (ALPN)",
            ),
            Error::AlertReceived(alert) => match refusal_of_us(*alert) {
                Some(why) => Refusal::new(
                    Reason::RefusedUs,
                    format!("the other side refused this data plane's certificate: {why}"),
                ),
                None => Refusal::new(Reason::Other, error.to_string()),
            },
            error => Refusal::new(Reason::Other, error.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Refusal {
        match error {
            CertificateError::Other(other) => match other.0.downcast_ref::<Refusal>() {
                Some(refusal) => refusal.clone(),
                None => Refusal::new(
                    Reason::Unfit,
                    format!("its certificate is refused: {other}"),
                ),
            },
            CertificateError::ExpiredContext { not_after, .. } => Refusal::new(
                Reason::Expired,
                format!("its certificate expired on {}", date(*not_after)),
            ),
            CertificateError::Expired => {
                Refusal::new(Reason::Expired, "its certificate has expired")
            }
            CertificateError::NotValidYetContext { not_before, .. } => Refusal::new(
                Reason::NotYetValid,
                format!("its certificate is valid from {} on", date(*not_before)),
            ),
            CertificateError::NotValidYet => {
                Refusal::new(Reason::NotYetValid, "its certificate is not valid yet")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::new(
                Reason::UnknownAuthority,
                "its certificate was signed by no authority of the mesh",
            ),
            CertificateError::Revoked => {
                Refusal::new(Reason::Revoked, "its certificate was revoked")
            }
            error => Refusal::new(
                Reason::Unfit,
                format!("its certificate is refused: {error}"),
            ),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Refusal {}

/// What the other side told about our certificate, if it was about that.
fn refusal_of_us(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet, by its clock",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnknownCA => "no authority that it trusts has signed it",
        AlertDescription::CertificateRequired => "none was shown",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "it is not what a member shows",
        AlertDescription::AccessDenied => "it has none itself yet, or denies access",
        _ => return None,
    })
}

/// An error of a connection whose handshake was complete on our side when the other one refused us: in TLS 1.3 a client
/// learns what became of its certificate with the first bytes that it reads. Such an error has this kind, which no
/// socket has: nothing that was sent was looked at.
pub const REFUSED_US: io::ErrorKind = io::ErrorKind::PermissionDenied;

/// Gives an error of a client's connection its kind.
pub fn of_client(error: io::Error) -> io::Error {
    let inner = error.get_ref();
    let Some(Error::AlertReceived(_)) = inner.and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return error;
    };
    let refusal = Refusal::of(&error);
    match refusal.reason {
        Reason::RefusedUs => io::Error::new(REFUSED_US, refusal),
        _ => error,
    }
}

fn date(time: UnixTime) -> String {
    http_date(time.as_secs())
}
