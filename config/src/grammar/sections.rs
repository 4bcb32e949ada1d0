//! Every section and key that a document may hold. One line here is what the reader accepts, the schema says and the
//! reference page shows.

use super::rules::*;
use super::{
    Key, Kind, Presence, Section, Top, access_rules, browsers, callers, faults, identity, limits,
    subscription, telemetry, transcode, validate,
};

pub(super) const NOTHING: Section = Section {
    title: "",
    doc: "",
    keys: &[],
    one_of: &[],
    rivals: &[],
    needs: &[],
    named: None,
};

pub(super) const OFF: Kind = Kind::Word(&["off"]);
const DURATION_OR_OFF: Kind = Kind::Either(&[Kind::Rule(&DURATION), OFF]);
const MOST_WEIGHT: u64 = 1_000_000;

pub(super) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        presence: Presence::Required,
        doc,
    }
}

pub(super) const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        presence: Presence::Optional,
        doc,
    }
}

pub(super) const fn default(
    name: &'static str,
    kind: Kind,
    value: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        presence: Presence::Default(value),
        doc,
    }
}

pub(super) const fn later(name: &'static str, doc: &'static str) -> Key {
    optional(name, Kind::Later, doc)
}

pub(crate) static TOP: &[Top] = &[
    Top {
        name: "server",
        list: false,
        section: Some(&SERVER),
        doc: "",
    },
    Top {
        name: "listener",
        list: true,
        section: Some(&LISTENER),
        doc: "",
    },
    Top {
        name: "route",
        list: true,
        section: Some(&ROUTE),
        doc: "",
    },
    Top {
        name: "upstream",
        list: true,
        section: Some(&UPSTREAM),
        doc: "",
    },
    Top {
        name: "telemetry",
        list: false,
        section: Some(&telemetry::TELEMETRY),
        doc: "",
    },
    Top {
        name: "test",
        list: true,
        section: Some(&TEST),
        doc: "",
    },
    Top {
        name: "limit",
        list: true,
        section: Some(&limits::LIMIT),
        doc: "",
    },
    Top {
        name: "limits",
        list: false,
        section: Some(&limits::LIMITS),
        doc: "",
    },
    Top {
        name: "tiers",
        list: false,
        section: Some(&limits::TIERS),
        doc: "",
    },
    Top {
        name: "api_key",
        list: true,
        section: Some(&limits::API_KEY),
        doc: "",
    },
    Top {
        name: "jwt",
        list: true,
        section: Some(&callers::JWT),
        doc: "",
    },
    Top {
        name: "access",
        list: true,
        section: Some(&access_rules::ACCESS),
        doc: "",
    },
    Top {
        name: "errors",
        list: false,
        section: Some(&browsers::ERRORS),
        doc: "",
    },
    Top {
        name: "control_plane",
        list: false,
        section: Some(&subscription::CONTROL_PLANE),
        doc: "",
    },
    Top {
        name: "identity",
        list: false,
        section: Some(&identity::IDENTITY),
        doc: "",
    },
];

/// What may stand before the first header.
pub(crate) static PREAMBLE: Section = Section {
    title: "the top level",
    doc: "Keys before the first section.",
    keys: &[optional(
        "include",
        Kind::List(&Kind::Rule(&FILE)),
        "More files that belong to the document. Relative to this file; the last part may hold `*`.",
    )],
    ..NOTHING
};

pub(crate) static SERVER: Section = Section {
    title: "[server]",
    doc: "The process. Read at start; a change needs a restart.",
    keys: &[
        default(
            "workers",
            Kind::Either(&[Kind::Count(1, 1024), Kind::Word(&["auto"])]),
            "\"auto\"",
            "Worker threads; \"auto\" is one per core.",
        ),
        default(
            "admin",
            Kind::Either(&[Kind::Rule(&BIND), OFF]),
            "\"127.0.0.1:9901\"",
            "Address of health, metrics, status and explain.",
        ),
        default(
            "drain",
            Kind::Rule(&LAG),
            "\"30s\"",
            "The longest wait for what is in flight at shutdown.",
        ),
        default(
            "drain_lag",
            Kind::Rule(&LAG),
            "\"0s\"",
            "How long a stopping process goes on accepting after readiness has turned false.",
        ),
        optional(
            "state_dir",
            Kind::Rule(&FILE),
            "Folder for what should outlive the process.",
        ),
    ],
    ..NOTHING
};

