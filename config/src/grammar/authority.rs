//! `[identity]` of a control plane: the authority of a mesh.

use super::rules::{DURATION, FILE, FULL_MEMBER, LAG, NAME, TRUST_DOMAIN};
use super::sections::{NOTHING, default, optional, required};
use super::{Kind, Section};

pub(super) static IDENTITY: Section = Section {
    title: "[identity]",
    doc: "The authority of a mesh: signs certificates that say which service somebody is. Read at start; a change needs \
          a restart.",
    keys: &[
        default(
            "enabled",
            Kind::Flag,
            "true",
            "Whether certificates are signed here.",
        ),
        default(
            "trust_domain",
            Kind::Rule(&TRUST_DOMAIN),
            "\"tollgate.local\"",
            "What every identity begins with: `spiffe://tollgate.local/ns/default/svc/orders`. It cannot change while \
             there are members.",
        ),
        default(
            "certificate_lifetime",
            Kind::Rule(&DURATION),
            "\"24h\"",
            "How long a member's certificate is good; it is renewed long before.",
        ),
        default(
            "authority_lifetime",
            Kind::Rule(&DURATION),
            "\"8760h\"",
            "The same for the authority's own; its successor takes over in time, by itself.",
        ),
        default(
            "overlap",
            Kind::Rule(&LAG),
            "\"24h\"",
            "How long members know a new key of the authority before it signs. At least `certificate_lifetime` reaches \
             also those that hear of it only when they renew.",
        ),
        default(
            "token_lifetime",
            Kind::Rule(&DURATION),
            "\"1h\"",
            "How long a join token is good, unless `tollgate identity token --for` says otherwise.",
        ),
        default(
            "grace",
            Kind::Rule(&LAG),
            "\"0s\"",
            "How long after its end a certificate may still be renewed with its key, by members that were away.",
        ),
        optional(
            "cert",
            Kind::Rule(&FILE),
            "A certificate of your own to sign with, then its issuers. Absent: a key that is made at the first start and \
             kept in the store.",
        ),
        optional(
            "key",
            Kind::Rule(&FILE),
            "Its private key; never copied into the store.",
        ),
        optional(
            "roots",
            Kind::Rule(&FILE),
            "Whom members trust then. Absent: the last certificate in `cert`.",
        ),
        optional(
            "kubernetes",
            Kind::Table(&KUBERNETES),
            "Whose service-account tokens are a proof. Absent: nobody's.",
        ),
    ],
    needs: &[("cert", "key"), ("key", "cert"), ("roots", "cert")],
    ..NOTHING
};

static KUBERNETES: Section = Section {
    title: "[identity.kubernetes]",
    doc: "A pod proves who it is with its projected service-account token.",
    keys: &[
        required(
            "issuer",
            Kind::Rule(&NAME),
            "What `iss` of a token must be, as `kubectl get --raw /.well-known/openid-configuration` tells it.",
        ),
        default(
            "audience",
            Kind::Rule(&NAME),
            "\"tollgate\"",
            "What `aud` of a token must hold, so that a token for somebody else is none for us.",
        ),
        required(
            "keys",
            Kind::Rule(&FILE),
            "The cluster's public keys (RS256, ES256): `kubectl get --raw /openid/v1/jwks`, or PEM. Looked at again every 2 s.",
        ),
        optional(
            "services",
            Kind::Map(&FULL_MEMBER, &Kind::Rule(&FULL_MEMBER)),
            "Which service an account is, `\"namespace/account\" = \"namespace/service\"`. One that is not named is the \
             service with the account's name, in its namespace.",
        ),
    ],
    ..NOTHING
};
