//! `[control_plane]`.

use super::rules::{BASE_URL, ENDPOINT, NAME, PARAMETER, SENT_PATH};
use super::sections::{NOTHING, UPSTREAM_TLS, default, optional, required};
use super::{Kind, Section};

pub(super) static CONTROL_PLANE: Section = Section {
    title: "[control_plane]",
    doc: "Where routes, upstreams, limits, tiers, keys and tests come from besides this file, which keeps `[server]`, \
          listeners and telemetry to itself. What this file names must stand in it; the control plane may name both. \
          Absent: this file is everything.",
    keys: &[
        required(
            "urls",
            Kind::List(&Kind::Rule(&BASE_URL)),
            "Control planes, the preferred one first; with https, see `tls`.",
        ),
        default(
            "node",
            Kind::Rule(&NAME),
            "the machine's name",
            "What the control plane calls this process.",
        ),
        default(
            "kind",
            Kind::Word(&["gateway", "sidecar"]),
            "\"gateway\"",
            "What it is told. \"gateway\": every route that its listeners can serve. \"sidecar\": routes that name its \
             listeners, and upstreams, as far as they concern services that it asked for.",
        ),
        optional(
            "tls",
            Kind::Table(&UPSTREAM_TLS),
            "How a control plane with an https URL proves itself, and we to it.",
        ),
        optional(
            "token",
            Kind::Text,
            "`\"${env:NAME}\"` or `\"${file:PATH}\"`: shown to the control plane. Write https URLs with it.",
        ),
        optional(
            "register",
            Kind::Table(&REGISTER),
            "Announces an instance of a service for as long as this process is ready.",
        ),
    ],
    ..NOTHING
};

pub(super) static REGISTER: Section = Section {
    title: "register = { … }",
    doc: "An instance that others find through the control plane. It is deregistered before this process drains.",
    keys: &[
        required("name", Kind::Rule(&NAME), "The service."),
        optional(
            "address",
            Kind::Rule(&ENDPOINT),
            "Where others reach the instance.",
        ),
        optional(
            "listener",
            Kind::Rule(&NAME),
            "The same, where that is a listener of this file. One that is bound to every address (`0.0.0.0`) is announced \
             with the address that the machine has towards the control plane.",
        ),
        optional(
            "upstream",
            Kind::Rule(&NAME),
            "An upstream of this file with `[upstream.health]`: the instance is announced only while it answers its probes.",
        ),
        default(
            "health",
            Kind::Rule(&SENT_PATH),
            "\"/health/ready\"",
            "The path that tells whether the instance is ready.",
        ),
        optional(
            "metadata",
            Kind::Map(&PARAMETER, &Kind::Text),
            "What others may filter by, such as `{ version = \"1.2.3\", zone = \"b\" }`.",
        ),
    ],
    one_of: &[&["address", "listener"]],
    ..NOTHING
};