pub(crate) static LISTENER: Section = Section {
    title: "[[listener]]",
    doc: "An address that clients connect to.",
    keys: &[
        default(
            "name",
            Kind::Rule(&NAME),
            "the bind address",
            "The name that routes and metrics use.",
        ),
        required(
            "bind",
            Kind::Rule(&BIND),
            "IP address and port; port 0 takes a free one.",
        ),
        default(
            "protocol",
            Kind::Word(&["auto", "http1", "http2", "tcp", "detect"]),
            "\"auto\"",
            "\"auto\" is HTTP/1.1 and HTTP/2: by ALPN on TLS, by prior knowledge on clear text. \"tcp\" relays bytes to `forward`; \"detect\" is \"auto\" for what begins like HTTP and \"tcp\" for everything else.",
        ),
        optional(
            "forward",
            Kind::Rule(&NAME),
            "The upstream that gets the bytes of what is not HTTP. Needs `protocol` \"tcp\" or \"detect\".",
        ),
        default(
            "detect_timeout",
            Kind::Rule(&DURATION),
            "\"500ms\"",
            "With \"detect\": a client that has said nothing for so long waits for the server to speak, and is relayed.",
        ),
        default(
            "relay_idle_timeout",
            DURATION_OR_OFF,
            "\"1h\"",
            "Relayed bytes: none in either direction.",
        ),
        default(
            "access",
            Kind::Word(&["enforce", "audit", "off"]),
            "\"off\"",
            "Which services may send bytes to `forward`: by those rules of `[[access]]` that name neither method nor path. Requests meet the filter `access` of their route.",
        ),
        default(
            "capture",
            Kind::Flag,
            "false",
            "Connections are redirected here by the kernel; upstreams with `endpoints = \"original\"` go where the client was going. Linux.",
        ),
        optional(
            "tls",
            Kind::Either(&[
                Kind::Table(&LISTENER_TLS),
                Kind::List(&Kind::Table(&LISTENER_TLS)),
            ]),
            "Certificate, or a list of certificates chosen by SNI. Absent: clear text.",
        ),
        identity::LISTENER_MESH,
        default(
            "max_connections",
            Kind::Count(1, 10_000_000),
            "20000",
            "Connections open at once.",
        ),
        default(
            "header_timeout",
            Kind::Rule(&DURATION),
            "\"10s\"",
            "Until a request head is complete.",
        ),
        default(
            "idle_timeout",
            Kind::Rule(&DURATION),
            "\"75s\"",
            "Keep-alive without a request.",
        ),
        default(
            "max_header_size",
            Kind::Rule(&HEADER_SIZE),
            "\"64KiB\"",
            "Bytes of a request head.",
        ),
        default(
            "trusted_proxies",
            Kind::List(&Kind::Rule(&CIDR)),
            "[]",
            "Blocks of addresses whose `X-Forwarded-For` and `Forwarded` are believed.",
        ),
        later("proxy_protocol", "The PROXY protocol."),
    ],
    needs: &[("relay_idle_timeout", "forward"), ("access", "forward")],
    ..NOTHING
};

pub(crate) static LISTENER_TLS: Section = Section {
    title: "tls = { … }",
    doc: "A certificate and its key, as PEM files. In a list, the clients' authority stands in the first.",
    keys: &[
        optional(
            "names",
            Kind::List(&Kind::Rule(&SERVER_NAME)),
            "Names of SNI that choose it: exact, or \"*.example.com\". Absent: any.",
        ),
        required(
            "cert",
            Kind::Rule(&FILE),
            "The certificate, followed by its intermediates.",
        ),
        required("key", Kind::Rule(&FILE), "Its private key."),
        optional(
            "client_ca",
            Kind::Rule(&FILE),
            "Authorities that sign clients' certificates.",
        ),
        default(
            "client_auth",
            Kind::Word(&["none", "optional", "required"]),
            "\"none\"",
            "Whether clients show a certificate.",
        ),
    ],
    ..NOTHING
};

