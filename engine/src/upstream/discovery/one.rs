//! One address of a server that is asked now and then: of a name it is looked up anew each time, and no request waits.

use std::net::SocketAddr;

use tollgate_config::EndpointSource;
use tollgate_config::document::{At, Endpoint};

use super::{Dns, Source};

/// `address`: `host:port`.
pub(crate) async fn resolve(address: &str) -> Result<SocketAddr, String> {
    let source = Source::new(&EndpointSource::Static(vec![Endpoint {
        address: address.to_owned(),
        weight: 1,
        zone: None,
        at: At(None),
    }]))
    .map_err(|error| error.to_string())?;
    if let Some(fixed) = source.fixed().and_then(|fixed| fixed.first().cloned()) {
        return Ok(fixed.address);
    }
    let dns = Dns::system().map_err(|error| error.to_string())?;
    let question = source.questions().first().ok_or("nothing to resolve")?;
    let answer = dns.ask(question).await.map_err(|error| error.to_string())?;
    // One of them: several nodes spread over several addresses of one name.
    let found = fastrand::choice(&answer.endpoints).ok_or("the name has no address")?;
    Ok(found.address)
}
