//! Who may call, seen over the whole document: issuers that filters name, rules that ask for what no filter has found
//! out, filters that are there twice.

use super::{Checks, unique, unknown};
use crate::document::{Filter, Item, Route, Setting};
use crate::unit::short;

pub(super) fn check(checks: &mut Checks<'_>) {
    let jwts = unique(
        "jwt",
        checks.jwts.iter().map(|item| (item.name.as_str(), item)),
        checks.report,
    );
    unique(
        "access",
        { checks.accesses.iter() }.map(|item| (item.name.as_str(), item)),
        checks.report,
    );
    for route in checks.routes {
        let mut access: Option<&Setting<Filter>> = None;
        let mut jwt: Option<&Setting<Filter>> = None;
        let mut cors: Option<&Setting<Filter>> = None;
        for filter in &route.filters {
            match &filter.value {
                Filter::Jwt(used) => {
                    // A node's own file has them; whoever keeps the documents of a fleet does not see it.
                    if !checks.fleet {
                        let place = route.place(filter.at);
                        unknown("unknown-jwt", "jwt", &used.name, place, &jwts, checks);
                    }
                    once("jwt", &mut jwt, filter, route, checks);
                }
                Filter::Access(_) => once("access", &mut access, filter, route, checks),
                Filter::Cors(_) => once("cors", &mut cors, filter, route, checks),
                Filter::Allow(allow) => {
                    let rule = allow.rules().find(|rule| rule.asks_who());
                    if let (Some(rule), None) = (rule, jwt) {
                        checks.report.add(
                            "no-caller",
                            route.place(rule.at),
                            format!(
                                "nothing says who calls before route `{}` asks for it: {rule}",
                                short(&route.name)
                            ),
                            "put `{ jwt = \"…\" }` before it in the same list of filters",
                        );
                    }
                }
                _ => {}
            }
        }
    }
}

/// Of a filter that can be there once only, notes the first and refuses the others.
fn once<'a>(
    word: &str,
    first: &mut Option<&'a Setting<Filter>>,
    filter: &'a Setting<Filter>,
    route: &Item<Route>,
    checks: &mut Checks<'_>,
) {
    if first.is_none() {
        *first = Some(filter);
        return;
    }
    checks.report.add(
        "contradiction",
        route.place(filter.at),
        format!("route `{}` has two filters `{word}`", short(&route.name)),
        "keep one of them",
    );
}