pub(crate) static ROUTE: Section = Section {
    title: "[[route]]",
    doc: "Which requests go where. The most specific match wins, whatever the order in the file.",
    keys: &[
        default(
            "name",
            Kind::Rule(&NAME),
            "methods and path",
            "The name that metrics, logs and tests use.",
        ),
        default(
            "match",
            Kind::Table(&MATCH),
            "{}",
            "What a request must be.",
        ),
        optional(
            "upstream",
            Kind::Rule(&NAME),
            "The upstream that gets the request.",
        ),
        optional(
            "split",
            Kind::List(&Kind::Table(&BRANCH)),
            "Several upstreams by weight.",
        ),
        optional(
            "sticky",
            Kind::Table(&STICKY),
            "What keeps a client on one branch of a split.",
        ),
        optional("respond", Kind::Table(&RESPOND), "A fixed answer."),
        optional("redirect", Kind::Table(&REDIRECT), "Another place to ask."),
        default(
            "timeout",
            DURATION_OR_OFF,
            "\"5s\"",
            "The whole exchange up to the response head.",
        ),
        default(
            "adaptive_timeout",
            Kind::Either(&[Kind::Table(&ADAPTIVE_TIMEOUT), OFF]),
            "\"off\"",
            "Ends a try that takes much longer than the route's answers usually do; `timeout` is the ceiling.",
        ),
        default(
            "idle_timeout",
            DURATION_OR_OFF,
            "\"60s\"",
            "No byte in either direction on a body, stream or tunnel.",
        ),
        default(
            "max_body",
            Kind::Either(&[Kind::Rule(&SIZE), OFF]),
            "\"off\"",
            "Bytes of a request body.",
        ),
        optional(
            "rewrite",
            Kind::Table(&REWRITE),
            "Another path or host for the upstream.",
        ),
        default(
            "priority",
            Kind::Word(&["critical", "default", "sheddable"]),
            "\"default\"",
            "What is refused last, and first, under overload.",
        ),
        default(
            "filters",
            Kind::List(&Kind::Table(&FILTER)),
            "[]",
            "Run in the order written.",
        ),
        default(
            "retry",
            Kind::Either(&[Kind::Table(&RETRY), OFF]),
            "the defaults of [route.retry]",
            "What is tried again.",
        ),
        optional(
            "fallback",
            Kind::Table(&FALLBACK),
            "What is answered when the upstream cannot.",
        ),
    ],
    one_of: &[&["upstream", "split", "respond", "redirect"]],
    needs: &[("sticky", "split")],
    ..NOTHING
};

pub(crate) static MATCH: Section = Section {
    title: "match = { … }",
    doc: "An absent key matches everything.",
    keys: &[
        optional(
            "listener",
            Kind::Either(&[Kind::Rule(&NAME), Kind::List(&Kind::Rule(&NAME))]),
            "A listener's name, or a list of them.",
        ),
        optional(
            "host",
            Kind::Rule(&HOST),
            "Exact, or \"*.example.com\" for everything below it. Without a port.",
        ),
        optional(
            "path",
            Kind::Rule(&PATH),
            "Literal segments, `{name}` for one segment, a trailing `/*` for the path itself and all below it.",
        ),
        optional(
            "path_regex",
            Kind::Rule(&REGEX),
            "Must match the whole normal path.",
        ),
        optional(
            "methods",
            Kind::List(&Kind::Rule(&METHOD)),
            "Any of these methods.",
        ),
        optional(
            "headers",
            Kind::Map(&HEADER_NAME, &VALUE),
            "All of these headers: a value, `{ present = true }` or `{ regex = \"…\" }`.",
        ),
        optional(
            "query",
            Kind::Map(&PARAMETER, &VALUE),
            "All of these query parameters, in the same way.",
        ),
    ],
    rivals: &[&["path", "path_regex"]],
    ..NOTHING
};

pub(super) static VALUE: Kind = Kind::Either(&[Kind::Text, Kind::Table(&PREDICATE)]);

pub(crate) static PREDICATE: Section = Section {
    title: "{ present = true } or { regex = \"…\" }",
    doc: "What a header or a query parameter must be.",
    keys: &[
        optional("present", Kind::Yes, "It is there, whatever its value."),
        optional("regex", Kind::Rule(&REGEX), "Must match the whole value."),
    ],
    one_of: &[&["present", "regex"]],
    ..NOTHING
};

pub(crate) static BRANCH: Section = Section {
    title: "split = [{ … }, …]",
    doc: "One branch of a split.",
    keys: &[
        required("upstream", Kind::Rule(&NAME), "An upstream's name."),
        default(
            "weight",
            Kind::Count(0, MOST_WEIGHT),
            "1",
            "Its share is its weight over the sum of all.",
        ),
    ],
    ..NOTHING
};

pub(crate) static STICKY: Section = Section {
    title: "sticky = { … }",
    doc: "The same value goes to the same branch.",
    keys: &[
        optional("header", Kind::Rule(&HEADER_NAME), "A request header."),
        optional("cookie", Kind::Rule(&COOKIE), "A cookie."),
        optional("client", Kind::Yes, "The client's address."),
    ],
    one_of: &[&["header", "cookie", "client"]],
    ..NOTHING
};

pub(crate) static RESPOND: Section = Section {
    title: "respond = { … }",
    doc: "An answer without an upstream.",
    keys: &[
        default("status", Kind::Count(200, 599), "200", "The status."),
        default("body", Kind::Text, "\"\"", "The body."),
        default(
            "headers",
            Kind::Map(&OWN_HEADER, &Kind::Rule(&HEADER_VALUE)),
            "{}",
            "Headers of the answer.",
        ),
    ],
    ..NOTHING
};

pub(crate) static REDIRECT: Section = Section {
    title: "redirect = { … }",
    doc: "`{name}` stands for a capture of the path, `{path}` for the whole path, `{query}` for the query.",
    keys: &[
        required("to", Kind::Rule(&TARGET), "A URL or a path."),
        default("status", Kind::Count(300, 399), "308", "The status."),
    ],
    ..NOTHING
};

