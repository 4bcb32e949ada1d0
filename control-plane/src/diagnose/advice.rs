//! From facts to what somebody should do about them: one sentence each, the most important first, with the setting that
//! decides and the line of the document that says so.

use crate::registry::{Detail, Health, State};

use super::reach::{MOST, Why};
use super::{Advice, Balancing, Facts, Resolution};

/// More of a kind are counted.
const MOST_OF_A_KIND: usize = 5;

pub(super) fn advice(
    facts: &Facts<'_>,
    resolution: &Resolution,
    balancing: &Balancing,
) -> Vec<Advice> {
    let mut advice = Vec::new();
    if facts.details.is_empty() {
        advice.push(missing(facts));
    }
    let mut instances: Vec<Advice> = Vec::new();
    for detail in &facts.details {
        instances.extend(of_instance(facts, detail));
    }
    let more = instances.len().saturating_sub(MOST_OF_A_KIND);
    advice.extend(instances.into_iter().take(MOST_OF_A_KIND));
    if more > 0 {
        let text = format!("{more} more instances are in trouble: `instances` has all of them");
        advice.push(plain(text, None));
    }
    let held = facts.details.iter().filter(|detail| detail.held).count();
    if held > 0 {
        let service = facts.service;
        let text = format!(
            "{held} instances are silent but still in lookups, because too many of the service fell silent at once \
             (more than {} of it); if they are really gone, POST /services/{service}/confirm",
            facts.rules.lifecycle.loss_share
        );
        advice.push(plain(text, Some("registry.loss_share")));
    }
    if !resolution.equals_registry {
        let text = "lookups and the registry disagree, which is a fault of the control plane: please report it with \
                    /debug/registry/health";
        advice.push(plain(text.to_owned(), None));
    }
    if facts.details.len() > MOST {
        let text = format!("only the first {MOST} instances were looked at");
        advice.push(plain(text, None));
    }
    advice.extend(of_upstreams(facts, balancing));
    advice
}

fn plain(text: String, setting: Option<&'static str>) -> Advice {
    Advice {
        text,
        setting,
        place: None,
    }
}

fn missing(facts: &Facts<'_>) -> Advice {
    let service = facts.service;
    let mut known: Vec<&str> = facts.others.iter().map(|name| &**name).collect();
    // Those that look alike first: a name is more often mistyped than not registered.
    known.sort_by_key(|name| distance(name, service));
    known.truncate(10);
    let known = match known.is_empty() {
        true => "nothing is registered at all".to_owned(),
        false => format!("registered are {}", known.join(", ")),
    };
    let text = format!(
        "no instance of `{service}` is registered ({known}); let it announce itself, with POST /register or with \
         `[control_plane] register = {{ name = \"{service}\", address = \"…\" }}` of a gateway"
    );
    plain(text, Some("control_plane.register"))
}

/// What is wrong with one instance: the first cause, not what follows from it.
fn of_instance(facts: &Facts<'_>, detail: &Detail) -> Option<Advice> {
    let record = &detail.seen.record;
    let (id, address, path) = (&record.id, &record.address, &record.health_endpoint);
    let beat = &facts.rules.lifecycle;
    let test = facts.tests.get(id);
    if let Some(Err(why)) = test.map(|test| &test.connected) {
        let text = match why {
            Why::Refused => format!(
                "{address} ({id}) refuses connections: nothing listens there; start it, or let it register with the \
                 address that it listens on"
            ),
            Why::TimedOut => format!(
                "{address} ({id}) does not answer a connection: look for a firewall between it and the control plane, \
                 or for an address that only it can use"
            ),
            Why::Other(words) => format!("{address} ({id}) cannot be connected to: {words}"),
        };
        return Some(plain(text, None));
    }
    match test.and_then(|test| test.probed.as_ref()) {
        Some(Ok((404, _))) => {
            let text = format!(
                "{id} has no page {path}: let it register with the `health_endpoint` that it has"
            );
            return Some(plain(text, Some("health_endpoint")));
        }
        Some(Ok((status, _))) if *status >= 400 => {
            let text = format!(
                "{id} answers {status} to GET {path}: it says itself that it is not ready; look into its own log"
            );
            return Some(plain(text, Some("health_endpoint")));
        }
        Some(Err(Why::TimedOut)) => {
            let text = format!(
                "{id} takes the connection but does not answer GET {path} in time: it hangs, or is overloaded"
            );
            return Some(plain(text, Some("probe.timeout")));
        }
        Some(Err(why)) => {
            let text = format!(
                "{id} does not answer GET {path} in HTTP ({}): if it speaks something else, let it register with the \
                 metadata `protocol`",
                why.words()
            );
            return Some(plain(text, Some("metadata.protocol")));
        }
        _ => {}
    }
    if !record.health.serves() {
        let word = record.health.word();
        let text = match record.health {
            Health::Unknown => format!(
                "{id} has registered as not ready (`{word}`) and was not heard to be ready since: its heartbeats must \
                 say `healthy`"
            ),
            _ => format!("{id} says of itself that it is `{word}`; look into its own log"),
        };
        return Some(plain(text, None));
    }
    if detail.age >= beat.suspect_after {
        let text = format!(
            "nothing was heard of {id} for {} s, but it answers: its heartbeats (every {} s) do not arrive; look \
             whether it still sends them, and to which address",
            detail.age.as_secs(),
            beat.heartbeat.as_secs()
        );
        return Some(plain(text, Some("registry.suspect_after")));
    }
    let (failing, observers) = detail.observers;
    if failing > 0 {
        let text = format!(
            "{failing} of {observers} data planes see {id} fail, though it answers the control plane: look at its \
             answers to real requests, and at the network between them"
        );
        return Some(plain(text, Some("registry.observation_nodes")));
    }
    if matches!(detail.seen.state, State::Draining) {
        let text = format!(
            "{id} is well now; it returns to lookups after {} good probes, one each {} s",
            facts.rules.probe.successes,
            facts.rules.probe.interval.as_secs()
        );
        return Some(plain(text, Some("probe.successes")));
    }
    None
}

fn of_upstreams(facts: &Facts<'_>, balancing: &Balancing) -> Vec<Advice> {
    let mut advice = Vec::new();
    for (upstream, covered) in facts.upstreams.iter().zip(&balancing.upstreams) {
        if covered.left_out.is_empty() {
            continue;
        }
        let (count, all) = (covered.left_out.len(), facts.resolved.len());
        let name = &upstream.name;
        let with: Vec<String> = { upstream.with.iter() }
            .map(|(key, value)| format!("{key} = \"{value}\""))
            .collect();
        let text = match with.is_empty() {
            true => format!(
                "{count} of {all} instances get nothing from upstream `{name}`: their metadata says `weight` 0"
            ),
            false => format!(
                "{count} of {all} instances get nothing from upstream `{name}`: it wants {}, and they have other \
                 metadata, or the `weight` 0",
                with.join(", ")
            ),
        };
        // Chosen on purpose as long as something is left.
        if covered.endpoints == 0 {
            advice.push(Advice {
                text,
                setting: Some(match with.is_empty() {
                    true => "metadata.weight",
                    false => "upstream.with",
                }),
                place: Some(covered.place.clone()),
            });
        }
    }
    advice
}

/// How many letters are different, roughly: enough to put what looks alike first.
fn distance(one: &str, other: &str) -> usize {
    let head = one.bytes().zip(other.bytes());
    let head = head.take_while(|(a, b)| a == b).count();
    let tail = one.bytes().rev().zip(other.bytes().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    one.len().max(other.len()).saturating_sub(head + tail)
}
