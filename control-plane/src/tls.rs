//! TLS of the address: what the document names is read at start, and looked at again every two seconds, so that a renewed
//! certificate is used by the next connection. Files that cannot be used change nothing. What TLS is, the engine knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tollgate_config::control_plane::Tls;
use tollgate_config::{At, Certificate, ClientAuth, ListenerProtocol, ListenerTls};
use tollgate_engine::net::tls::{ServerTls, TlsError};
use tollgate_engine::telemetry::log::{self, Repeated};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Reads the files.
pub(crate) fn load(tls: &Tls) -> Result<ServerTls, TlsError> {
    ServerTls::load(&listener(tls), ListenerProtocol::Auto)
}

fn listener(tls: &Tls) -> ListenerTls {
    ListenerTls {
        certificates: vec![Certificate {
            names: Vec::new(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
        }],
        client_ca: tls.client_ca.clone(),
        client_auth: match tls.client_ca {
            Some(_) => ClientAuth::Required,
            None => ClientAuth::None,
        },
        at: At(None),
    }
}

/// Looks at the files until aborted.
pub(crate) async fn follow(tls: Tls, serves: Arc<watch::Sender<ServerTls>>) {
    static NOT_TAKEN: Repeated = Repeated::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let (named, former) = (tls.clone(), serves.borrow().clone());
        let read = move || ServerTls::reload(&former, &listener(&named), ListenerProtocol::Auto);
        let Ok(read) = tokio::task::spawn_blocking(read).await else {
            continue;
        };
        match read {
            Ok(now) if Arc::ptr_eq(now.config(), serves.borrow().config()) => {}
            Ok(now) => {
                log::info(
                    "a new certificate is used",
                    &[("file", &tls.cert.display())],
                );
                serves.send_replace(now);
            }
            Err(error) => NOT_TAKEN.warn(
                "a new certificate cannot be used; the former one stays",
                &[("reason", &error)],
            ),
        }
    }
}

/// Shakes hands; `None`: it came to nothing, which is the peer's problem.
pub(crate) async fn accept(tls: &ServerTls, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    let shaking = TlsAcceptor::from(tls.config().clone()).accept(socket);
    tokio::time::timeout(HANDSHAKE, shaking).await.ok()?.ok()
}
