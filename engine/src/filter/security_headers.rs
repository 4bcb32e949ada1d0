//! Fields that make a browser careful (GW-806), on answers that do not have them: an upstream that knows better keeps its
//! word.

use http::{HeaderMap, header};
use tollgate_config::SecurityHeaders;

/// `secure`: the client came over TLS. Elsewhere `Strict-Transport-Security` means nothing (RFC 6797 section 7.2).
pub(super) fn apply(fields: &SecurityHeaders, secure: bool, headers: &mut HeaderMap) {
    for (name, value) in &fields.fields {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if let (Some(value), true) = (&fields.hsts, secure) {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn gw_806_transport_security_is_promised_over_tls_only() {
        let fields = SecurityHeaders {
            fields: vec![(
                HeaderName::from_static("x-frame-options"),
                HeaderValue::from_static("DENY"),
            )],
            hsts: Some(HeaderValue::from_static("max-age=1")),
        };
        for secure in [false, true] {
            let mut headers = HeaderMap::new();
            apply(&fields, secure, &mut headers);
            assert_eq!(headers["x-frame-options"], "DENY");
            let promised = headers.contains_key(header::STRICT_TRANSPORT_SECURITY);
            assert_eq!(promised, secure);
        }
    }
}
