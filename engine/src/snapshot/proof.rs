//! Runs a document's `[[test]]`s against the snapshot made of it, before anything is swapped: a route that stopped
//! doing what its author expects is found while the old world still serves.

use tollgate_config::{AccessTest, Action, Document, Item, Member, Problem, Problems, Test, path};

use super::Snapshot;
use crate::exchange::Target;
use crate::filter::access::{Access, Call};
use crate::route::{Found, Lookup, pattern_of, rewritten};
use crate::telemetry::metrics::Metrics;

/// What a request would meet.
struct Met<'s> {
    route: Option<&'s str>,
    upstreams: Vec<&'s str>,
    status: Option<u16>,
    path: Option<String>,
}

/// Every expectation that does not hold.
pub fn prove(document: &Document, snapshot: &Snapshot) -> Result<(), Problems> {
    let problems: Vec<Problem> = document
        .tests
        .iter()
        .filter_map(|test| failure(test, document, snapshot))
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// Whether the rules about a service let somebody ask it for that.
fn is_let(test: &Test, asked: &AccessTest, document: &Document, snapshot: &Snapshot) -> bool {
    let own = snapshot.access.callee();
    let other = { asked.service.as_ref() }.filter(|service| Some(*service) != own);
    let rules = match other {
        None => snapshot.access.clone(),
        Some(service) => Access::compile(document, Some(service.clone()), None, &Metrics::new(1)),
    };
    let raw = { test.path.split_once('?') }.map_or(test.path.as_str(), |(raw, _)| raw);
    let Ok(path) = path::normalize(raw) else {
        return false;
    };
    let call = Call {
        caller: { asked.caller.as_ref() }
            .map(|caller| (caller.namespace.as_str(), caller.service.as_str())),
        method: &test.method,
        path: &path,
        is_bytes: false,
        person: None,
    };
    rules.allows(&call).is_some()
}

fn failure(test: &Item<Test>, document: &Document, snapshot: &Snapshot) -> Option<Problem> {
    let met = meet(test, snapshot);
    let expect = &test.expect;
    let differs = |what: &str, wanted: &str, got: &str, at| {
        Some(Problem {
            code: "test-failed",
            place: test.place(at).or_else(|| Some(test.begins())),
            message: format!(
                "{} {} expects {what} {wanted}, but gets {got}",
                test.method, test.path
            ),
            text: None,
            hint: Some(
                "run `explain` with this request to see why; change the route or the expectation"
                    .into(),
            ),
        })
    };
    if let Some(asked) = &test.access {
        let word = |allowed| if allowed { "allowed" } else { "refused" };
        let allowed = is_let(test, asked, document, snapshot);
        if allowed != asked.allowed.value {
            let who = asked
                .caller
                .as_ref()
                .map_or("nobody".into(), Member::to_string);
            let got = format!("{} for {who}", word(allowed));
            return differs("access", word(asked.allowed.value), &got, asked.allowed.at);
        }
    }
    if let Some(wanted) = &expect.route
        && met.route != Some(wanted.value.as_str())
    {
        return differs(
            "route",
            &wanted.value,
            met.route.unwrap_or("no route"),
            wanted.at,
        );
    }
    if let Some(wanted) = &expect.upstream
        && !met.upstreams.contains(&wanted.value.as_str())
    {
        let got = if met.upstreams.is_empty() {
            "no upstream".into()
        } else {
            met.upstreams.join(" or ")
        };
        return differs("upstream", &wanted.value, &got, wanted.at);
    }
    if let Some(wanted) = &expect.status
        && met.status != Some(wanted.value)
    {
        let got = met
            .status
            .map_or("whatever the upstream answers".into(), |status| {
                status.to_string()
            });
        return differs("status", &wanted.value.to_string(), &got, wanted.at);
    }
    if let Some(wanted) = &expect.path
        && met.path.as_deref() != Some(wanted.value.as_str())
    {
        return differs(
            "path",
            &wanted.value,
            met.path.as_deref().unwrap_or("none"),
            wanted.at,
        );
    }
    None
}

fn meet<'s>(test: &Test, snapshot: &'s Snapshot) -> Met<'s> {
    let refused = |status| Met {
        route: None,
        upstreams: Vec::new(),
        status: Some(status),
        path: None,
    };
    let listener = snapshot.listeners.iter().flatten().find(|plan| {
        test.listener
            .as_ref()
            .is_none_or(|name| *name == plan.item.name)
    });
    let Some(listener) = listener else {
        return refused(404);
    };
    let (raw, query) = test
        .path
        .split_once('?')
        .map_or((test.path.as_str(), None), |(raw, query)| {
            (raw, Some(query))
        });
    let Ok(normal) = path::normalize(raw) else {
        return refused(400);
    };
    let target = Target::new(&normal, query);
    let headers = test.headers.iter().cloned().collect();
    let found = snapshot.table.find(&Lookup {
        listener: listener.index,
        host: test.host.as_deref().unwrap_or("nobody.invalid"),
        path: target.path(),
        query: target.query(),
        method: &test.method,
        headers: &headers,
    });
    let plan = match found {
        Found::Route(id) => snapshot.route(id),
        Found::MethodNotAllowed(_) => return refused(405),
        Found::NotFound => return refused(404),
    };
    let status = match &plan.item.action {
        Action::Respond { status, .. } | Action::Redirect { status, .. } => Some(status.as_u16()),
        Action::Upstream(_) | Action::Split { .. } => None,
    };
    let path = match &plan.item.rewrite {
        Some(rewrite) => rewritten(rewrite, pattern_of(&plan.item.matches), target.path()).ok(),
        None => Some(target.path().to_owned()),
    };
    Met {
        route: Some(&plan.item.name),
        upstreams: plan
            .compiled
            .choices()
            .iter()
            .map(|branch| branch.upstream.item.name.as_str())
            .collect(),
        status,
        path: path.filter(|_| status.is_none()),
    }
}
