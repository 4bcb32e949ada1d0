//! Who signs in a mesh: the keys of a control plane's authority, as everybody is told of them and as its desk has them, and who is
//! barred.

use serde_json::Value;
use tollgate_config::identity::Trust;
use tollgate_engine::net::tls::Trusted;

use super::control_plane::asked;
use super::finding::Finding;
use super::subjects::Subjects;
use super::wire::{Page, Patience};
use super::{times, trust};
use crate::status::{list, word};

/// The keys of a control plane's authority, and who is barred.
pub(super) fn look(subjects: &Subjects, number: usize) -> Vec<Finding> {
    let Some(target) = subjects.controls.get(number) else {
        return Vec::new();
    };
    let patience = Patience::of(subjects.limit);
    let Some(site) = target.reach(subjects.token.as_ref(), patience).0 else {
        return Vec::new();
    };
    let what = format!("{}, the authority", target.url);
    // What it says of itself to everybody; a key that nobody may use is seen without a token.
    let told = match site.page("/identity/trust") {
        Page::Good(value) => serde_json::from_value::<Trust>(value).ok(),
        _ => return Vec::new(),
    };
    let now = times::now();
    let trusted = told.as_ref().map(Trusted::new);
    let mut found = match trusted {
        Some(Ok(trusted)) => trust::authorities(&what, &trusted, now),
        Some(Err(why)) => vec![Finding::problem(&what, why, "look at its log")],
        None => Vec::new(),
    };
    found.extend(asked(
        &site,
        "/identity",
        "its keys and members",
        |answer| desk(&what, answer),
    ));
    found
}

fn desk(what: &str, answer: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let signs = { list(&answer["authorities"]).iter() }.find(|one| one["phase"] == "signs");
    match signs {
        Some(key) => {
            let left = times::span_words(key["seconds_left"].as_u64().unwrap_or(0));
            let why = format!(
                "key {} signs, good for another {left}; {} services have certificates",
                word(&key["number"]),
                list(&answer["members"]).len()
            );
            found.push(Finding::ok(what, why));
        }
        None => {
            let next = "tollgate identity status; tollgate identity rotate makes one";
            found.push(Finding::problem(what, "no key signs", next));
        }
    }
    for barred in list(&answer["barred"]) {
        let why = format!(
            "{}/{} is barred: it gets no certificates",
            word(&barred["namespace"]),
            word(&barred["service"])
        );
        let next = "tollgate identity allow NAME, where that was not meant to last";
        found.push(Finding::warning(what, why, next));
    }
    found
}
