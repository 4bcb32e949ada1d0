//! Every section and key of the short file that a sidecar is told with. What else such a file holds are sections of a
//! full document, which are in `sections`.

use super::rules::*;
use super::sections::{HEALTH, NOTHING, default, optional, required};
use super::{Kind, Section, Top};

/// The sections that a full document does not know. Whichever of them a text holds makes it a short one.
pub(crate) static TOP: &[Top] = &[
    Top {
        name: "service",
        list: false,
        section: Some(&SERVICE),
        doc: "",
    },
    Top {
        name: "inbound",
        list: false,
        section: Some(&INBOUND),
        doc: "",
    },
    Top {
        name: "outbound",
        list: false,
        section: Some(&OUTBOUND),
        doc: "",
    },
    Top {
        name: "capture",
        list: false,
        section: Some(&CAPTURE),
        doc: "",
    },
];

pub(crate) static SERVICE: Section = Section {
    title: "[service]",
    doc: "The application that the sidecar stands beside.",
    keys: &[
        required(
            "name",
            Kind::Rule(&SERVICE_NAME),
            "The service, as others call it.",
        ),
        optional(
            "app",
            Kind::Rule(&ENDPOINT),
            "Where the application listens, best on loopback only.",
        ),
        optional(
            "port",
            Kind::Count(1, 65535),
            "The same, where that is a port of 127.0.0.1.",
        ),
        default(
            "protocol",
            Kind::Word(&["http1", "http2", "tcp", "detect"]),
            "\"http1\"",
            "What the application speaks; gRPC needs \"http2\". \"detect\" is \"http1\", and bytes as they come where a \
             caller speaks something else. A protocol in which the server speaks first needs \"tcp\".",
        ),
        optional(
            "address",
            Kind::Rule(&ENDPOINT),
            "Where other sidecars reach this one. Absent: the machine's address towards the control plane, and the \
             port of `[inbound]`.",
        ),
        default(
            "ready",
            Kind::Either(&[Kind::Rule(&SENT_PATH), Kind::Table(&HEALTH)]),
            "{ tcp = true, interval = \"1s\" }",
            "How the application tells that it is ready: a path that answers 2xx, or a table as `[upstream.health]` has \
             it. The service is announced only while it does.",
        ),
        optional(
            "metadata",
            Kind::Map(&PARAMETER, &Kind::Text),
            "What others may choose instances by, such as `{ version = \"1.2.3\" }`.",
        ),
    ],
    one_of: &[&["app", "port"]],
    ..NOTHING
};

pub(crate) static INBOUND: Section = Section {
    title: "[inbound]",
    doc: "The door through which others reach the application.",
    keys: &[
        default(
            "bind",
            Kind::Rule(&BIND),
            "\"0.0.0.0:15006\"",
            "IP address and port; port 0 takes a free one.",
        ),
        default(
            "mesh",
            Kind::Word(&["strict", "permissive", "off"]),
            "\"strict\" with `[identity]`, else \"off\"",
            "\"strict\": members of the mesh only, over mutual TLS. \"permissive\": clear text too, while services move. \
             \"off\": clear text, here and towards others.",
        ),
        default(
            "access",
            Kind::Word(&["enforce", "audit", "off"]),
            "\"audit\" with `mesh`, else \"off\"",
            "What `[[access]]` rules do: \"enforce\" refuses whatever no rule allows; \"audit\" lets it pass, counts it and \
             logs it.",
        ),
        optional(
            "limit",
            Kind::Rule(&RATE),
            "The most requests that the application gets, from all callers together.",
        ),
    ],
    ..NOTHING
};

pub(crate) static OUTBOUND: Section = Section {
    title: "[outbound]",
    doc: "The door through which the application reaches other services, by their names.",
    keys: &[
        default(
            "bind",
            Kind::Rule(&BIND),
            "\"127.0.0.1:15001\"",
            "IP address and port. Whoever reaches it speaks as this service: keep it on loopback.",
        ),
        optional(
            "services",
            Kind::List(&Kind::Rule(&SERVICE_NAME)),
            "Services that are followed from the start. Others are, from their first use on.",
        ),
        optional(
            "limit",
            Kind::Rule(&RATE),
            "The most requests that the application sends, to all services together.",
        ),
        optional(
            "port",
            Kind::List(&Kind::Table(&PORT)),
            "Addresses that stand for one service each, written `[[outbound.port]]`.",
        ),
    ],
    ..NOTHING
};

pub(crate) static PORT: Section = Section {
    title: "[[outbound.port]]",
    doc: "A local address that stands for one service, for clients that can be told an address and nothing else.",
    keys: &[
        required("listen", Kind::Rule(&BIND), "IP address and port."),
        required(
            "service",
            Kind::Rule(&SERVICE_NAME),
            "The service behind it.",
        ),
        default(
            "protocol",
            Kind::Word(&["auto", "tcp"]),
            "\"auto\"",
            "What is spoken there: \"auto\" is HTTP/1.1, HTTP/2 and gRPC; \"tcp\" is bytes as they come.",
        ),
    ],
    ..NOTHING
};

pub(crate) static CAPTURE: Section = Section {
    title: "[capture]",
    doc: "Connections that the kernel redirects to the sidecar, so that the application needs no setting. \
          `tollgate-sidecar capture install` installs the rules; Linux only.",
    keys: &[
        default(
            "enabled",
            Kind::Flag,
            "true",
            "Whether both doors take connections that were redirected to them.",
        ),
        optional(
            "user",
            Kind::Either(&[Kind::Count(0, 4_294_967_294), Kind::Text]),
            "The user that the sidecar runs as, by name or number: what it sends is never redirected. Absent: who installs the rules.",
        ),
        optional(
            "exclude_inbound",
            Kind::List(&Kind::Count(1, 65535)),
            "Ports of this machine that stay as they are, such as 22.",
        ),
        optional(
            "exclude_outbound",
            Kind::List(&Kind::Count(1, 65535)),
            "Ports of others that are reached directly.",
        ),
        optional(
            "exclude_cidrs",
            Kind::List(&Kind::Rule(&CIDR)),
            "Blocks of addresses that are reached directly.",
        ),
    ],
    ..NOTHING
};
