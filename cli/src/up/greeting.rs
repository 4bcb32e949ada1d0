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
    let facts = table(
        "  ",
        &[
            row(&["gateway", gateway]),
            row(&["admin", admin]),
            row(&["control", control]),
            row(&["documents", &folder.join("fleet").display().to_string()]),
            row(&[
                "",
                "edit them: what you save is served at once, or refused with the line",
            ]),
            row(&["logs", &folder.join("log").display().to_string()]),
            row(&[
                "people",
                "ada@shop.example, admin@shop.example; password correct-horse-1",
            ]),
            row(&[
                "API keys",
                "test-key, free-tier-key, pro-tier-key; without one, 10 requests a minute",
            ]),
        ],
    );
    let tries: String = { shopping(gateway).into_iter() }
        .chain(looking(places, control_pid))
        .map(|(what, line)| format!("  {what}\n    {line}\n"))
        .collect();
    format!(
        "{facts}\ntry, in this order\n{tries}\nCtrl-C stops all of it and leaves nothing behind\n"
    )
}

/// From a stranger to a customer.
fn shopping(gateway: &str) -> Vec<(&'static str, String)> {
    let key = "-H 'x-api-key: test-key'";
    vec![
        (
            "sign up",
            format!(
                "curl -s {key} {gateway}/users --json '{{\"email\": \"me@shop.example\", \"password\": \"correct-horse-1\", \"first_name\": \"Me\", \"last_name\": \"Too\"}}'"
            ),
        ),
        (
            "sign in",
            format!(
                "TOKEN=$(curl -s {key} {gateway}/auth/login --json '{{\"email\": \"me@shop.example\", \"password\": \"correct-horse-1\"}}' | grep -o '\"access_token\": *\"[^\"]*' | cut -d'\"' -f4); echo \"$TOKEN\""
            ),
        ),
        (
            "browse",
            format!(
                "curl -s {key} '{gateway}/products?text=kettle'; PRODUCT=$(curl -s {key} '{gateway}/products?text=kettle' | grep -o '\"product_id\": *\"[^\"]*' | head -1 | cut -d'\"' -f4)"
            ),
        ),
        (
            "order: a saga over four services; again with the same key, it is the same order",
            format!(
                "curl -s {key} -H \"authorization: Bearer $TOKEN\" -H 'idempotency-key: my-first' {gateway}/orders --json \"{{\\\"items\\\": [{{\\\"product_id\\\": \\\"$PRODUCT\\\", \\\"quantity\\\": 1}}], \\\"payment_method\\\": \\\"card\\\", \\\"shipping_address\\\": {{\\\"street\\\": \\\"1 Main St\\\", \\\"city\\\": \\\"Springfield\\\", \\\"state\\\": \\\"IL\\\", \\\"zip_code\\\": \\\"62701\\\", \\\"country\\\": \\\"USA\\\"}}}}\""
            ),
        ),
        (
            "your orders, and nobody else's",
            format!("curl -s {key} -H \"authorization: Bearer $TOKEN\" {gateway}/orders"),
        ),
        (
            "a refusal that says what is wrong, field by field",
            format!(
                "curl -s {key} -H \"authorization: Bearer $TOKEN\" {gateway}/orders --json '{{\"items\": [{{\"product_id\": \"x\", \"quantity\": 0}}]}}'"
            ),
        ),
        (
            "without a token, and with too few rights",
            format!(
                "curl -s {key} {gateway}/orders; curl -s {key} -H \"authorization: Bearer $TOKEN\" {gateway}/users"
            ),
        ),
        (
            "a stream: one product a line",
            format!("curl -sN {key} {gateway}/products:stream"),
        ),
    ]
}

/// What goes on, and why.
fn looking(places: &Places, control_pid: Option<u32>) -> Vec<(&'static str, String)> {
    let Places {
        gateway,
        admin,
        control,
    } = places;
    let program = std::env::args()
        .next()
        .filter(|program| !program.contains([' ', '\'', '"']))
        .unwrap_or_else(|| "tollgate".to_owned());
    let mut tries = vec![
        ("a fixed answer", format!("curl -si {gateway}/hello")),
        (
            "an error that explains itself",
            format!("curl -s {gateway}/nowhere"),
        ),
        ("for Prometheus", format!("curl -s {admin}/metrics")),
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
            "who calls whom, and by which certificates; all of it is mutual TLS",
            format!(
                "{program} edges --control {control}; {program} identity status --control {control}"
            ),
        ),
        (
            "what became of a request, and why: the id is the first line's, or an error's `trace_id`",
            format!(
                "{program} traces --control {control}; {program} diagnose request --control {control} TRACE_ID"
            ),
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
            format!("kill -9 {pid}; curl -s -H 'x-api-key: test-key' '{gateway}/products?limit=1'"),
        ));
    }
    tries
}
