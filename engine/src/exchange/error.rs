//! Every reason for which we answer instead of an upstream: one closed list, and the only place that chooses a
//! status for our own answers.
//!
//! A client is told a code, a sentence, the phase and the setting that governs it (name, value, file name and line);
//! never an address and never a cause. The cause goes to the log. `docs/errors.md` has a section for each code, and a
//! test holds the two together.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tollgate_config::{Abort, Place};

/// Where in the life of a request it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading and judging the request's head.
    Request,
    /// Reading the request's body.
    Body,
    Route,
    /// Running the route's filters.
    Filter,
    /// Choosing an endpoint.
    Balance,
    Connect,
    /// Waiting for, and judging, the upstream's answer.
    Upstream,
    /// After the answer's head went out.
    Stream,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Phase::Request => "request",
            Phase::Body => "body",
            Phase::Route => "route",
            Phase::Filter => "filter",
            Phase::Balance => "balance",
            Phase::Connect => "connect",
            Phase::Upstream => "upstream",
            Phase::Stream => "stream",
        }
    }
}

macro_rules! codes {
    ($($variant:ident $word:literal $status:literal $grpc:literal $phase:ident $sentence:literal;)*) => {
        /// Why we answered. Words are stable: logs, metrics, documents and clients share them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($variant,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];
            pub fn word(self) -> &'static str { match self { $(Code::$variant => $word,)* } }
            pub fn status(self) -> StatusCode {
                let number: u16 = match self { $(Code::$variant => $status,)* };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            /// The gRPC status number a gRPC caller gets.
            pub fn grpc(self) -> u8 { match self { $(Code::$variant => $grpc,)* } }
            pub fn phase(self) -> Phase { match self { $(Code::$variant => Phase::$phase,)* } }
            pub fn sentence(self) -> &'static str { match self { $(Code::$variant => $sentence,)* } }
        }
    };
}

