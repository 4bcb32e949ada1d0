//! A mesh for tests: an authority that lives in memory, members whose certificates it signed, and such as no honest
//! authority would sign. For whole data planes (`folder_for`) and for clients and servers of a test's own (`client`,
//! `server`), which look at nothing that the other side shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tollgate_config::identity::{CertificateAnswer, SpiffeId, Trust};

use super::certificates::Pair;
use super::gateway::Folder;

/// The trust domain of `Members::new`.
pub const DOMAIN: &str = "mesh.test";

const HOUR: Duration = Duration::from_secs(3600);

/// Members of one mesh, and who signs them.
pub struct Members {
    issuer: Issuer<'static, KeyPair>,
    authority_pem: String,
    domain: String,
    folder: Folder,
    numbers: AtomicU64,
}

/// Where a member's files are, as `[identity]` names them.
#[derive(Debug, Clone)]
pub struct MemberFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

/// What stands in a certificate. The default is what an honest authority would sign.
#[derive(Clone)]
pub struct Wish {
    /// URI names.
    pub uris: Vec<String>,
    pub from: SystemTime,
    pub until: SystemTime,
    pub is_authority: bool,
    pub for_servers: bool,
    pub for_clients: bool,
    /// `None`: one that nobody else has.
    pub serial: Option<u64>,
}

impl Default for Members {
    fn default() -> Self {
        Members::new()
    }
}

impl Members {
    pub fn new() -> Members {
        Members::of(DOMAIN)
    }

    /// Of another trust domain; or, of the same one, members of a stranger who calls himself like that.
    pub fn of(domain: &str) -> Members {
        let key = KeyPair::generate().expect("a P-256 key needs nothing but randomness");
        let mut parameters =
            CertificateParams::new(Vec::new()).expect("no name, so no name can be wrong");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = format!("authority of {domain}");
        { &mut parameters.distinguished_name }.push(DnType::CommonName, name);
        let now = SystemTime::now();
        parameters.not_before = (now - HOUR).into();
        parameters.not_after = (now + 1000 * HOUR).into();
        let certificate = parameters
            .self_signed(&key)
            .expect("the key is the one made above");
        Members {
            authority_pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
            domain: domain.to_owned(),
            folder: Folder::new(),
            numbers: AtomicU64::new(1),
        }
    }

    /// The identity of a service in the namespace `default`.
    pub fn id(&self, service: &str) -> SpiffeId {
        SpiffeId::new(&self.domain, "default", service).expect("tests use names that are names")
    }

    /// What an honest authority would sign.
    pub fn wish(&self, service: &str) -> Wish {
        let now = SystemTime::now();
        Wish {
            uris: vec![self.id(service).to_string()],
            from: now - HOUR,
            until: now + 24 * HOUR,
            is_authority: false,
            for_servers: true,
            for_clients: true,
            serial: None,
        }
    }

    /// A member's certificate and key.
    pub fn issue(&self, service: &str) -> Pair {
        self.sign(&self.wish(service))
    }

