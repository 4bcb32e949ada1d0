//! `[identity]`, and `mesh` at a listener and at an upstream.

use super::rules::{FILE, MEMBER, NAMESPACE, SEGMENT};
use super::sections::{NOTHING, default, optional, required};
use super::{Key, Kind, Section};

pub(super) static IDENTITY: Section = Section {
    title: "[identity]",
    doc: "This data plane is a member of the mesh: it has a certificate that names its service, proves itself with it \
          where `mesh` is set, and renews it in time. The authority of the control plane signs it; with \
          `server.state_dir` the certificate, its key and whom to trust are kept for the next process. Or `cert`, `key` \
          and `ca` name files that somebody else renews; they are read again when they change.",
    keys: &[
        required(
            "service",
            Kind::Rule(&SEGMENT),
            "The service that the certificate names.",
        ),
        default(
            "namespace",
            Kind::Rule(&NAMESPACE),
            "\"default\"",
            "The namespace that the certificate names.",
        ),
        optional(
            "token",
            Kind::Text,
            "`\"${env:NAME}\"` or `\"${file:PATH}\"`: a join token, used once; then the certificate itself renews.",
        ),
        optional(
            "kubernetes_token",
            Kind::Rule(&FILE),
            "A file with a service-account token, read at each asking.",
        ),
        optional(
            "cert",
            Kind::Rule(&FILE),
            "The certificate, followed by its intermediates.",
        ),
        optional("key", Kind::Rule(&FILE), "Its private key."),
        optional(
            "ca",
            Kind::Rule(&FILE),
            "The authorities that sign the mesh's certificates.",
        ),
    ],
    rivals: &[&["token", "kubernetes_token", "cert"]],
    needs: &[("cert", "key"), ("key", "ca"), ("ca", "cert")],
    ..NOTHING
};

pub(super) const LISTENER_MESH: Key = default(
    "mesh",
    Kind::Word(&["strict", "permissive", "off"]),
    "\"off\"",
    "\"strict\": members of the mesh only, by mutual TLS. \"permissive\": both mutual TLS and clear text, told apart by \
     the first byte. Needs `[identity]`; not together with `tls`.",
);

static PEER: [Kind; 2] = [Kind::Yes, Kind::Rule(&MEMBER)];

pub(super) const UPSTREAM_MESH: Key = optional(
    "mesh",
    Kind::Either(&PEER),
    "Mutual TLS with members: `true` means the one that `service` names; a name, such as \"payments\" or \
     \"other-namespace/payments\", goes with any source of endpoints. Needs `[identity]`; not together with `tls`.",
);