codes! {
    BadRequestLine "bad_request_line" 400 3 Request "the request line is not of the form METHOD SP TARGET SP HTTP/1.1";
    UnsupportedVersion "unsupported_version" 505 12 Request "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here";
    BadHeader "bad_header" 400 3 Request "a header field is malformed";
    BadFraming "bad_framing" 400 3 Request "the message's length cannot be told for certain";
    BadHost "bad_host" 400 3 Request "the request names no host, more than one, or an invalid one";
    BadPath "bad_path" 400 3 Request "the request's path or query is not valid";
    MethodRefused "method_refused" 501 12 Request "this method is not served";
    ExpectationFailed "expectation_failed" 417 3 Request "the only expectation supported is 100-continue";
    HeaderTooLarge "header_too_large" 431 8 Request "the request's header section is too large";
    UriTooLong "uri_too_long" 414 8 Request "the request's target is too long";
    HeaderTimeout "header_timeout" 408 4 Request "the request's head was not complete in time";
    Misdirected "misdirected" 421 3 Request "this connection's certificate does not cover the host that was asked for";
    BadChunk "bad_chunk" 400 3 Body "the chunked request body is malformed";
    BodyTooLarge "body_too_large" 413 8 Body "the request's body is larger than allowed";
    BodyTimeout "body_timeout" 408 4 Body "the request's body stopped coming";
    BodyAborted "body_aborted" 400 1 Body "the request's body ended before its announced length";
    Unfit "validation_error" 400 3 Body "the request does not fit; every field that is wrong is named";
    MessageTooLarge "message_too_large" 413 8 Body "the message is larger, deeper or longer than allowed";
    UnsupportedContent "unsupported_content" 415 3 Body "the request's body is encoded in a way that cannot be translated";
    ClientClosed "client_closed" 499 1 Request "the client went away before the answer";
    NoRoute "no_route" 404 12 Route "no route matches this request";
    MethodNotAllowed "method_not_allowed" 405 12 Route "the path is known, but not with this method";
    RewriteRefused "rewrite_refused" 400 3 Route "the rewritten path is not a valid path";
    UpgradeRefused "upgrade_refused" 400 3 Route "the connection cannot be upgraded as asked";
    BadServiceName "bad_service_name" 400 3 Route "the host that was asked for cannot be the name of a service";
    UnknownService "unknown_service" 503 14 Route "no service of this name is registered";
    ServiceLookupFailed "service_lookup_failed" 503 14 Route "the service is not known here yet, and nobody could be asked for it in time";
    TooManyServices "too_many_services" 503 8 Route "as many services are known here as may be";
    UnknownMethod "unknown_method" 404 12 Route "no method of the service is called like this";
    DescriptorsUnavailable "descriptors_unavailable" 503 14 Route "what can be called here is not known yet; try again soon";
    ApiKeyRefused "api_key_refused" 401 16 Filter "this needs a known API key in x-api-key";
    TokenRequired "token_required" 401 16 Filter "this needs a bearer token in authorization";
    TokenExpired "token_expired" 401 16 Filter "the bearer token has expired; sign in again, or refresh it";
    InvalidToken "invalid_token" 401 16 Filter "the bearer token is not valid here";
    TokenKeysUnavailable "token_keys_unavailable" 503 14 Filter "the keys that check bearer tokens are not there yet; try again soon";
    Forbidden "forbidden" 403 7 Filter "this caller may not do this";
    AccessDenied "access_denied" 403 7 Filter "no access rule lets this service call this";
    RateLimited "rate_limited" 429 8 Filter "too many requests; wait as long as retry-after says";
    QuotaExceeded "quota_exceeded" 429 8 Filter "this month's requests are used up";
    FaultInjected "fault_injected" 503 14 Filter "a fault was injected on purpose";
    NoEndpoint "no_endpoint" 503 14 Balance "the upstream has no endpoint to send this request to";
    CircuitOpen "circuit_open" 503 14 Balance "the upstream has failed too often and is left alone for a while";
    Overloaded "overloaded" 503 14 Balance "the upstream has as much to do as it may have";
    Shed "shed" 503 8 Balance "the upstream is overloaded, and this request made room for a more important one";
    ConnectFailed "connect_failed" 503 14 Connect "no connection to the upstream could be made";
    ConnectTimeout "connect_timeout" 504 14 Connect "no connection to the upstream could be made in time";
    RouteTimeout "route_timeout" 504 4 Upstream "the upstream did not answer within the route's time-out";
    PerTryTimeout "per_try_timeout" 504 4 Upstream "the upstream did not answer within the time for one try";
    AdaptiveTimeout "adaptive_timeout" 504 4 Upstream "the upstream took much longer than it usually does";
    DeadlineExceeded "deadline_exceeded" 504 4 Upstream "the caller's own deadline passed";
    UpstreamReset "upstream_reset" 502 14 Upstream "the upstream closed the connection before it had answered";
    UpstreamBadResponse "upstream_bad_response" 502 14 Upstream "the upstream's answer is not valid HTTP";
    UpstreamBadMessage "upstream_bad_message" 502 13 Upstream "the upstream's answer is no message of the method's type";
    UpstreamResponseTooLarge "upstream_response_too_large" 502 14 Upstream "the upstream's header section is too large";
    IdleTimeout "idle_timeout" 504 4 Stream "no byte moved in either direction for too long";
    StreamAborted "stream_aborted" 502 14 Stream "the upstream's answer broke off";
    Internal "internal" 500 13 Upstream "the proxy failed; this is a defect, please report it";
}

/// The setting that decided, as a client may see it.
#[derive(Debug, Clone)]
pub struct Governed {
    /// Such as `route.timeout`.
    pub setting: &'static str,
    /// As a person would write it.
    pub value: String,
    /// `None`: the default holds.
    pub place: Option<Place>,
    /// What a member of the mesh is told besides.
    pub detail: Option<Box<str>>,
}

