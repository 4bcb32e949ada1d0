//! Which page is for whom (CP-202), as data: the guard, the documentation and the test that walks every page with every
//! role are made from this table. A page that is not in it is for those who administer.

use tollgate_config::control_plane::Role::{self, Administer, Node, Operate, Read, Service};

/// One page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub method: &'static str,
    /// As the router knows it.
    pub path: &'static str,
    /// Empty: no token is asked for.
    pub roles: &'static [Role],
    /// What the audit log calls it; `None`: only refusals are written down.
    pub change: Option<&'static str>,
}

/// Nothing that only some may know.
const OPEN: &[Role] = &[];
/// Finding one another.
const ANYONE: &[Role] = &[Read, Operate, Administer, Node, Service];
const READ: &[Role] = &[Read, Operate, Administer];
const OPERATE: &[Role] = &[Operate, Administer];
const ADMINISTER: &[Role] = &[Administer];
/// For a node.
const NODE: &[Role] = &[Node, Administer];
/// In the name of a service: see `Caller::speaks_for`.
const SPEAK: &[Role] = &[Service, Node, Administer];
/// Taking an instance out harms one instance, and it comes back with its next registration.
const LEAVE: &[Role] = &[Service, Node, Operate, Administer];

const fn page(method: &'static str, path: &'static str, roles: &'static [Role]) -> Page {
    Page {
        method,
        path,
        roles,
        change: None,
    }
}

const fn change(
    method: &'static str,
    path: &'static str,
    roles: &'static [Role],
    what: &'static str,
) -> Page {
    Page {
        method,
        path,
        roles,
        change: Some(what),
    }
}

/// Every page of `api`.
pub static PAGES: &[Page] = &[
    page("POST", "/register", SPEAK),
    page("POST", "/heartbeat", SPEAK),
    page("PUT", "/heartbeat/{id}", SPEAK),
    page("DELETE", "/deregister", LEAVE),
    page("DELETE", "/services/{name}", LEAVE),
    page("GET", "/services", ANYONE),
    page("GET", "/registry/services", ANYONE),
    page("GET", "/services/{name}", ANYONE),
    page("GET", "/{name}", ANYONE),
    change("POST", "/services/{name}/confirm", OPERATE, "confirm"),
    page("GET", "/debug/registry/services", READ),
    page("GET", "/debug/registry/health", READ),
    page("GET", "/debug/registry/audit", READ),
    page("GET", "/debug/metrics/services", READ),
    page("GET", "/debug/answers", READ),
    page("GET", "/debug/traces/recent", READ),
    page("GET", "/debug/traces/{trace_id}", READ),
    page("GET", "/debug/sagas/active", READ),
    page("GET", "/debug/sagas/failed", READ),
    page("GET", "/debug/diagnose/service/{name}", READ),
    page("GET", "/debug/diagnose/request/{trace_id}", READ),
    page("GET", "/debug/diagnose/saga/{id}", READ),
    page("GET", "/audit", READ),
    // What a document would become tells something of the environment here.
    page("POST", "/plan", OPERATE),
    change("POST", "/apply", ADMINISTER, "apply"),
    // Back to what somebody who administers has applied.
    change("POST", "/rollback", OPERATE, "rollback"),
    page("GET", "/revisions", READ),
    page("GET", "/revisions/{number}", READ),
    page("GET", "/diff", READ),
    page("GET", "/rollout", READ),
    // On with, or back from, what somebody who administers has applied.
    change("POST", "/rollout/pause", OPERATE, "rollout-pause"),
    change("POST", "/rollout/resume", OPERATE, "rollout-resume"),
    change("POST", "/rollout/promote", OPERATE, "rollout-promote"),
    change("POST", "/rollout/abort", OPERATE, "rollout-abort"),
    page("GET", "/figures", READ),
    page("GET", "/edges", READ),
    page("POST", "/feed", NODE),
    // It tells what references stand for.
    page("GET", "/feed", ADMINISTER),
    page("GET", "/nodes", READ),
    page("POST", "/nodes/{node}/report", NODE),
    page("POST", "/nodes/{node}/wants", NODE),
    page("POST", "/nodes/{node}/answers/{id}", NODE),
    page("POST", "/leases", NODE),
    page("GET", "/leases", READ),
    page("GET", "/identity", READ),
    page("GET", "/identity/trust", OPEN),
    // What is asked for is the proof in the body.
    change("POST", "/identity/certificate", OPEN, "certificate"),
    change("POST", "/identity/token", ADMINISTER, "identity-token"),
    change("POST", "/identity/revoke", ADMINISTER, "identity-revoke"),
    change("POST", "/identity/allow", ADMINISTER, "identity-allow"),
    change("POST", "/identity/rotate", ADMINISTER, "identity-rotate"),
    page("GET", "/cluster", READ),
    // What only those know who share the store is asked for instead.
    page("POST", "/cluster/signs", OPEN),
    page("GET", "/metrics", READ),
    page("GET", "/health", OPEN),
    page("GET", "/health/ready", OPEN),
    page("GET", "/health/live", OPEN),
];

/// The page that a request asks for. `path` is the router's; `None`: there is no such page, and nothing to protect.
pub fn wanted(method: &str, path: Option<&str>) -> &'static [Role] {
    match (find(method, path), path) {
        (Some(page), _) => page.roles,
        (None, Some(_)) => ADMINISTER,
        (None, None) => OPEN,
    }
}

pub fn find(method: &str, path: Option<&str>) -> Option<&'static Page> {
    let method = if method == "HEAD" { "GET" } else { method };
    let path = path?;
    PAGES
        .iter()
        .find(|page| page.method == method && page.path == path)
}

/// Roles as a person says them.
pub fn words(roles: &[Role]) -> String {
    let words: Vec<String> = { roles.iter() }
        .map(|role| format!("`{}`", role.word()))
        .collect();
    match words.split_last() {
        None => "no token".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn text(name: &str) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(file).expect("readable")
    }

    #[test]
    fn every_path_of_the_router_is_in_the_table_and_every_path_of_the_table_in_the_router() {
        let router = text("src/api/mod.rs");
        let paths: BTreeSet<&str> = { router.split('"').skip(1).step_by(2) }
            .filter(|text| text.starts_with('/') && !text.contains(' '))
            .collect();
        let table: BTreeSet<&str> = PAGES.iter().map(|page| page.path).collect();
        let missing: Vec<_> = { table.iter() }
            .filter(|path| !paths.contains(*path))
            .collect();
        assert!(missing.is_empty(), "not in the router: {missing:?}");
        let routes = router.split(".route(").skip(1);
        for route in routes {
            let path = route.split('"').nth(1).expect("a path");
            assert!(table.contains(path), "who may use {path}?");
        }
    }

    #[test]
    fn the_documentation_says_of_every_page_whom_it_is_for() {
        let page = text("../docs/control-plane-access.md");
        for one in PAGES {
            let row = format!("| `{} {}` | {} |", one.method, one.path, words(one.roles));
            assert!(page.contains(&row), "this row is missing: {row}");
        }
    }

    #[test]
    fn who_may_more_may_everything_that_who_may_less_may() {
        for one in PAGES.iter().filter(|page| !page.roles.is_empty()) {
            assert!(one.roles.contains(&Administer), "{one:?}");
            let reads = one.roles.contains(&Read);
            assert!(!reads || one.roles.contains(&Operate), "{one:?}");
        }
        assert_eq!(wanted("POST", Some("/new-page")), ADMINISTER);
        assert_eq!(wanted("GET", None), OPEN);
        assert_eq!(wanted("HEAD", Some("/nodes")), READ);
    }
}
