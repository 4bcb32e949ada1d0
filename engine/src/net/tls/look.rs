//! Looks at certificates and believes none of them: what stands in one, and what somebody shows in a handshake. For
//! diagnosis alone, so that what has expired can be told from what was forged, when nothing can be verified any more.
//!
//! The one place outside of tests where a handshake succeeds with anybody. Whoever uses it sends nothing over such a
//! connection that not everybody may know; no data plane and no control plane ever does.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::client::server_name;
use super::provider;

/// Characters of a name that are told.
const LONGEST: usize = 200;
/// Names of one certificate that are told.
const MOST_NAMES: usize = 20;

/// What stands in a certificate, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    pub subject: String,
    pub issuer: String,
    /// DNS names, addresses and URIs that it is for.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
}

impl Looked {
    pub fn at(certificate: &CertificateDer<'_>) -> Result<Looked, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("it is no certificate: {error}"))?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = { names.iter() }.flat_map(|names| &names.value.general_names);
        let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
        Ok(Looked {
            subject: short(&parsed.subject().to_string()),
            issuer: short(&parsed.issuer().to_string()),
            names: names.filter_map(name).take(MOST_NAMES).collect(),
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some(short(name)),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => {
                let bytes: [u8; 16] = (*bytes).try_into().ok()?;
                Some(std::net::Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}

/// What a stranger wrote, fit for a line of text.
fn short(text: &str) -> String {
    text.escape_debug().take(LONGEST).collect()
}

/// The certificates of a PEM text.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("it is no PEM: {error}"))?;
    match chain.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(chain),
    }
}

/// A connection to whoever answered. It is encrypted, and nobody knows for whom.
#[derive(Debug)]
pub struct Unverified<S: Read + Write> {
    /// What was shown, the server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    stream: StreamOwned<ClientConnection, S>,
}

impl<S: Read + Write> Unverified<S> {
    /// Shakes hands as a client that shows nothing, and takes whatever it is shown. Blocks.
    pub fn connect(socket: S, host: &str, protocols: &[&[u8]]) -> io::Result<Unverified<S>> {
        let witness = Arc::new(Witness {
            shown: Mutex::default(),
            provider: provider(),
        });
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(witness.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = server_name(host).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let mut shown = witness.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = std::mem::take(&mut *shown);
        Ok(Unverified { chain, stream })
    }
}

impl<S: Read + Write> Read for Unverified<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<S: Read + Write> Write for Unverified<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Takes every chain, and remembers it. That the other side has the key is looked at all the same: a chain that somebody copied is
/// no news of who is there.
#[derive(Debug)]
struct Witness {
    shown: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = chain.map(|one| one.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::testing::members::{Members, server};

    #[test]
    fn what_is_shown_is_told_though_it_expired_and_nobody_knows_who_signed_it() {
        let members = Members::new();
        let pair = members.expired("orders");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let config = Arc::new(server(&pair, &[&rustls::version::TLS13], &[b"h2"]));
        let serves = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut connection = rustls::ServerConnection::new(config).expect("a config");
            // The client leaves once it has seen enough.
            while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
        });
        let socket = TcpStream::connect(address).expect("it listens");
        let met = Unverified::connect(socket, "127.0.0.1", &[b"h2"]).expect("a handshake");
        let looked = Looked::at(&met.chain[0]).expect("a certificate");
        assert_eq!(looked.names, ["spiffe://mesh.test/ns/default/svc/orders"]);
        assert!(looked.not_after < crate::clock::unix_seconds(std::time::SystemTime::now()));
        drop(met);
        serves.join().expect("it ended");
    }

    #[test]
    fn nothing_that_is_no_certificate_makes_it_fall() {
        assert!(chain(b"").is_err() && chain(b"-----BEGIN CERTIFICATE-----\n").is_err());
        assert!(Looked::at(&CertificateDer::from(vec![0x30, 0x82, 0xff])).is_err());
    }
}
