//! Rate limits, tiers and API keys: the sections `[[limit]]`, `[tiers.NAME]` and `[[api_key]]`, and the filter
//! `rate_limit`. As in `sections`, a line here is what the reader accepts, the schema says and the page shows.

use super::rules::*;
use super::sections::{NOTHING, OFF, default, later, optional, required};
use super::{Kind, Section};
use crate::document::MOST_BURST;

pub(super) const RATE_LIMIT: Kind = Kind::Either(&[Kind::Rule(&NAME), Kind::Table(&ROUTE_LIMIT)]);

const BY: Kind = Kind::Either(&[
    Kind::Word(&["client_ip", "api_key", "route", "caller", "host"]),
    Kind::Table(&LIMIT_BY),
]);

const BURST: Kind = Kind::Count(1, MOST_BURST);

pub(super) static LIMIT: Section = Section {
    title: "[[limit]]",
    doc: "A named limit. Routes that name it share its buckets.",
    keys: &[
        required("name", Kind::Rule(&NAME), "The name that filters use."),
        required(
            "by",
            BY,
            "Who has a bucket of their own: each client address (IPv6 by /64), each API key's client, each route, each service that calls (by its certificate; who has none shares one), each host that is asked for, or each value of a header.",
        ),
        required(
            "rate",
            Kind::Rule(&RATE),
            "How many in each span of time come back into the bucket.",
        ),
        default(
            "burst",
            BURST,
            "the count of `rate`",
            "How many a full bucket holds.",
        ),
        default(
            "shared",
            Kind::Flag,
            "false",
            "One bucket for each over all gateways that use the same store: the control plane, or what `[limits]` names.",
        ),
    ],
    ..NOTHING
};

pub(super) static LIMITS: Section = Section {
    title: "[limits]",
    doc: "Where gateways meet to keep limits with `shared = true`. They take tokens out ahead of need; no request waits for \
          the store. Absent: the control plane, where the document has one.",
    keys: &[
        default(
            "store",
            Kind::Text,
            "\"control-plane\"",
            "Who lends the tokens: \"control-plane\", which is whom `[control_plane]` names; or a Redis-compatible server: \"redis://HOST:PORT\", or \"rediss://…\" for TLS; with a password \"redis://:PASSWORD@HOST:PORT\", \
             and a database \"redis://HOST:PORT/1\". Best with `${env:…}` or `${file:…}`.",
        ),
        optional(
            "ca",
            Kind::Rule(&FILE),
            "The authority that signed the store's certificate. Absent: the system's.",
        ),
        default(
            "timeout",
            Kind::Rule(&DURATION),
            "\"250ms\"",
            "A store that does not answer in this time is away.",
        ),
        default(
            "overshoot",
            Kind::Share,
            "0.1",
            "The share of a limit's burst that all gateways together may hold ahead, and so admit beyond the limit. Each may hold at least one token.",
        ),
        default(
            "gateways",
            Kind::Count(1, 10_000),
            "1",
            "How many gateways there are, until the store has told.",
        ),
    ],
    ..NOTHING
};

pub(super) static ROUTE_LIMIT: Section = Section {
    title: "{ rate_limit = { … } }",
    doc: "A limit of this route alone.",
    keys: &[
        required(
            "by",
            BY,
            "Who has a bucket of their own, as in `[[limit]]`.",
        ),
        required(
            "rate",
            Kind::Rule(&RATE),
            "How many in each span of time come back into the bucket.",
        ),
        default(
            "burst",
            BURST,
            "the count of `rate`",
            "How many a full bucket holds.",
        ),
    ],
    ..NOTHING
};

pub(super) static LIMIT_BY: Section = Section {
    title: "by = { … }",
    doc: "What tells clients apart. Requests without it share one bucket.",
    keys: &[
        optional("header", Kind::Rule(&HEADER_NAME), "A request header."),
        later("claim", "A claim of a token."),
    ],
    one_of: &[&["header", "claim"]],
    ..NOTHING
};

pub(super) static TIERS: Section = Section {
    title: "[tiers]",
    doc: "What clients of each tier may have. `anonymous`, `free`, `professional` and `enterprise` are there without being \
          written: 10/m, burst 20, 1000 a month; 100/m, 200, 10000; 1000/m, 2000, 1000000; 10000/m, 20000, without a quota. \
          A tier that is written replaces the one of that name.",
    named: Some((&NAME, &Kind::Table(&TIER))),
    ..NOTHING
};

pub(super) static TIER: Section = Section {
    title: "[tiers.NAME]",
    doc: "One tier. Callers without a known key are `anonymous`, and told apart by their address.",
    keys: &[
        required(
            "rate",
            Kind::Rule(&RATE),
            "How many in each span of time come back into a client's bucket.",
        ),
        default(
            "burst",
            BURST,
            "the count of `rate`",
            "How many a full bucket holds.",
        ),
        default(
            "monthly_quota",
            Kind::Either(&[Kind::Count(1, 1 << 40), OFF]),
            "\"off\"",
            "Requests admitted in a calendar month (UTC). Survives a restart where `server.state_dir` is set.",
        ),
    ],
    ..NOTHING
};

pub(super) static API_KEY: Section = Section {
    title: "[[api_key]]",
    doc: "A client's key, sent in `X-API-Key`. A client may have several keys; all of them are of one tier.",
    keys: &[
        optional(
            "key",
            Kind::Text,
            "The key: 8 to 512 visible characters. Best as `${env:…}` or `${file:…}`.",
        ),
        optional(
            "hash",
            Kind::Rule(&KEY_HASH),
            "The key's SHA-256 instead of the key, as a control plane sends it.",
        ),
        required(
            "client",
            Kind::Rule(&NAME),
            "Who it belongs to; limits and quotas count by this name.",
        ),
        default("tier", Kind::Rule(&NAME), "\"free\"", "The client's tier."),
    ],
    one_of: &[&["key", "hash"]],
    ..NOTHING
};