pub(crate) static REWRITE: Section = Section {
    title: "rewrite = { … }",
    doc: "What the upstream sees instead.",
    keys: &[
        optional(
            "path",
            Kind::Rule(&PATH),
            "`{name}` stands for a capture of the match's path, a trailing `/*` for what its `/*` held.",
        ),
        optional(
            "strip_prefix",
            Kind::Rule(&PREFIX),
            "Taken off the front of the path.",
        ),
        optional(
            "host",
            Kind::Rule(&AUTHORITY),
            "Sent as `Host` or `:authority`.",
        ),
    ],
    rivals: &[&["path", "strip_prefix"]],
    ..NOTHING
};

pub(crate) static FILTER: Section = Section {
    title: "filters = [{ … }, …]",
    doc: "Each filter is a table with one key.",
    keys: &[
        optional(
            "set_headers",
            Kind::Table(&SET_HEADERS),
            "Sets and removes headers.",
        ),
        optional(
            "rate_limit",
            limits::RATE_LIMIT,
            "Refuses what is too much: the name of a `[[limit]]`, \"tiers\", or a limit of its own.",
        ),
        optional(
            "cors",
            Kind::Table(&browsers::CORS),
            "Which web pages of other origins may read answers. Preflights are answered here, before everything else.",
        ),
        optional(
            "jwt",
            callers::JWT_USE,
            "Who calls: the name of a `[[jwt]]` whose token a request must carry in `Authorization: Bearer`, or a table.",
        ),
        optional(
            "api_key",
            Kind::Word(&["required", "optional"]),
            "Whether a request must carry a known key in `X-API-Key`.",
        ),
        optional(
            "allow",
            Kind::Table(&callers::ALLOW),
            "Who may call: by roles, permissions, ownership or address.",
        ),
        optional(
            "access",
            Kind::Word(&["enforce", "audit"]),
            "Which services may call, by the rules of `[[access]]`. \"enforce\": what no rule allows is refused. \"audit\": it passes, and is counted and logged.",
        ),
        optional(
            "security_headers",
            Kind::Table(&browsers::SECURITY_HEADERS),
            "Fields that make a browser careful; `{}` stands for the defaults.",
        ),
        optional(
            "fault",
            Kind::Table(&faults::FAULT),
            "Delays, aborts and resets on purpose, to see what others make of them.",
        ),
        optional(
            "transcode",
            Kind::Table(&transcode::TRANSCODE),
            "Answers JSON over HTTP with calls of a gRPC service.",
        ),
        optional(
            "grpc_web",
            Kind::Yes,
            "Answers gRPC-Web, from browsers, with calls of a gRPC service.",
        ),
        optional(
            "validate",
            Kind::Table(&validate::VALIDATE),
            "Refuses bodies that are not what a JSON Schema says, with all fields that are wrong.",
        ),
    ],
    one_of: &[&[
        "set_headers",
        "rate_limit",
        "cors",
        "jwt",
        "api_key",
        "allow",
        "access",
        "security_headers",
        "fault",
        "transcode",
        "grpc_web",
        "validate",
    ]],
    ..NOTHING
};

pub(crate) static SET_HEADERS: Section = Section {
    title: "{ set_headers = { … } }",
    doc: "Sets replace what is there; `remove` acts on both, before the sets.",
    keys: &[
        default(
            "request",
            Kind::Map(&OWN_HEADER, &Kind::Rule(&HEADER_VALUE)),
            "{}",
            "Set on the request to the upstream.",
        ),
        default(
            "response",
            Kind::Map(&OWN_HEADER, &Kind::Rule(&HEADER_VALUE)),
            "{}",
            "Set on the response to the client.",
        ),
        default(
            "remove",
            Kind::List(&Kind::Rule(&OWN_HEADER)),
            "[]",
            "Removed from request and response.",
        ),
    ],
    ..NOTHING
};

pub(crate) static ADAPTIVE_TIMEOUT: Section = Section {
    title: "adaptive_timeout = { … }",
    doc: "A try may take 1.5 × the time that 99 of 100 of the route's latest answers came within, but not less than `least` and not more than `timeout`. Rules once there were 100 answers.",
    keys: &[default(
        "least",
        Kind::Rule(&DURATION),
        "\"100ms\"",
        "The shortest time for a try.",
    )],
    ..NOTHING
};

