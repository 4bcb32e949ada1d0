//! `[store]` of a control plane.

use super::rules::{BASE_URL, DURATION, FILE, NAME, PEER_NAME};
use super::sections::{NOTHING, default, optional, required};
use super::{Kind, Section};

pub(crate) static STORE: Section = Section {
    title: "[store]",
    doc: "Where registrations and documents are kept: in `server.state_dir`, for one control plane, or in an etcd \
          cluster (3.4 or newer), for several that share it. Read at start; a change needs a restart.",
    keys: &[
        default(
            "kind",
            Kind::Word(&["embedded", "etcd"]),
            "\"embedded\"",
            "\"embedded\": a file; \"etcd\": the cluster that `endpoints` names.",
        ),
        optional(
            "endpoints",
            Kind::List(&Kind::Rule(&BASE_URL)),
            "Members of the cluster, the preferred one first; with https, see `tls`.",
        ),
        default(
            "prefix",
            Kind::Rule(&NAME),
            "\"tollgate\"",
            "What every key in etcd begins with. Control planes with the same prefix are one.",
        ),
        optional("user", Kind::Text, "Of etcd, where it asks for one."),
        optional(
            "password",
            Kind::Text,
            "Of that user: `\"${env:ETCD_PASSWORD}\"` or `\"${file:…}\"`.",
        ),
        optional(
            "tls",
            Kind::Table(&STORE_TLS),
            "How members with an https URL prove themselves, and we to them.",
        ),
        default(
            "lease",
            Kind::Rule(&DURATION),
            "\"10s\"",
            "Another control plane leads when the leader was not heard for so long, 2s to 60s; the leader stops by itself after two thirds of it.",
        ),
        default(
            "node",
            Kind::Rule(&NAME),
            "the machine's name and the port",
            "What this control plane is called among those that share the store; each has its own name.",
        ),
        optional(
            "advertise",
            Kind::Rule(&BASE_URL),
            "Where the other control planes reach this one, with https:// if there is `server.tls`; absent: `server.bind`, which must then be the address of one machine.",
        ),
        optional(
            "peers",
            Kind::Table(&STORE_TLS),
            "With `server.tls`: how the other control planes prove themselves, and we to them.",
        ),
    ],
    needs: &[("user", "password"), ("password", "user")],
    ..NOTHING
};

pub(crate) static STORE_TLS: Section = Section {
    title: "tls = { … }",
    doc: "PEM files. Those of `peers` are looked at again with every connection.",
    keys: &[
        required(
            "ca",
            Kind::Rule(&FILE),
            "Authorities that sign the certificates of those we call.",
        ),
        optional(
            "cert",
            Kind::Rule(&FILE),
            "What we show: a certificate with its intermediates.",
        ),
        optional("key", Kind::Rule(&FILE), "Its private key."),
        optional(
            "name",
            Kind::Rule(&PEER_NAME),
            "The name that their certificates must have; absent: the host of each URL.",
        ),
    ],
    needs: &[("cert", "key"), ("key", "cert")],
    ..NOTHING
};
