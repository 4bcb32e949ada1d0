//! Some endpoints of one upstream fail; the upstream must not.

use std::time::Duration;

use tollgate_engine::testing::gateway::Gateway;

use super::service::{Mood, Service, listed};
use tollgate_engine::testing::demand::{Count, RATE, Seen, demand, errors};

/// Requests before the fault, so that every endpoint is known.
const BEFORE: u64 = 200;
/// An ejection lasts ten seconds, and then an endpoint is asked again.
const UNTIL_RETURN: Duration = Duration::from_secs(9);

struct Run {
    seen: Vec<Seen>,
    /// Of the endpoints that failed, from the fault on and until the first could be back from its ejection: the numbers
    /// that the demand had reached.
    arrivals: Vec<u64>,
}

/// `failing` of so many endpoints fail from request `BEFORE` on, until `after` more were made.
fn run(endpoints: usize, failing: usize, fault: Mood, more: &str, after: u64) -> Run {
    let count = Count::default();
    let services: Vec<_> = (0..endpoints).map(|_| Service::start(&count)).collect();
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [server]\nworkers = 2\ndrain = \"1s\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n{more}\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [{}]\n",
        listed(&services)
    ));
    let fault_at = std::sync::Mutex::new(None);
    let seen = demand(gateway.address(), "", &count, |number| {
        if number == BEFORE {
            *fault_at.lock().unwrap() = Some(std::time::Instant::now());
            services[..failing].iter().for_each(|one| one.set(fault));
        }
        number < BEFORE + after
    });
    let fault_at = fault_at.into_inner().unwrap().expect("it was reached");
    let arrivals = services[..failing].iter().flat_map(Service::arrivals);
    let arrivals = arrivals
        .filter(|(_, when)| *when > fault_at && *when < fault_at + UNTIL_RETURN)
        .map(|(number, _)| number)
        .collect();
    Run { seen, arrivals }
}

/// "From fault to no traffic on the bad endpoint ≤ 500 ms at 200 requests/s."
fn assert_left_alone(fault: Mood, more: &str) {
    let run = run(3, 1, fault, more, 600);
    let last = run.arrivals.iter().max().copied().unwrap_or(BEFORE);
    println!(
        "{fault:?}: {} requests to the bad endpoint, the last after {} requests; {} errors",
        run.arrivals.len(),
        last - BEFORE,
        errors(&run.seen).len()
    );
    assert!(
        last <= BEFORE + u64::from(RATE / 2),
        "{fault:?}: asked {} requests after the fault: {:?}",
        last - BEFORE,
        run.arrivals
    );
}

#[test]
fn hi_50_gw_705_within_half_a_second_nothing_goes_to_an_endpoint_that_answers_503() {
    assert_left_alone(Mood::Refuses, "");
}

#[test]
fn hi_50_gw_705_within_half_a_second_nothing_goes_to_an_endpoint_that_closes() {
    assert_left_alone(Mood::Closes, "");
}

#[test]
fn hi_50_gw_705_within_half_a_second_nothing_goes_to_an_endpoint_that_stalls() {
    assert_left_alone(Mood::Stalls, "retry = { per_try_timeout = \"500ms\" }");
}

/// "30 % of an upstream's endpoints fail → client errors < 1 % within 2 s."
fn assert_few_errors(fault: Mood, more: &str) {
    let (within, counted) = (u64::from(2 * RATE), 600);
    let run = run(10, 3, fault, more, within + counted);
    let all = errors(&run.seen);
    let late: Vec<_> = run
        .seen
        .iter()
        .filter(|one| one.number > BEFORE + within)
        .cloned()
        .collect();
    println!(
        "{fault:?}, {more:?}: {} errors in {} requests, {} of the last {}",
        all.len(),
        run.seen.len(),
        errors(&late).len(),
        late.len()
    );
    assert!(late.len() as u64 >= counted - 1, "{}", late.len());
    assert!(
        errors(&late).len() * 100 < late.len(),
        "{fault:?}, {more:?}: {all:#?}"
    );
}

#[test]
fn hi_50_gw_705_with_three_of_ten_endpoints_refusing_fewer_than_one_in_a_hundred_notice() {
    assert_few_errors(Mood::Refuses, "");
    // Without retries, too: it is not they who hide it.
    assert_few_errors(Mood::Refuses, "retry = \"off\"");
}

#[test]
fn hi_50_gw_705_with_three_of_ten_endpoints_closing_fewer_than_one_in_a_hundred_notice() {
    assert_few_errors(Mood::Closes, "");
    assert_few_errors(Mood::Closes, "retry = \"off\"");
}

#[test]
fn hi_50_gw_705_with_three_of_ten_endpoints_stalling_fewer_than_one_in_a_hundred_notice() {
    assert_few_errors(
        Mood::Stalls,
        "timeout = \"5s\"\nretry = { per_try_timeout = \"500ms\" }",
    );
}
