//! How it stands with the issuers of tokens: which keys there are, and what became of fetching those that are published.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::clock::unix_seconds;
use crate::exchange::headers::http_date;
use crate::filter::jwt::Issuer;

pub(super) fn status(issuer: &Issuer) -> Value {
    let item = issuer.item();
    let published = issuer.learned().map(|learned| {
        let standing = learned.standing();
        let date = |time: SystemTime| http_date(unix_seconds(time));
        json!({
            "url": learned.url().text,
            "keys": learned.count(),
            "since": standing.since.map(date),
            "fetches": standing.fetches,
            "failures": standing.failures,
            "error": standing.error,
        })
    });
    json!({
        "name": item.name,
        "issuer": item.issuer,
        "keys": issuer.own_keys(),
        "published": published,
    })
}
