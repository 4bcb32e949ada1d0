//! What `up` says once everything serves: where things are, and what to try.

use std::path::Path;

use crate::table::{row, table};

/// Where the parts are reached, as URLs.
pub(super) struct Places {
    pub(super) gateway: String,
    pub(super) admin: String,
    pub(super) control: String,
}

pub(super) fn greeting(places: &Places, folder: &Path, control_pid: Option<u32>) -> String {
    let Places {
        gateway,
        admin,
        control,
    } = places;
    let program = std::env::args()
        .next()
        .filter(|program| !program.contains([' ', '\'', '"']))
        .unwrap_or_else(|| "tollgate".to_owned());
    let document = folder.join("fleet").join("shop.toml");
    let facts = table(
        "  ",
        &[
            row(&["gateway", gateway]),
            row(&["admin", admin]),
            row(&["control", control]),
            row(&["document", &document.display().to_string()]),
            row(&[
                "",
                "edit it: what you save is served at once, or refused with the line",
            ]),
            row(&["logs", &folder.join("log").display().to_string()]),
        ],
    );
    let mut tries = vec![
        ("a fixed answer", format!("curl -i {gateway}/hello")),
        ("a service", format!("curl {gateway}/catalog/items/2")),
        ("a stream", format!("curl -N {gateway}/catalog/events")),
        (
            "orders refuses every tenth; it is asked again",
            format!("curl '{gateway}/orders/[1-12]'"),
        ),
        (
            "a POST is never sent twice",
            format!("curl -d '{{}}' {gateway}/orders"),
        ),
        (
            "a split, three to one",
            format!("curl '{gateway}/who?[1-8]'"),
        ),
        (
            "an error that explains itself",
            format!("curl {gateway}/nowhere"),
        ),
        ("for Prometheus", format!("curl {admin}/metrics")),
        (
            "endpoints, health, reloads",
            format!("{program} status --admin {admin}"),
        ),
        (
            "which route, and why",
            format!("{program} explain --live --admin {admin} GET {gateway}/orders/7"),
        ),
        (
            "who registered, and who follows the control plane",
            format!("{program} services --control {control}; {program} nodes --control {control}"),
        ),
        (
            "who changed the documents, and how to go back",
            format!(
                "{program} revisions --control {control}; {program} rollback --control {control} 1"
            ),
        ),
    ];
    if let Some(pid) = control_pid {
        tries.push((
            "the control plane dies, and no request notices (it is started again)",
            format!("kill -9 {pid}; curl '{gateway}/orders/[1-12]'"),
        ));
    }
    let tries: String = { tries.iter() }
        .map(|(what, line)| format!("  {what}\n    {line}\n"))
        .collect();
    format!("{facts}\ntry\n{tries}\nCtrl-C stops all of it and leaves nothing behind\n")
}
