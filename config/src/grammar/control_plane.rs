//! `[control_plane]`.

use super::rules::{BASE_URL, NAME};
use super::sections::{NOTHING, UPSTREAM_TLS, default, later, optional, required};
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
        optional(
            "tls",
            Kind::Table(&UPSTREAM_TLS),
            "How a control plane with an https URL proves itself, and we to it.",
        ),
        later(
            "register",
            "Announces a service for as long as this process is ready.",
        ),
    ],
    ..NOTHING
};