pub(crate) static RETRY: Section = Section {
    title: "[route.retry]",
    doc: "On by default; `retry = \"off\"` switches it off.",
    keys: &[
        optional(
            "preset",
            Kind::Word(&["read", "write", "critical"]),
            "Other defaults for the keys below. \"read\": three more tries, waits from 100ms to 1s. \"write\": one more, and only with an `Idempotency-Key`. \"critical\": none.",
        ),
        default(
            "attempts",
            Kind::Count(1, 100),
            "2",
            "Tries after the first.",
        ),
        default(
            "on",
            Kind::List(&Kind::Either(&[
                Kind::Rule(&RETRY_ON),
                Kind::Count(500, 599),
            ])),
            "[\"connect\", \"reset\", \"502\", \"503\", \"504\", \"unavailable\"]",
            "What is tried again: reasons, or statuses from 500.",
        ),
        default(
            "backoff",
            Kind::Table(&BACKOFF),
            "{ base = \"25ms\", max = \"250ms\" }",
            "Exponential, with full jitter.",
        ),
        default(
            "methods",
            Kind::Either(&[
                Kind::List(&Kind::Rule(&METHOD)),
                Kind::Word(&["idempotent", "keyed"]),
            ]),
            "\"idempotent\"",
            "Which methods. \"idempotent\": GET HEAD OPTIONS TRACE PUT DELETE, and anything with an `Idempotency-Key`. \"keyed\": only with that.",
        ),
        default(
            "per_try_timeout",
            DURATION_OR_OFF,
            "\"off\"",
            "The longest that one try may take.",
        ),
        default(
            "max_replay",
            Kind::Rule(&SIZE),
            "\"64KiB\"",
            "A larger body is never sent twice.",
        ),
        default(
            "hedge",
            Kind::Either(&[Kind::Table(&HEDGE), OFF]),
            "\"off\"",
            "A second try, at another endpoint, beside a first one whose answer is late: for what may be repeated, and paid from the retry budget.",
        ),
    ],
    ..NOTHING
};

pub(crate) static HEDGE: Section = Section {
    title: "hedge = { … }",
    doc: "The first good answer wins, the other try is cancelled. `hedge = {}` stands for the defaults. At most one for each request; never in place of a probe of a breaker, and never from a queue.",
    keys: &[
        default(
            "after",
            Kind::Either(&[Kind::Rule(&DURATION), Kind::Word(&["p95"])]),
            "\"p95\"",
            "How late. \"p95\": later than 95 of 100 of the route's latest answers; rules once there were 100.",
        ),
        default(
            "least",
            Kind::Rule(&DURATION),
            "\"10ms\"",
            "Never sooner than this, however fast answers are; only beside \"p95\".",
        ),
    ],
    ..NOTHING
};

pub(crate) static FALLBACK: Section = Section {
    title: "[route.fallback]",
    doc: "After all tries have failed, or none could be made. The answer bears `x-tollgate-fallback` with the reason. A gRPC caller gets no fixed answer, but may get another upstream's.",
    keys: &[
        optional("respond", Kind::Table(&RESPOND), "A fixed answer."),
        optional(
            "upstream",
            Kind::Rule(&NAME),
            "Another upstream, asked as the first was, within what is left of the time; only for requests that never left or may be repeated.",
        ),
        default(
            "on",
            Kind::List(&Kind::Either(&[
                Kind::Rule(&FALLBACK_ON),
                Kind::Count(500, 599),
            ])),
            "[\"connect\", \"reset\", \"timeout\", \"overloaded\", \"502\", \"503\", \"504\"]",
            "What it stands in for: reasons, or the upstream's statuses from 500.",
        ),
    ],
    one_of: &[&["respond", "upstream"]],
    ..NOTHING
};

pub(crate) static BACKOFF: Section = Section {
    title: "backoff = { … }",
    doc: "The wait before another try.",
    keys: &[
        default(
            "base",
            Kind::Rule(&LAG),
            "\"25ms\"",
            "The first wait; each further one is twice as long.",
        ),
        default("max", Kind::Rule(&LAG), "\"250ms\"", "The longest wait."),
    ],
    ..NOTHING
};

