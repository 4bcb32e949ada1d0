//! `identity token | status | revoke | allow | rotate`: the authority of a mesh, for whoever runs it. A token is printed
//! alone, so that it can be written into a file.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::control::{Asked, ask, ended, unless_empty};
use crate::inspect::escaped;
use crate::status::{list, word};
use crate::table::{row, table};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    wish: Wish,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Subcommand)]
enum Wish {
    /// Makes a token with which one process may join the mesh as a service, once. Prints it, and keeps it nowhere.
    Token {
        #[command(flatten)]
        service: Service,
        /// How long it is good, such as `1h`; otherwise as the control plane's `identity.token_lifetime` says.
        #[arg(long = "for", value_name = "TIME")]
        lifetime: Option<String>,
    },
    /// Keys of the authority, members and how long their certificates are good, who is barred, tokens that are out.
    Status {
        /// Every certificate of one service instead.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
    /// A certificate, or all of a service, count no more; every member is told at once.
    Revoke {
        /// The serial number of a certificate.
        #[arg(conflicts_with = "service", required_unless_present = "service")]
        serial: Option<String>,
        /// All that were issued to this service so far.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// And the service gets no other until it is allowed.
        #[arg(long)]
        bar: bool,
    },
    /// A service that was barred gets certificates again.
    Allow {
        /// The service's name.
        name: String,
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
    /// Announces another key of the authority; it signs when all members know it.
    Rotate {
        /// How long members know it before it signs; otherwise as the control plane's `identity.overlap` says.
        #[arg(long, value_name = "TIME")]
        overlap: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Service {
    /// The service's name.
    #[arg(long, value_name = "NAME")]
    service: String,
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
}

pub(crate) fn identity(arguments: &Arguments) -> ExitCode {
    let asked = &arguments.asked;
    let post = |page: &str, body: Value| {
        let page = format!("/identity/{page}");
        ask(asked, "POST", &page, &body.to_string())
    };
    match &arguments.wish {
        Wish::Token { service, lifetime } => {
            let Service { service, namespace } = service;
            let mut body = json!({ "service": service, "namespace": namespace });
            if let Some(lifetime) = lifetime {
                body["for"] = lifetime.as_str().into();
            }
            let answer = post("token", body);
            // What is no token goes elsewhere: `tollgate identity token … > file` holds the token alone.
            if let Ok(made) = answer.as_ref()
                && !asked.json
            {
                let (identity, until) = (word(&made["identity"]), word(&made["until"]));
                eprintln!("for {identity}, once, until {until}");
            }
            ended(asked, answer, |made| format!("{}\n", word(&made["token"])))
        }
        Wish::Status { service, namespace } => {
            let mut path = "/identity".to_owned();
            if let Some(service) = service {
                let (service, namespace) = (escaped(service), escaped(namespace));
                let _infallible = write!(path, "?service={service}&namespace={namespace}");
            }
            let answer = ask(asked, "GET", &path, "");
            ended(asked, answer, told)
        }
        Wish::Revoke {
            serial,
            service,
            namespace,
            bar,
        } => {
            let mut body = json!({ "bar": bar });
            match (serial, service) {
                (Some(serial), _) => body["serial"] = serial.as_str().into(),
                (None, service) => {
                    body["service"] = service.as_deref().into();
                    body["namespace"] = namespace.as_str().into();
                }
            }
            ended(asked, post("revoke", body), |done| {
                let barred = match done["barred"] == true {
                    true => "; the service gets no other until `tollgate identity allow`",
                    false => "",
                };
                format!(
                    "{} revoked{barred}\n",
                    many(&done["revoked"], "certificate")
                )
            })
        }
        Wish::Allow { name, namespace } => {
            let body = json!({ "service": name, "namespace": namespace });
            ended(asked, post("allow", body), |done| {
                match done["was_barred"] == true {
                    true => format!("{} may join again\n", word(&done["identity"])),
                    false => format!("{} was not barred\n", word(&done["identity"])),
                }
            })
        }
        Wish::Rotate { overlap } => {
            let mut body = json!({});
            if let Some(overlap) = overlap {
                body["overlap"] = overlap.as_str().into();
            }
            ended(asked, post("rotate", body), |done| {
                let from = word(&done["signs_from"]);
                format!("another key is announced, and signs from {from} on\n")
            })
        }
    }
}

fn many(count: &Value, what: &str) -> String {
    match count.as_u64() {
        Some(1) => format!("1 {what}"),
        count => format!("{} {what}s", count.unwrap_or(0)),
    }
}

/// Time left, in the largest unit that says enough.
fn left(seconds: &Value) -> String {
    let seconds = seconds.as_u64().unwrap_or(0);
    match seconds {
        0 => "ended".to_owned(),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn told(answer: &Value) -> String {
    let mut text = format!(
        "trust domain {}, {} revoked\n\n",
        word(&answer["trust_domain"]),
        many(&answer["revoked"], "certificate"),
    );
    let mut rows = vec![row(&[
        "KEY",
        "STATE",
        "LEFT",
        "SINCE",
        "THEN",
        "FINGERPRINT",
    ])];
    for one in list(&answer["authorities"]) {
        let then = match (one["signs_from"].as_str(), one["trusted_until"].as_str()) {
            (Some(from), _) => format!("signs from {from} on"),
            (None, Some(until)) => format!("trusted until {until}"),
            (None, None) => String::new(),
        };
        let own = if one["own"] == true { ", in files" } else { "" };
        let fingerprint: String = word(&one["fingerprint"]).chars().take(16).collect();
        rows.push(row(&[
            &word(&one["number"]),
            &format!("{}{own}", word(&one["phase"])),
            &left(&one["seconds_left"]),
            &word(&one["made"]),
            &then,
            &fingerprint,
        ]));
    }
    text += &table("", &rows);
    text.push('\n');
    let all = !answer["certificates"].is_null();
    let (key, count) = match all {
        true => ("certificates", "REVOKED"),
        false => ("members", "CERTIFICATES"),
    };
    let mut rows = vec![row(&[
        "NAMESPACE",
        "SERVICE",
        "LEFT",
        count,
        "PROOF",
        "ADDRESS",
        "SERIAL",
    ])];
    for one in list(&answer[key]) {
        let count = match (all, one["revoked"] == true) {
            (true, true) => "yes".to_owned(),
            (true, false) => "no".to_owned(),
            (false, true) => format!("{}, revoked", word(&one["certificates"])),
            (false, false) => word(&one["certificates"]),
        };
        rows.push(row(&[
            &word(&one["namespace"]),
            &word(&one["service"]),
            &left(&one["seconds_left"]),
            &count,
            &word(&one["proof"]),
            &word(&one["address"]),
            &word(&one["serial"]),
        ]));
    }
    text += &unless_empty(&rows, "nobody has a certificate\n");
    for one in list(&answer["tokens"]) {
        let _infallible = writeln!(
            text,
            "token out    {}/{}, {} left, by {}",
            word(&one["namespace"]),
            word(&one["service"]),
            left(&one["seconds_left"]),
            word(&one["by"]),
        );
    }
    for one in list(&answer["barred"]) {
        let _infallible = writeln!(
            text,
            "barred       {}/{}, since {}, by {}",
            word(&one["namespace"]),
            word(&one["service"]),
            word(&one["since"]),
            word(&one["by"]),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_members_tokens_and_who_is_barred_are_told() {
        let answer = json!({
            "trust_domain": "shop.example", "revoked": 1,
            "authorities": [
                { "number": 1, "phase": "signs", "seconds_left": 864_000, "made": "t1", "own": false, "fingerprint": "0123456789abcdef0123" },
                { "number": 2, "phase": "announced", "seconds_left": 900_000, "made": "t2", "own": false, "signs_from": "t3", "fingerprint": "ff" },
            ],
            "members": [{ "namespace": "default", "service": "orders", "seconds_left": 50_000, "certificates": 2,
                "proof": "renewal", "address": "10.0.0.7", "serial": "4f", "revoked": false }],
            "tokens": [{ "namespace": "default", "service": "users", "seconds_left": 90, "by": "ada" }],
            "barred": [{ "namespace": "default", "service": "eve", "since": "t4", "by": "ada" }],
        });
        let text = told(&answer);
        for part in [
            "trust domain shop.example, 1 certificate revoked\n",
            "signs from t3 on",
            "0123456789abcdef\n",
            "10d",
            "13h",
            "token out    default/users, 90s left, by ada\n",
            "barred       default/eve, since t4, by ada\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let nobody = json!({ "trust_domain": "a", "revoked": 0, "authorities": [], "members": [] });
        assert!(told(&nobody).contains("nobody has a certificate"));
    }
}
