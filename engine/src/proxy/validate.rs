//! Where a body is waited for and checked before anybody else gets the request (GW-810): behind the chain, so that whoever
//! may not call is told that first, and before everything that forwarding does. gRPC passes: its messages are checked by
//! whoever knows them.

use bytes::{Bytes, BytesMut};
use http::{Method, header};
use tollgate_config::Validate;

use super::Proxy;
use super::books::Exchange;
use super::forward;
use super::transcode::body_frame;
use crate::exchange::Request;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error, written_size};
use crate::snapshot::RoutePlan;
use crate::validate::check;

/// Fields that speak of a body's very bytes.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

impl Proxy {
    /// The request goes on with its body, which is here now: the same, but for texts that the schema has sanitized.
    pub(super) async fn validate(
        &self,
        exchange: &Exchange,
        plan: &RoutePlan,
        request: &mut Request,
        rules: &Validate,
    ) -> Result<(), Error> {
        let must = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
        if exchange.is_grpc || request.upgrade.is_some() || !must && request.body.is_empty() {
            return Ok(());
        }
        let coding = request.headers.get(header::CONTENT_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Code::UnsupportedContent.into());
        }
        let body = held(exchange, plan, request, rules).await?;
        let content_type = request.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        if !body.is_empty() && !content_type.is_some_and(is_json) {
            return Err(Code::UnsupportedContent.into());
        }
        let checked = check(&rules.schema, &body);
        request.body = Body::Full(body);
        let changed = checked.map_err(|faults| Error {
            fields: Some(faults.told.into()),
            ..Error::because(Code::Unfit, faults.first)
        })?;
        if let Some(changed) = changed {
            request.body = Body::Full(changed.into());
            // What they say holds for another body.
            for name in DIGESTS {
                request.headers.remove(name);
            }
        }
        Ok(())
    }
}

async fn held(
    exchange: &Exchange,
    plan: &RoutePlan,
    request: &mut Request,
    rules: &Validate,
) -> Result<Bytes, Error> {
    let most = rules.max_body;
    let fits = |length: u64| {
        if plan.item.max_body.value.is_some_and(|max| length > max) {
            return Err(forward::too_large(plan));
        }
        if length > most.value {
            return Err(Error::governed_by(
                Code::BodyTooLarge,
                "route.filters.validate.max_body",
                written_size(most.value),
                plan.place(most.at),
            ));
        }
        Ok(())
    };
    fits(request.body.length().unwrap_or(0))?;
    let mut body = BytesMut::new();
    while let Some(frame) = body_frame(exchange, plan, &mut request.body).await? {
        if let Ok(data) = frame.into_data() {
            fits((body.len() + data.len()) as u64)?;
            body.extend_from_slice(&data);
        }
    }
    Ok(body.freeze())
}

/// `application/json`, and types whose syntax is JSON.
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let ends = |end: &str| {
        let at = kind.len().checked_sub(end.len());
        at.and_then(|at| kind.get(at..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
    };
    kind.eq_ignore_ascii_case("application/json") || ends("+json")
}