/// One answer of ours in the making. Boxed parts are rare and cold.
#[derive(Debug, Clone)]
pub struct Error {
    pub code: Code,
    pub governed: Option<Box<Governed>>,
    /// For the log only.
    pub cause: Option<Box<str>>,
    /// `Allow` of a 405.
    pub allow: Option<Box<str>>,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// The name of the rate limit that refused.
    pub limit: Option<Box<str>>,
    /// Of `FaultInjected`: how.
    pub abort: Option<Abort>,
    /// Of `Unfit`: the fields and what is wrong with each, as a JSON array.
    pub fields: Option<Box<str>>,
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        Error {
            code,
            governed: None,
            cause: None,
            allow: None,
            retry_after: None,
            limit: None,
            abort: None,
            fields: None,
        }
    }
}

impl Error {
    pub fn because(code: Code, cause: impl Into<Box<str>>) -> Self {
        Error {
            cause: Some(cause.into()),
            ..code.into()
        }
    }

    pub fn governed_by(
        code: Code,
        setting: &'static str,
        value: String,
        place: Option<Place>,
    ) -> Self {
        Error {
            governed: Some(Box::new(Governed {
                setting,
                value,
                place,
                detail: None,
            })),
            ..code.into()
        }
    }

    /// The same with a sentence for who asked.
    pub fn with_detail(mut self, detail: &str) -> Self {
        if let Some(governed) = &mut self.governed {
            governed.detail = Some(detail.into());
        }
        self
    }

    /// What a member of the mesh is told besides.
    pub fn detail(&self) -> Option<&str> {
        self.governed.as_ref()?.detail.as_deref()
    }

    /// A fault that the document asks for.
    pub fn injected(abort: Abort, place: Option<Place>) -> Self {
        let setting = "route.filters.fault.abort";
        Error {
            abort: Some(abort),
            ..Self::governed_by(Code::FaultInjected, setting, abort.to_string(), place)
        }
    }

    fn status(&self) -> StatusCode {
        match self.abort {
            Some(Abort::Status(status)) => status,
            Some(Abort::Reset) | None => self.code.status(),
        }
    }

    fn grpc_status(&self) -> u8 {
        match self.abort {
            // As google.rpc.Code pairs them; what it does not name is unknown.
            Some(Abort::Status(status)) => match status.as_u16() {
                400 => 3,
                401 => 16,
                403 => 7,
                404 => 5,
                408 | 504 => 4,
                409 => 10,
                429 => 8,
                499 => 1,
                500 => 13,
                501 => 12,
                502 | 503 => 14,
                _ => 2,
            },
            Some(Abort::Reset) | None => self.code.grpc(),
        }
    }

