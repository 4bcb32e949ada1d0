//! The side that endpoints see: whom we trust, what we show, and which protocols we offer. Verification cannot be
//! switched off; an endpoint with a private certificate is trusted by naming its authority.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tollgate_config::document::{UpstreamProtocol, UpstreamTls};

use super::BYTES;
use super::files::{Digest, Files};
use super::member::{self, Expected, Member};
use super::{TlsError, provider};

/// TLS towards one upstream. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// The same, where only HTTP/1 will do.
    http1: Arc<ClientConfig>,
    /// The same, for what is not HTTP.
    bytes: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    /// Endpoints are members of the mesh.
    mesh: Option<(Arc<Member>, Expected)>,
    digest: Digest,
}

impl ClientTls {
    /// Reads all files of an upstream.
    pub fn load(tls: &UpstreamTls, protocol: UpstreamProtocol) -> Result<Self, TlsError> {
        let provider = provider();
        let mut files = Files::new();
        files.note(&[protocol as u8]);
        files.note(tls.name.as_deref().unwrap_or_default().as_bytes());

        let name = tls.name.as_deref().map(server_name).transpose()?;
        let roots = match &tls.ca {
            Some(file) => files.authorities(file)?,
            None => files.system_authorities()?,
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots);
        let config = match (&tls.cert, &tls.key) {
            (Some(certificate), Some(key)) => {
                let pair = files.pair(certificate, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(TlsError::HalfIdentity),
        };
        Ok(ClientTls {
            config: offering(&config, http(protocol)),
            http1: offering(&config, http(UpstreamProtocol::Http1)),
            bytes: offering(&config, Vec::new()),
            name,
            mesh: None,
            digest: files.digest(),
        })
    }

    /// Mutual TLS with a member of the mesh.
    pub fn member(
        member: &Arc<Member>,
        expected: &Expected,
        protocol: UpstreamProtocol,
    ) -> Result<Self, TlsError> {
        let config = member::client(member, expected)?;
        Ok(ClientTls {
            config: offering(&config, http(protocol)),
            http1: offering(&config, http(UpstreamProtocol::Http1)),
            bytes: offering(&config, vec![BYTES.to_vec()]),
            // Neither told nor verified: a member is known by its identity.
            name: Some(server_name("member.invalid")?),
            mesh: Some((member.clone(), expected.clone())),
            digest: [0; _],
        })
    }

    /// Who we are in the mesh, when endpoints are members of it.
    pub fn mesh(&self) -> Option<&Arc<Member>> {
        self.mesh.as_ref().map(|(member, _)| member)
    }

    /// The member that endpoints must be.
    pub fn expected(&self) -> Option<&Expected> {
        self.mesh.as_ref().map(|(_, expected)| expected)
    }

    /// Reads all files again. Returns what was there before when no byte and no setting changed, so that sessions with
    /// endpoints can go on being resumed.
    pub fn reload(
        previous: &ClientTls,
        tls: &UpstreamTls,
        protocol: UpstreamProtocol,
    ) -> Result<Self, TlsError> {
        let fresh = ClientTls::load(tls, protocol)?;
        Ok(if fresh.digest == previous.digest {
            previous.clone()
        } else {
            fresh
        })
    }

    /// What handshakes are made with. The same `Arc` as long as nothing changed.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// What handshakes are made with where only HTTP/1 will do, as for an upgrade that an HTTP/2 endpoint may not take.
    pub fn config_for_http1(&self) -> &Arc<ClientConfig> {
        &self.http1
    }

    /// What handshakes are made with where bytes are relayed: members are told so, others are named no protocol.
    pub fn config_for_bytes(&self) -> &Arc<ClientConfig> {
        &self.bytes
    }

    /// The name to ask for and to verify at an endpoint whose host (no port) is `host`.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => server_name(host),
        }
    }
}

/// What an upstream that speaks HTTP is offered by ALPN.
fn http(protocol: UpstreamProtocol) -> Vec<Vec<u8>> {
    match protocol {
        UpstreamProtocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        UpstreamProtocol::Http1 => vec![b"http/1.1".to_vec()],
        UpstreamProtocol::Http2 => vec![b"h2".to_vec()],
    }
}

/// The same with another offer; whom we trust, what we show and sessions are shared.
fn offering(config: &ClientConfig, protocols: Vec<Vec<u8>>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols;
    Arc::new(config)
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let plain = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    // A trailing dot says "absolute" to the resolver; no certificate bears it.
    let plain = plain.strip_suffix('.').unwrap_or(plain);
    ServerName::try_from(plain.to_owned()).map_err(|_| TlsError::BadName {
        name: host.to_owned(),
    })
}
