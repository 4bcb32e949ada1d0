//! Series of this data plane's membership in a mesh: how long its certificate and its authorities last, what became of
//! renewals, and handshakes that failed, by reason (MESH-306). Absent from the page as long as the document names no
//! identity. Handshakes are counted where they happen (`net::tls::Member`); here they are read.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::cell::Shared;
use super::text::{Kind, Text};
use crate::clock::unix_seconds;
use crate::net::tls::{Member, Reason, Side};

#[derive(Debug, Default)]
pub struct IdentitySeries {
    named: Shared,
    member: OnceLock<Arc<Member>>,
    renewed: Shared,
    failed: Shared,
}

impl IdentitySeries {
    /// What is counted, is counted here. There is one in a process.
    pub fn watch(&self, member: &Arc<Member>) {
        self.member.get_or_init(|| member.clone());
    }

    /// Whether the document names an identity.
    pub fn named(&self, named: bool) {
        self.named.set(u64::from(named));
    }

    /// A certificate was asked for.
    pub fn renewed(&self, good: bool) {
        if good { &self.renewed } else { &self.failed }.add(1);
    }

    pub(super) fn write(&self, text: &mut Text) {
        let Some(member) = self.member.get() else {
            return;
        };
        if self.named.value() == 0 {
            return;
        }
        let now = unix_seconds(SystemTime::now());
        text.family(
            "mesh_certificate_expires_in_seconds",
            Kind::Gauge,
            "Until this data plane's certificate expires; 0 when it has, or when there is none.",
        );
        let own = member.own();
        text.sample(
            &[],
            own.map_or(0, |own| own.facts.not_after.saturating_sub(now)),
        );
        text.family(
            "mesh_authority_expires_in_seconds",
            Kind::Gauge,
            "Until an authority that is trusted expires.",
        );
        if let Some(trusted) = member.trusted() {
            for authority in &trusted.authorities {
                let left = authority.not_after.saturating_sub(now);
                text.sample(&[("serial", &authority.serial)], left);
            }
        }
        text.family(
            "mesh_renewals_total",
            Kind::Counter,
            "Times that a certificate was asked for, by what came of it.",
        );
        text.sample(&[("result", "ok")], self.renewed.value());
        text.sample(&[("result", "failed")], self.failed.value());
        text.family(
            "mesh_handshake_failures_total",
            Kind::Counter,
            "Connections between members that did not come about, by reason.",
        );
        for side in Side::ALL {
            for reason in Reason::ALL {
                let count = member.failures(side, *reason);
                if count > 0 {
                    let labels = [("side", side.word()), ("reason", reason.word())];
                    text.sample(&labels, count);
                }
            }
        }
    }
}