    /// The RFC 9457 answer. `instance` is the request id.
    pub fn problem(&self, instance: &str) -> (StatusCode, HeaderMap, Bytes) {
        let status = self.status();
        let mut body = String::with_capacity(256);
        let title = self.code.sentence();
        let _infallible = write!(
            body,
            r#"{{"type":"about:blank","title":{},"status":{},"code":"{}","phase":"{}""#,
            json(title),
            status.as_u16(),
            self.code.word(),
            self.code.phase().word()
        );
        if let Some(detail) = self.detail() {
            let _infallible = write!(body, r#","detail":{}"#, json(detail));
        }
        if let Some(limit) = &self.limit {
            let _infallible = write!(body, r#","limit":{}"#, json(limit));
        }
        if let Some(fields) = &self.fields {
            let _infallible = write!(body, r#","errors":{fields}"#);
        }
        if let Some(governed) = &self.governed {
            let _infallible = write!(
                body,
                r#","setting":"{}","value":{}"#,
                governed.setting,
                json(&governed.value)
            );
            match &governed.place {
                Some(place) => {
                    let file = place.file.rsplit('/').next().unwrap_or(&place.file);
                    let _infallible =
                        write!(body, r#","at":{}"#, json(&format!("{file}:{}", place.line)));
                }
                None => body.push_str(r#","at":"default""#),
            }
        }
        if !instance.is_empty() {
            let _infallible = write!(body, r#","request_id":{}"#, json(instance));
        }
        body.push('}');
        let headers = self.fields("application/problem+json");
        (status, headers, Bytes::from(body))
    }

    /// The same answer as clients of a uniform API expect it (GW-807): nothing of settings, the trace to search for.
    pub fn envelope(&self, instance: &str, trace: &[u8; 16]) -> (StatusCode, HeaderMap, Bytes) {
        let body = super::envelope::body(self, self.status(), instance, trace);
        (self.status(), self.fields("application/json"), body)
    }

    /// The fields that go with any form of the answer.
    fn fields(&self, kind: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(allow) = self
            .allow
            .as_deref()
            .and_then(|allow| HeaderValue::from_str(allow).ok())
        {
            headers.insert(header::ALLOW, allow);
        }
        if let Some(challenge) = self.challenge() {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        headers
    }

    /// What a 401 asks for (RFC 9110 section 15.5.2, RFC 6750 section 3).
    fn challenge(&self) -> Option<&'static str> {
        Some(match self.code {
            // There is no registered scheme for keys.
            Code::ApiKeyRefused => "ApiKey header=\"x-api-key\"",
            Code::TokenRequired => "Bearer",
            Code::TokenExpired => {
                "Bearer error=\"invalid_token\", error_description=\"the token has expired\""
            }
            Code::InvalidToken => "Bearer error=\"invalid_token\"",
            _ => return None,
        })
    }

    /// The trailers-only answer a gRPC caller gets: status 200, the gRPC status in the headers.
    pub fn grpc(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(
            "grpc-status",
            HeaderValue::from(u16::from(self.grpc_status())),
        );
        let mut message = format!("{} ({})", self.code.sentence(), self.code.word());
        if let Some(detail) = self.detail() {
            let _infallible = write!(message, ": {detail}");
        }
        if let Some(limit) = &self.limit {
            let _infallible = write!(message, " [limit {limit}]");
        }
        if let Some(after) = self.retry_after {
            super::retry_info::tell(&mut headers, self.code.grpc(), self.code.sentence(), after);
        }
        if let Some(governed) = &self.governed {
            let _infallible = write!(message, " [{} = {}]", governed.setting, governed.value);
        }
        if let Ok(value) = HeaderValue::from_str(&message.replace('%', "%25")) {
            headers.insert("grpc-message", value);
        }
        if let Some(after) = self.retry_after {
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            headers.insert("grpc-retry-pushback-ms", HeaderValue::from(millis));
        }
        headers
    }
}

/// As `Retry-After` counts: up, and at least one.
pub(crate) fn whole_seconds(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

/// A duration as the document would write it.
pub fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(60_000) && millis > 0 {
        format!("{}m", millis / 60_000)
    } else if millis.is_multiple_of(1000) {
        format!("{}s", millis / 1000)
    } else {
        format!("{millis}ms")
    }
}

/// A size as the document would write it.
pub fn written_size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_word_of_its_own() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }

    #[test]
    fn a_problem_names_the_setting_and_its_line_but_no_folder() {
        let place = Place {
            file: "/etc/secret-folder/gateway.toml".into(),
            line: 12,
            column: 3,
        };
        let error = Error::governed_by(
            Code::RouteTimeout,
            "route.timeout",
            "5s".into(),
            Some(place),
        );
        let (status, _, body) = error.problem("abc");
        assert_eq!(status, 504);
        let body: serde_json::Value = serde_json::from_slice(&body).expect("valid JSON");
        assert_eq!(body["code"], "route_timeout");
        assert_eq!(body["at"], "gateway.toml:12");
        assert_eq!(body["value"], "5s");
    }
}