pub(crate) static UPSTREAM: Section = Section {
    title: "[[upstream]]",
    doc: "A group of endpoints that answer alike.",
    keys: &[
        required(
            "name",
            Kind::Rule(&NAME),
            "The name that routes and metrics use.",
        ),
        optional(
            "endpoints",
            Kind::Either(&[
                Kind::List(&Kind::Either(&[
                    Kind::Rule(&ENDPOINT),
                    Kind::Table(&ENDPOINT_TABLE),
                ])),
                Kind::Word(&["original"]),
            ]),
            "Addresses. \"original\": where a captured connection was going (`[[listener]] capture`).",
        ),
        optional(
            "dns",
            Kind::Rule(&DNS),
            "A name whose A and AAAA records are the endpoints; the last good answer is kept when DNS fails.",
        ),
        default(
            "srv",
            Kind::Flag,
            "false",
            "Ask for SRV records; the port of `dns` may be absent.",
        ),
        optional(
            "service",
            Kind::Rule(&NAME),
            "A service whose instances the control plane knows; needs `[control_plane]`. \"*\": whichever the request's host \
             names (`orders`, `orders.default`, `orders.default.svc`), looked up at its first use; each is an upstream with \
             the settings of this one. An upstream that has a service's name and its instances stands in for it.",
        ),
        optional(
            "with",
            Kind::Map(&PARAMETER, &Kind::Text),
            "Metadata that an instance of the service must have, such as `{ version = \"1.2.3\" }`.",
        ),
        optional(
            "learn",
            Kind::Table(&LEARN),
            "How services of `service = \"*\"` are learned. Absent: the defaults.",
        ),
        default(
            "protocol",
            Kind::Word(&["http1", "http2", "auto"]),
            "\"http1\"",
            "gRPC needs \"http2\", or \"auto\" on TLS, which asks by ALPN. With `mesh`, \"auto\" is HTTP/1.1 for what came over HTTP/1 and is idempotent, \
             while few are in flight, and HTTP/2 for everything else.",
        ),
        optional(
            "tls",
            Kind::Table(&UPSTREAM_TLS),
            "Encrypts. Absent: clear text.",
        ),
        identity::UPSTREAM_MESH,
        default(
            "balance",
            Kind::Either(&[
                Kind::Word(&["peak_ewma", "least_requests", "round_robin", "random"]),
                Kind::Table(&BALANCE),
            ]),
            "\"peak_ewma\"",
            "How an endpoint is chosen. \"peak_ewma\": power of two choices on latency and requests in flight.",
        ),
        default(
            "connect_timeout",
            Kind::Rule(&DURATION),
            "\"1s\"",
            "TCP, TLS and HTTP/2 settings, all together.",
        ),
        default(
            "max_connections",
            Kind::Either(&[Kind::Count(1, 10_000_000), OFF]),
            "\"off\"",
            "Per endpoint.",
        ),
        default(
            "max_in_flight",
            Kind::Either(&[
                Kind::Count(1, 10_000_000),
                Kind::Word(&["off", "adaptive"]),
                Kind::Table(&ADAPTIVE),
            ]),
            "\"off\"",
            "A bulkhead: requests in flight at the whole upstream, over all workers. \"adaptive\" finds the number by watching how long answers take.",
        ),
        default(
            "queue",
            Kind::Either(&[Kind::Table(&QUEUE), OFF]),
            "{ length = 100, timeout = \"100ms\" }",
            "Who waits when `max_in_flight` requests are in flight; the most important `priority` first.",
        ),
        default(
            "idle_connections",
            Kind::Count(0, 1_000_000),
            "512",
            "Kept per endpoint and worker.",
        ),
        default(
            "breaker",
            Kind::Either(&[Kind::Table(&BREAKER), OFF]),
            "the defaults of [upstream.breaker]",
            "Stops asking an upstream that keeps failing.",
        ),
        default(
            "outlier",
            Kind::Either(&[Kind::Table(&OUTLIER), OFF]),
            "{ failures = 5, deviation = 0.3, volume = 50 }",
            "Ejects failing endpoints.",
        ),
        default(
            "retry_budget",
            Kind::Either(&[Kind::Table(&RETRY_BUDGET), OFF]),
            "the defaults of [upstream.retry_budget]",
            "Bounds retries to a share of recent requests.",
        ),
        optional(
            "health",
            Kind::Table(&HEALTH),
            "Active probes. Absent: none.",
        ),
    ],
    one_of: &[&["endpoints", "dns", "service"]],
    needs: &[
        ("srv", "dns"),
        ("with", "service"),
        ("learn", "service"),
        ("queue", "max_in_flight"),
    ],
    ..NOTHING
};

pub(crate) static ADAPTIVE: Section = Section {
    title: "max_in_flight = { … }",
    doc: "An adaptive limit within bounds; `\"adaptive\"` stands for the defaults.",
    keys: &[
        default(
            "least",
            Kind::Count(1, 10_000_000),
            "5",
            "The limit never sinks below it.",
        ),
        default(
            "most",
            Kind::Count(1, 10_000_000),
            "1000",
            "The limit never rises above it.",
        ),
    ],
    ..NOTHING
};

pub(crate) static QUEUE: Section = Section {
    title: "queue = { … }",
    doc: "`queue = \"off\"`: who finds the bulkhead full is refused at once.",
    keys: &[
        default(
            "length",
            Kind::Count(1, 1_000_000),
            "100",
            "How many wait; a full queue sheds its least important for somebody more important.",
        ),
        default(
            "timeout",
            Kind::Rule(&DURATION),
            "\"100ms\"",
            "The longest wait; it counts towards the route's time-out and the caller's deadline.",
        ),
    ],
    ..NOTHING
};

