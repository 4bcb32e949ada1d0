//! What browsers are told, as values: which origins may read answers, and fields that make a browser careful.

use http::{HeaderName, HeaderValue, Method};

/// `{ cors = { … } }` (GW-805).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    pub methods: Vec<Method>,
    /// That a request may have.
    pub headers: Vec<HeaderName>,
    /// Of an answer that a script may read.
    pub expose: Vec<HeaderName>,
    pub credentials: bool,
    /// Seconds that a browser may remember a preflight.
    pub max_age: u64,
}

/// Which `Origin` is meant. Browsers send it in lower case, without a default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    Any,
    Exact(String),
    /// `https://*.example.com` is kept as `https://` and `.example.com`: one or more labels stand between the two.
    Subdomains {
        scheme: String,
        suffix: String,
    },
}

/// `{ security_headers = { … } }` (GW-806): what an answer is given that does not say it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityHeaders {
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// `Strict-Transport-Security`, over TLS only.
    pub hsts: Option<HeaderValue>,
}

/// `[errors]`: how the proxy's own answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorBody {
    /// RFC 9457.
    #[default]
    Problem,
    /// `{"success": false, "error": {…}}` (GW-807).
    Envelope,
}
