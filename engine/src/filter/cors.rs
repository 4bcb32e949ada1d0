//! Cross-origin requests (GW-805): a preflight is answered here, before any other filter and without an upstream; other
//! answers are told which origin may read them. What an upstream says of the same is replaced, so that there is one word.
//! A list of origins is compared, never echoed blindly, and every answer that depends on the origin says so in `Vary`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tollgate_config::{Cors as Settings, OriginPattern};

use crate::exchange::body::Body;
use crate::exchange::{Request, Response};

const OURS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

#[derive(Debug)]
pub(super) struct Cors {
    origins: Box<[OriginPattern]>,
    any: bool,
    credentials: bool,
    methods: HeaderValue,
    headers: HeaderValue,
    /// `None`: nothing but what is always readable.
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// What was found out about a request's origin: what its answer allows.
#[derive(Debug, Default)]
pub(super) enum Origin {
    /// None, or one that may not read.
    #[default]
    Other,
    Allowed(HeaderValue),
}

/// Whether a browser asks before it sends the real thing (Fetch, 4.8).
pub(crate) fn preflight_of(request: &Request) -> Option<Method> {
    if request.method != Method::OPTIONS {
        return None;
    }
    request.headers.get(header::ORIGIN)?;
    let method = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).ok()
}

impl Cors {
    pub(super) fn compile(settings: &Settings) -> Self {
        let list = |names: Vec<&str>| {
            let text = names.join(", ");
            // Names and methods are tokens: there is no text of them that is no value.
            HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
        };
        let methods = settings.methods.iter().map(Method::as_str).collect();
        let names = |names: &[HeaderName]| list(names.iter().map(HeaderName::as_str).collect());
        let nothing = || HeaderValue::from_static("");
        Cors {
            any: settings.origins.contains(&OriginPattern::Any),
            origins: settings.origins.clone().into(),
            credentials: settings.credentials,
            methods: list(methods).unwrap_or_else(nothing),
            headers: names(&settings.headers).unwrap_or_else(nothing),
            expose: names(&settings.expose).filter(|list| !list.is_empty()),
            max_age: HeaderValue::from(settings.max_age),
        }
    }

    /// To be asked before any filter may refuse: a browser shows refusals only to whom they allow.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Origin {
        let mut fields = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (fields.next(), fields.next()) else {
            return Origin::Other;
        };
        if self.any {
            return Origin::Allowed(HeaderValue::from_static("*"));
        }
        let fits = origin
            .to_str()
            .is_ok_and(|text| self.origins.iter().any(|one| fits(one, text)));
        match fits {
            true => Origin::Allowed(origin.clone()),
            false => Origin::Other,
        }
    }

    /// The answer to a preflight; without leave in it for an origin that may not.
    pub(super) fn preflight(&self, origin: &Origin) -> Response {
        let mut response = Response::new(StatusCode::NO_CONTENT, HeaderMap::new(), Body::Empty);
        let headers = &mut response.headers;
        if let Origin::Allowed(_) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        self.allow(origin, headers);
        response
    }

    /// On any other answer, ours or an upstream's.
    pub(super) fn tell(&self, origin: &Origin, headers: &mut HeaderMap) {
        for name in &OURS {
            headers.remove(name);
        }
        self.allow(origin, headers);
        if let (Origin::Allowed(_), Some(expose)) = (origin, &self.expose) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn allow(&self, origin: &Origin, headers: &mut HeaderMap) {
        if !self.any {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Origin::Allowed(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.credentials {
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
    }
}

fn fits(pattern: &OriginPattern, origin: &str) -> bool {
    match pattern {
        OriginPattern::Any => true,
        OriginPattern::Exact(text) => text == origin,
        OriginPattern::Subdomains { scheme, suffix } => {
            let middle = origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()));
            middle.is_some_and(|labels| {
                let mut labels = labels.split('.');
                let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                labels.all(|label| !label.is_empty() && label.bytes().all(is_part))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_a_host_fit_and_nothing_that_only_looks_so() {
        let below = OriginPattern::Subdomains {
            scheme: "https://".to_owned(),
            suffix: ".example.com".to_owned(),
        };
        for (origin, allowed) in [
            ("https://a.example.com", true),
            ("https://a.b.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("http://a.example.com", false),
            ("https://a.example.com:8443", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test#.example.com", false),
            ("https://evil.test@a.example.com", false),
            ("https://a.example.com.evil.test", false),
            ("https://aexample.com", false),
            ("null", false),
        ] {
            assert_eq!(fits(&below, origin), allowed, "{origin}");
        }
    }
}
