//! Asking the control plane's authority for a certificate: one request, on a connection of its own, to each of the control
//! planes in turn until one answers. When to ask, and what is believed of the answer, is not decided here (`identity`).

use std::fmt;
use std::time::Duration;

use http::Method;
use tollgate_config::ControlPlane;
use tollgate_config::identity::{CertificateAnswer, CertificateRequest};

use super::link::{Connection, words};

/// For an answer; the connection has its own time before.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of an answer: a chain, and whom to trust with as many revoked numbers as there may be.
const MOST: usize = 8 << 20;

/// Where certificates are asked for.
pub(crate) struct Authority {
    settings: ControlPlane,
}

/// Why there is no certificate.
#[derive(Debug)]
pub(crate) enum Unsigned {
    /// The authority said no, or what it said cannot be believed.
    Refused(String),
    /// Nobody answered.
    Unreachable(String),
    /// It was not even asked.
    Here(String),
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsigned::Refused(why) | Unsigned::Unreachable(why) | Unsigned::Here(why) => {
                f.write_str(why)
            }
        }
    }
}

impl Authority {
    pub(crate) fn new(settings: ControlPlane) -> Self {
        Authority { settings }
    }

    pub(crate) async fn ask(
        &self,
        request: &CertificateRequest,
    ) -> Result<CertificateAnswer, Unsigned> {
        let body =
            serde_json::to_vec(request).map_err(|error| Unsigned::Here(error.to_string()))?;
        let mut last = "no control plane is named".to_owned();
        for url in &self.settings.urls {
            let asking = async {
                let connection = Connection::open(url, &self.settings).await?;
                let (path, body) = ("/identity/certificate", body.clone().into());
                connection.fetch(Method::POST, path, body, MOST).await
            };
            let asked = tokio::time::timeout(ANSWER, asking).await;
            let late = |_| Err(format!("no answer within {} s", ANSWER.as_secs()));
            match asked.unwrap_or_else(late) {
                Ok((status, bytes)) if status.is_success() => {
                    return serde_json::from_slice(&bytes).map_err(|_| {
                        Unsigned::Refused(format!("{}: what answers is no authority", url.text))
                    });
                }
                Ok((status, bytes)) => {
                    let said = words(&bytes);
                    let why = format!("{} answered {}: {said}", url.text, status.as_u16());
                    if status.is_client_error() {
                        return Err(Unsigned::Refused(why));
                    }
                    last = why;
                }
                Err(why) => last = format!("{}: {why}", url.text),
            }
        }
        Err(Unsigned::Unreachable(last))
    }
}
