//! Rules about who may call whom in a mesh: the section `[[access]]`. As in `sections`, a line here is what the reader
//! accepts, the schema says and the page shows.

use super::rules::*;
use super::sections::{NOTHING, optional, required};
use super::{Kind, Section};

const NAMES: Kind = Kind::List(&Kind::Rule(&NAME));

static VALUES: Kind = Kind::Either(&[Kind::Text, Kind::List(&Kind::Text)]);

pub(super) static ACCESS: Section = Section {
    title: "[[access]]",
    doc: "Who may call what, by the names that certificates prove. Each service applies those about itself, on routes with the \
          filter `access`. Rules only allow: what none of them allows is refused. Everything that is written must hold.",
    keys: &[
        required(
            "name",
            Kind::Rule(&NAME),
            "What refusals, metrics and explanations call it.",
        ),
        required(
            "from",
            Kind::Either(&[Kind::Rule(&MEMBERS), Kind::List(&Kind::Rule(&MEMBERS))]),
            "The callers: a service of the callee's own namespace (\"orders\"), of another (\"shop/orders\"), all of one (\"shop/*\"), or \"*\" for every member.",
        ),
        optional(
            "to",
            Kind::Rule(&MEMBERS),
            "The callee: \"payments\" in any namespace, or \"shop/payments\". Absent: every service.",
        ),
        optional(
            "methods",
            Kind::List(&Kind::Rule(&METHOD)),
            "Any of these methods. Absent: all.",
        ),
        optional(
            "path",
            Kind::Either(&[Kind::Rule(&PATH), Kind::List(&Kind::Rule(&PATH))]),
            "Such as \"/orders/{id}\" or \"/orders/*\", as in a route's match, or a list of them. Absent: all.",
        ),
        optional(
            "grpc",
            Kind::Either(&[
                Kind::Rule(&GRPC_METHOD),
                Kind::List(&Kind::Rule(&GRPC_METHOD)),
            ]),
            "A gRPC method, \"payments.v1.PaymentsService/ProcessPayment\", all of a service, \"payments.v1.PaymentsService/*\", or a list of them.",
        ),
        optional(
            "roles",
            NAMES,
            "A token that a filter `jwt` verified says that the person has one of these roles.",
        ),
        optional(
            "permissions",
            NAMES,
            "The token says that the person has all of these permissions.",
        ),
        optional(
            "claims",
            Kind::Map(&NAME, &VALUES),
            "The token has these claims, each with the value, or one of the values: `claims = { tenant = \"acme\" }`.",
        ),
    ],
    rivals: &[&["path", "grpc"], &["methods", "grpc"]],
    ..NOTHING
};
