//! Sections of a control plane's document about who may do what: `[[token]]`, and TLS of its address.

use super::rules::{FILE, KEY_HASH, NAME};
use super::sections::{NOTHING, optional, required};
use super::{Kind, Section};

pub(super) static TOKEN: Section = Section {
    title: "[[token]]",
    doc: "Who may do what. As long as there is none, whoever reaches the address may do everything, and the address must \
          be on loopback. Read again on SIGHUP: a token that is taken out is refused from then on, and its feeds end.",
    keys: &[
        required(
            "name",
            Kind::Rule(&NAME),
            "What the audit log calls whoever has it.",
        ),
        required(
            "role",
            Kind::Word(&["read", "operate", "administer", "node", "service"]),
            "What it is good for; control-plane.md has the table.",
        ),
        optional(
            "token",
            Kind::Text,
            "`\"${env:NAME}\"` or `\"${file:PATH}\"`: 20 to 512 visible ASCII characters, of which only the hash is kept.",
        ),
        optional("hash", Kind::Rule(&KEY_HASH), "Its SHA-256 instead."),
        optional(
            "service",
            Kind::Rule(&NAME),
            "The one service that it may speak for; required for the role `service`, welcome for `node`.",
        ),
        optional(
            "node",
            Kind::Rule(&NAME),
            "Of the role `node`: the one node that it may be. Absent: any.",
        ),
    ],
    one_of: &[&["token", "hash"]],
    ..NOTHING
};

pub(super) static TLS: Section = Section {
    title: "tls = { … } of the control plane",
    doc: "Encrypts `bind`: then nothing but TLS is served there. The files are looked at every 2 s, and what is new in \
          them is used for new connections.",
    keys: &[
        required(
            "cert",
            Kind::Rule(&FILE),
            "The certificate, then its issuers.",
        ),
        required("key", Kind::Rule(&FILE), "Its private key."),
        optional(
            "client_ca",
            Kind::Rule(&FILE),
            "Authorities: whoever comes must show a certificate that one of them signed.",
        ),
    ],
    ..NOTHING
};
