//! Who may call: the section `[[jwt]]` and the filters `jwt` and `allow`. As in `sections`, a line here is what the
//! reader accepts, the schema says and the page shows.

use super::rules::*;
use super::sections::{NOTHING, OFF, default, later, optional, required};
use super::{Kind, Section};

const NAMES: Kind = Kind::List(&Kind::Rule(&NAME));

const ALGORITHM: Kind = Kind::Word(&[
    "HS256", "HS384", "HS512", "EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256",
    "PS384", "PS512",
]);

pub(super) static JWT: Section = Section {
    title: "[[jwt]]",
    doc: "An issuer of JSON Web Tokens and how they are checked: signature, `exp`, `nbf`, `iss` and `aud`, all of which but \
          `nbf` must be there. How a token is signed is said by the key, never by the token. The headers that upstreams are \
          told claims in are taken from every client's request, on every route.",
    keys: &[
        required("name", Kind::Rule(&NAME), "The name that filters use."),
        required("issuer", Kind::Rule(&NAME), "What `iss` must be."),
        required(
            "audience",
            Kind::Either(&[Kind::Rule(&NAME), NAMES, OFF]),
            "What `aud` must name, or one of several; \"off\" accepts tokens that were made for anybody.",
        ),
        default(
            "keys",
            Kind::List(&Kind::Table(&JWT_KEY)),
            "[]",
            "Keys that are known here.",
        ),
        optional(
            "jwks",
            Kind::Either(&[Kind::Rule(&JWKS), Kind::Table(&JWKS_SOURCE)]),
            "Where the issuer publishes its keys. Fetched beside the requests, never for one. Until the first fetch has succeeded, \
             the filter answers 503; afterwards keys stay as long as no newer ones come.",
        ),
        default(
            "leeway",
            Kind::Rule(&LAG),
            "\"30s\"",
            "By how much clocks may differ.",
        ),
        default(
            "cache",
            Kind::Count(0, 1_000_000),
            "4096",
            "Verified tokens that each worker remembers, until they expire or a key changes.",
        ),
        default(
            "roles",
            Kind::Rule(&NAME),
            "\"roles\"",
            "The claim that holds the caller's roles: a list, or one. A dot leads into a claim that is an object.",
        ),
        default(
            "permissions",
            Kind::Rule(&NAME),
            "\"permissions\"",
            "The claim that holds the caller's permissions: a list, or words with spaces between them, as `scope` has.",
        ),
        default(
            "grants",
            Kind::Map(&NAME, &NAMES),
            "{}",
            "Permissions that come with a role.",
        ),
        default(
            "headers",
            Kind::Map(&OWN_HEADER, &Kind::Rule(&NAME)),
            "{ x-user-id = \"sub\", x-user-roles = \"roles\", x-user-permissions = \"permissions\", x-tenant-id = \"tenant\" }",
            "Which claim an upstream is told in which header. A list's members stand with commas between them.",
        ),
    ],
    ..NOTHING
};

pub(super) static JWT_KEY: Section = Section {
    title: "keys = [{ … }, …]",
    doc: "A key, and the one algorithm that it is for.",
    keys: &[
        optional(
            "secret",
            Kind::Text,
            "A shared secret of at least as many bytes as its hash has: 32 for HS256. Best as `${env:…}` or `${file:…}`.",
        ),
        optional(
            "file",
            Kind::Rule(&FILE),
            "A public key as PEM, a JWK, or a set of them.",
        ),
        default(
            "algorithm",
            ALGORITHM,
            "what the key says",
            "The one algorithm. Absent: HS256 for a secret; for a file `alg`, or EdDSA, ES256, ES384 or RS256 by the kind of key.",
        ),
        optional(
            "id",
            Kind::Rule(&NAME),
            "What a token's `kid` must be, if it has one. Absent: `kid` of a JWK, else any.",
        ),
    ],
    one_of: &[&["secret", "file"]],
    ..NOTHING
};

pub(super) static JWKS_SOURCE: Section = Section {
    title: "jwks = { … }",
    doc: "A set of public keys over HTTP. Keys of a kind that is not known here, and secrets, are passed over.",
    keys: &[
        required("url", Kind::Rule(&JWKS), "Its URL."),
        optional(
            "ca",
            Kind::Rule(&FILE),
            "The authority that signed the server's certificate. Absent: the system's.",
        ),
        default(
            "refresh",
            Kind::Rule(&DURATION),
            "\"5m\"",
            "From one fetch to the next. A token with an unknown `kid` asks for one sooner, at most every 10 s.",
        ),
    ],
    ..NOTHING
};

pub(super) const JWT_USE: Kind = Kind::Either(&[Kind::Rule(&NAME), Kind::Table(&JWT_FILTER)]);

pub(super) static JWT_FILTER: Section = Section {
    title: "{ jwt = { … } }",
    doc: "`{ jwt = \"users\" }` stands for `{ jwt = { name = \"users\", token = \"required\" } }`.",
    keys: &[
        required("name", Kind::Rule(&NAME), "Of a `[[jwt]]`."),
        default(
            "token",
            Kind::Word(&["required", "optional"]),
            "\"required\"",
            "\"optional\": a request without a token that holds goes on without saying who calls.",
        ),
    ],
    ..NOTHING
};

pub(super) static ALLOW: Section = Section {
    title: "{ allow = { … } }",
    doc: "Everything that is written must hold; of `any_of`, one. Who breaks a rule is answered 403; without a token, 401.",
    keys: &[
        optional("roles", NAMES, "The caller has one of these roles."),
        optional(
            "permissions",
            NAMES,
            "The caller has all of these permissions.",
        ),
        optional(
            "owner",
            Kind::Table(&OWNER),
            "The path names what is the caller's own.",
        ),
        optional(
            "cidr",
            Kind::List(&Kind::Rule(&CIDR)),
            "The client's address is in one of these blocks.",
        ),
        optional(
            "any_of",
            Kind::List(&Kind::Table(&ALLOW_RULE)),
            "Of these rules, one must hold: `any_of = [{ owner = { parameter = \"id\" } }, { roles = [\"admin\"] }]`.",
        ),
        later("peers", "Identities of other services."),
    ],
    ..NOTHING
};

pub(super) static ALLOW_RULE: Section = Section {
    title: "any_of = [{ … }, …]",
    doc: "One rule; everything in it must hold.",
    keys: &[
        optional("roles", NAMES, "The caller has one of these roles."),
        optional(
            "permissions",
            NAMES,
            "The caller has all of these permissions.",
        ),
        optional(
            "owner",
            Kind::Table(&OWNER),
            "The path names what is the caller's own.",
        ),
        optional(
            "cidr",
            Kind::List(&Kind::Rule(&CIDR)),
            "The client's address is in one of these blocks.",
        ),
        later("peers", "Identities of other services."),
    ],
    ..NOTHING
};

pub(super) static OWNER: Section = Section {
    title: "owner = { … }",
    doc: "A part of the path must be what a claim says.",
    keys: &[
        required(
            "parameter",
            Kind::Rule(&PARAMETER),
            "A `{name}` of the route's path, without its braces.",
        ),
        default(
            "claim",
            Kind::Rule(&NAME),
            "\"sub\"",
            "The claim: a text or a whole number.",
        ),
    ],
    ..NOTHING
};