    /// Whatever is wished.
    pub fn sign(&self, wish: &Wish) -> Pair {
        let key = KeyPair::generate().expect("a P-256 key needs nothing but randomness");
        let certificate = self
            .parameters(wish)
            .signed_by(&key, &self.issuer)
            .expect("the issuer has its key");
        Pair {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// One that is its own authority.
    pub fn self_made(&self, service: &str) -> Pair {
        let key = KeyPair::generate().expect("a P-256 key needs nothing but randomness");
        let certificate = { self.parameters(&self.wish(service)).self_signed(&key) }
            .expect("the key is the one made above");
        Pair {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Expired an hour ago.
    pub fn expired(&self, service: &str) -> Pair {
        let wish = self.wish(service);
        self.sign(&Wish {
            from: wish.from - 48 * HOUR,
            until: wish.from,
            ..wish
        })
    }

    /// Valid from tomorrow on.
    pub fn not_yet_valid(&self, service: &str) -> Pair {
        let wish = self.wish(service);
        self.sign(&Wish {
            from: wish.until,
            until: wish.until + 24 * HOUR,
            ..wish
        })
    }

    /// What the authority of a control plane answers to this request (PEM), for so long a time from now on.
    pub fn answer(&self, csr: &str, service: &str, lifetime: Duration) -> CertificateAnswer {
        let wish = Wish {
            until: SystemTime::now() + lifetime,
            ..self.wish(service)
        };
        self.answer_wish(csr, service, &wish)
    }

    /// The same with whatever is wished.
    pub fn answer_wish(&self, csr: &str, service: &str, wish: &Wish) -> CertificateAnswer {
        let request =
            CertificateSigningRequestParams::from_pem(csr).expect("a data plane's own request");
        let signed = CertificateSigningRequestParams {
            params: self.parameters(wish),
            public_key: request.public_key,
        };
        let certificate = signed.signed_by(&self.issuer);
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.expect("tests live after 1970").as_secs()
        };
        CertificateAnswer {
            identity: self.id(service),
            certificate: certificate.expect("the issuer has its key").pem(),
            not_before: seconds(wish.from),
            not_after: seconds(wish.until),
            trust: self.trust(1, &[]),
        }
    }

    /// Whom members trust.
    pub fn trust(&self, version: u64, revoked: &[&str]) -> Trust {
        Trust {
            trust_domain: self.domain.clone(),
            version,
            authorities: vec![self.authority_pem.clone()],
            revoked: revoked.iter().map(|serial| (*serial).to_owned()).collect(),
        }
    }

    /// The authority's certificate, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority_pem
    }

    /// A member's files, valid for a day.
    pub fn folder_for(&self, service: &str) -> MemberFiles {
        self.write(service, &self.issue(service))
    }

    /// Puts this in the place of a member's files, each by one rename.
    pub fn write(&self, service: &str, pair: &Pair) -> MemberFiles {
        let folder = self.folder.path().join(service);
        std::fs::create_dir_all(&folder).expect("the test's own folder can be written");
        let put = |name: &str, text: &str| {
            let (draft, file) = (folder.join(format!("{name}.draft")), folder.join(name));
            std::fs::write(&draft, text).expect("the test's own folder can be written");
            std::fs::rename(&draft, &file).expect("a rename within one folder");
            file
        };
        MemberFiles {
            cert: put("cert.pem", &pair.cert_pem),
            key: put("key.pem", &pair.key_pem),
            ca: put("ca.pem", &self.authority_pem),
        }
    }

    fn parameters(&self, wish: &Wish) -> CertificateParams {
        let mut parameters =
            CertificateParams::new(Vec::new()).expect("no name, so no name can be wrong");
        let uri =
            |uri: &String| SanType::URI(uri.as_str().try_into().expect("tests use names in ASCII"));
        parameters.subject_alt_names = wish.uris.iter().map(uri).collect();
        parameters.not_before = wish.from.into();
        parameters.not_after = wish.until.into();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        parameters.serial_number = Some(SerialNumber::from(wish.serial.unwrap_or(number << 8 | 1)));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if wish.is_authority {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        if wish.for_servers {
            { &mut parameters.extended_key_usages }.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if wish.for_clients {
            { &mut parameters.extended_key_usages }.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        parameters
    }
}

impl MemberFiles {
    /// `[identity]` for a document.
    pub fn section(&self, service: &str) -> String {
        format!(
            "[identity]\nservice = \"{service}\"\ncert = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n\n",
            self.cert.display(),
            self.key.display(),
            self.ca.display()
        )
    }
}

/// A client that shows this, or nothing, and takes whatever it is shown.
pub fn client(
    pair: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match pair {
        Some(pair) => {
            let (chain, key) = parts(pair);
            builder
                .with_client_auth_cert(chain, key)
                .expect("a pair matches")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// A server that shows this, asks for a certificate and takes whatever it is shown.
pub fn server(
    pair: &Pair,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (chain, key) = parts(pair);
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("the provider has suites for both versions")
        .with_client_cert_verifier(Arc::new(Anybody(provider)))
        .with_single_cert(chain, key)
        .expect("a pair matches");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

fn parts(pair: &Pair) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("a pair is PEM");
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("a pair is PEM");
    (chain, key)
}

/// Takes every certificate, and nothing but the signature by its key counts.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