pub(crate) static LEARN: Section = Section {
    title: "learn = { … }",
    doc: "Only with `service = \"*\"`.",
    keys: &[
        default(
            "max_services",
            Kind::Count(1, 5000),
            "200",
            "Services that are known at once; a request for one more is refused.",
        ),
        default(
            "timeout",
            Kind::Rule(&DURATION),
            "\"2s\"",
            "How long a request waits for the control plane at a service's first use; the route's time-out and the caller's \
             deadline end it sooner.",
        ),
        default(
            "forget",
            Kind::Rule(&DURATION),
            "\"168h\"",
            "A service that nobody asked for in this time is forgotten.",
        ),
    ],
    ..NOTHING
};

pub(crate) static ENDPOINT_TABLE: Section = Section {
    title: "{ address = \"…\", … }",
    doc: "An endpoint with more than an address.",
    keys: &[
        required("address", Kind::Rule(&ENDPOINT), "Host and port."),
        default(
            "weight",
            Kind::Count(0, MOST_WEIGHT),
            "1",
            "Its share, compared with the others.",
        ),
        optional("zone", Kind::Rule(&NAME), "Where it stands."),
    ],
    ..NOTHING
};

pub(crate) static UPSTREAM_TLS: Section = Section {
    title: "tls = { … } of an upstream",
    doc: "How the upstream proves itself, and we to it.",
    keys: &[
        default(
            "ca",
            Kind::Rule(&FILE),
            "the system's roots",
            "Authorities that sign the upstream's certificate.",
        ),
        default(
            "name",
            Kind::Rule(&PEER_NAME),
            "the endpoint's host",
            "The name that the certificate must bear, and SNI.",
        ),
        optional("cert", Kind::Rule(&FILE), "Our certificate."),
        optional("key", Kind::Rule(&FILE), "Its private key."),
    ],
    needs: &[("cert", "key"), ("key", "cert")],
    ..NOTHING
};

pub(crate) static BALANCE: Section = Section {
    title: "balance = { hash = { … } }",
    doc: "The same value goes to the same endpoint.",
    keys: &[required("hash", Kind::Table(&HASH), "What is hashed.")],
    ..NOTHING
};

pub(crate) static HASH: Section = Section {
    title: "hash = { … }",
    doc: "What a request is hashed by.",
    keys: &[
        optional("header", Kind::Rule(&HEADER_NAME), "A request header."),
        optional("cookie", Kind::Rule(&COOKIE), "A cookie."),
        optional("client", Kind::Yes, "The client's address."),
        optional("path", Kind::Yes, "The path."),
    ],
    one_of: &[&["header", "cookie", "client", "path"]],
    ..NOTHING
};

pub(crate) static BREAKER: Section = Section {
    title: "[upstream.breaker]",
    doc: "On by default; `breaker = \"off\"` switches it off. Failures are answers from 500, time-outs and broken connections, of every try by itself; in gRPC UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN and DATA_LOSS.",
    keys: &[
        default(
            "failures",
            Kind::Count(1, 1_000_000),
            "5",
            "Failures in a row that open it, at more than half of the endpoints …",
        ),
        default(
            "volume",
            Kind::Count(1, 1_000_000),
            "20",
            "… once this many tries were seen in the window.",
        ),
        default(
            "window",
            Kind::Rule(&WINDOW),
            "\"60s\"",
            "How far back tries are counted.",
        ),
        default(
            "error_rate",
            Kind::Either(&[Kind::Share, OFF]),
            "\"off\"",
            "Opens also when a larger share of the tries in the window failed.",
        ),
        default(
            "open_for",
            Kind::Rule(&DURATION),
            "\"60s\"",
            "How long nothing is sent before it is half-open.",
        ),
        default(
            "probes",
            Kind::Count(1, 10_000),
            "10",
            "Tries that are let through while it is half-open.",
        ),
        default(
            "successes",
            Kind::Count(1, 10_000),
            "3",
            "Of these in a row, to close it; one failure opens it again.",
        ),
        default(
            "grain",
            Kind::Word(&["upstream", "route", "operation"]),
            "\"upstream\"",
            "What has a breaker of its own: the whole upstream, each route that sends to it, or its reads (GET HEAD OPTIONS TRACE) and its writes (all else, so every gRPC call).",
        ),
        default(
            "kind",
            Kind::Word(&["fixed", "adaptive", "percentile"]),
            "\"fixed\"",
            "\"adaptive\": learns which share of tries usually fails, opens also when it is far above that, and each time it opens again soon it stays open twice as long. \"percentile\": opens also when too many answers are slow, slow probes do not close it, and it comes back by a growing share.",
        ),
        default(
            "slow_after",
            Kind::Rule(&DURATION),
            "\"1s\"",
            "With \"percentile\": an answer that was waited for longer than this, from the end of the request to the answer's head, is slow.",
        ),
        default(
            "slow_share",
            Kind::Share,
            "0.05",
            "With \"percentile\": opens when a larger share of the answers in the window was slow, and at least `failures` of them.",
        ),
    ],
    ..NOTHING
};

pub(crate) static RETRY_BUDGET: Section = Section {
    title: "[upstream.retry_budget]",
    doc: "On by default; `retry_budget = \"off\"` switches it off. Shared by all routes to the upstream and all workers.",
    keys: &[
        default(
            "ratio",
            Kind::Share,
            "0.2",
            "Retries allowed for each first try in the window …",
        ),
        default("floor", Kind::Rule(&FLOOR), "\"10/s\"", "… plus this many."),
        default(
            "window",
            Kind::Rule(&WINDOW),
            "\"10s\"",
            "How far back tries are counted.",
        ),
    ],
    ..NOTHING
};

pub(crate) static OUTLIER: Section = Section {
    title: "[upstream.outlier]",
    doc: "On by default; `outlier = \"off\"` switches it off. Never ejects more than half of the endpoints.",
    keys: &[
        default(
            "failures",
            Kind::Count(1, 1_000_000),
            "5",
            "Consecutive failures that eject an endpoint, for 10 s × times ejected.",
        ),
        default(
            "deviation",
            Kind::Either(&[Kind::Share, OFF]),
            "0.3",
            "Ejects an endpoint whose share of failures, among its latest `volume` requests or more, is so much larger than that of the others together. Needs three endpoints with as many requests in the last 10 s.",
        ),
        default(
            "volume",
            Kind::Count(1, 1_000_000),
            "50",
            "Requests in the last 10 s below which an endpoint's share of failures means nothing.",
        ),
    ],
    ..NOTHING
};

pub(crate) static HEALTH: Section = Section {
    title: "[upstream.health]",
    doc: "Active probes of each endpoint.",
    keys: &[
        optional(
            "path",
            Kind::Rule(&SENT_PATH),
            "Asks for this path; 2xx is healthy.",
        ),
        optional(
            "grpc",
            Kind::Text,
            "Asks the gRPC health service about this service.",
        ),
        optional("tcp", Kind::Yes, "Connects only."),
        default(
            "interval",
            Kind::Rule(&DURATION),
            "\"10s\"",
            "Between two probes.",
        ),
        default(
            "timeout",
            Kind::Rule(&DURATION),
            "\"5s\", or the interval where that is shorter",
            "The longest that a probe may take.",
        ),
        default(
            "unhealthy_after",
            Kind::Count(1, 1000),
            "3",
            "Failed probes in a row.",
        ),
        default(
            "healthy_after",
            Kind::Count(1, 1000),
            "1",
            "Good probes in a row.",
        ),
    ],
    one_of: &[&["path", "grpc", "tcp"]],
    ..NOTHING
};

pub(crate) static TEST: Section = Section {
    title: "[[test]]",
    doc: "Given this request, that must come of it. Run by `check`, and on every load before the swap.",
    keys: &[
        required("request", Kind::Table(&REQUEST), "What a client sends."),
        required(
            "expect",
            Kind::Table(&EXPECT),
            "What must come of it; an absent key is not compared.",
        ),
    ],
    ..NOTHING
};

pub(crate) static REQUEST: Section = Section {
    title: "request = { … }",
    doc: "A request, as a client would send it.",
    keys: &[
        default("method", Kind::Rule(&METHOD), "\"GET\"", "The method."),
        optional(
            "host",
            Kind::Text,
            "The host. Absent: one that no route names.",
        ),
        required("path", Kind::Rule(&SENT_PATH), "Path and query."),
        default(
            "headers",
            Kind::Map(&HEADER_NAME, &Kind::Rule(&HEADER_VALUE)),
            "{}",
            "Headers.",
        ),
        default(
            "listener",
            Kind::Rule(&NAME),
            "the first listener",
            "The listener that it comes to.",
        ),
        optional(
            "caller",
            Kind::Rule(&MEMBER),
            "The service that calls, as its certificate proves it; of the namespace `default`, unless it names another. Absent: nobody that is known.",
        ),
        default(
            "service",
            Kind::Rule(&MEMBER),
            "the node's own",
            "The service that is called, for `expect.access`.",
        ),
    ],
    ..NOTHING
};

pub(crate) static EXPECT: Section = Section {
    title: "expect = { … }",
    doc: "What a request leads to.",
    keys: &[
        optional("route", Kind::Rule(&NAME), "The route's name."),
        optional("upstream", Kind::Rule(&NAME), "The upstream's name."),
        optional(
            "status",
            Kind::Count(100, 599),
            "404, 405, or the status of `respond` and `redirect`.",
        ),
        optional(
            "path",
            Kind::Rule(&SENT_PATH),
            "The path that the upstream is sent.",
        ),
        optional(
            "access",
            Kind::Word(&["allowed", "refused"]),
            "What the rules of `[[access]]` say to `caller`. A test has no token, so a rule that asks for one does not allow it.",
        ),
    ],
    ..NOTHING
};
