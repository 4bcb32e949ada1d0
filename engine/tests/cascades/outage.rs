//! A service goes away altogether and comes back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::waiting::until;

use super::service::{Mood, Service};
use tollgate_engine::testing::demand::{Count, RATE, Witness, demand, errors};

const BEFORE: u64 = 200;
const AFTER: u64 = 400;
const OPEN_FOR: Duration = Duration::from_millis(500);

fn breaker(gateway: &Gateway) -> Value {
    gateway.get_status()["upstreams"][0]["breakers"][0].clone()
}

/// "Full outage and return → load on the returning service never above 1.2 × of normal demand (no retry storm, no
/// thundering herd), closed breaker within `open_for` + 1 s."
fn outage(fault: Mood, route: &str) {
    until("a breaker that closes in its time", || {
        closes_in_time(fault, route)
    });
}

/// What is counted holds each time. Whether it closed in time, of which the witness sees only what happens to its own thread.
fn closes_in_time(fault: Mood, route: &str) -> bool {
    let count = Count::default();
    let service = Service::start(&count);
    let keys = format!(
        "[upstream.breaker]\nopen_for = \"{}ms\"",
        OPEN_FOR.as_millis()
    );
    let toml = |route: &str| {
        document(service.address(), "", route, &keys) + "\n[server]\nworkers = 2\ndrain = \"1s\"\n"
    };
    // Time-outs are those of the fault only while it lasts: before and after it a machine that stands still is no outage.
    let gateway = Gateway::start(&toml(""));
    let (opened, returned) = (AtomicBool::new(false), Mutex::new(None));
    let (closed, last) = (Mutex::new(None), Mutex::new(None));
    let witness = Witness::begin();
    let seen = std::thread::scope(|scope| {
        let operator = scope.spawn(|| {
            let patience = Instant::now() + 3 * PATIENCE;
            while Instant::now() < patience && closed.lock().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(10));
                let state = breaker(&gateway);
                let state = state["state"].as_str().unwrap_or_default();
                if state == "open" && !opened.swap(true, Ordering::SeqCst) {
                    // It was away for as long as it took to be noticed, and for two rounds of probes.
                    std::thread::sleep(OPEN_FOR * 2);
                    service.set(Mood::Well);
                    gateway.edit(&toml("")).expect("a good document");
                    *returned.lock().unwrap() =
                        Some((count.load(Ordering::SeqCst), Instant::now()));
                } else if state == "closed" && returned.lock().unwrap().is_some() {
                    *closed.lock().unwrap() = Some(Instant::now());
                    *last.lock().unwrap() = Some(count.load(Ordering::SeqCst) + AFTER);
                }
            }
        });
        let seen = demand(gateway.address(), "", &count, |number| {
            if number == BEFORE {
                gateway.edit(&toml(route)).expect("a good document");
                service.set(fault);
            }
            last.lock().unwrap().is_none_or(|last| number < last) && !operator.is_finished()
                || last.lock().unwrap().is_some_and(|last| number < last)
        });
        operator.join().expect("operators do not panic");
        seen
    });
    let held_up = witness.end();
    let (since, returned) = returned.into_inner().unwrap().expect("the breaker opened");
    let closed = closed.into_inner().unwrap().expect("the breaker closed");

    // In any window of demand, also across the outage's begin and its end.
    let arrivals: Vec<u64> = service
        .arrivals()
        .iter()
        .map(|arrival| arrival.count)
        .collect();
    let mut most = 0.0f64;
    for window in [RATE / 2, RATE, 2 * RATE].map(u64::from) {
        for first in 0..seen.len() as u64 {
            let range = first..first + window;
            let load = arrivals.iter().filter(|one| range.contains(one)).count();
            most = most.max(load as f64 / window as f64);
            // What was under way when the window began may arrive in it: one request of each client.
            assert!(
                load as u64 <= window * 12 / 10 + 32,
                "{load} tries arrived while {window} requests were made, from {first} on"
            );
        }
    }
    let during = arrivals
        .iter()
        .filter(|one| (BEFORE..since).contains(one))
        .count();
    let took = closed - returned;
    let end = seen.len() as u64 - AFTER / 2;
    let late: Vec<_> = seen.into_iter().filter(|one| one.number > end).collect();
    assert_eq!(errors(&late), Vec::<String>::new(), "all is as it was");
    println!(
        "{fault:?}: at most {most:.2} of the demand in any window; {during} tries for {} requests of the outage; closed \
         {took:?} after the return (open for {OPEN_FOR:?}, held up by {held_up:?} at most)",
        since - BEFORE
    );
    took <= OPEN_FOR + Duration::from_secs(1) + held_up * 2
}

#[test]
fn hi_49_gw_506_an_outage_with_errors_ends_without_a_storm_or_a_herd() {
    outage(Mood::Refuses, "");
}

#[test]
fn hi_49_gw_506_an_outage_with_closed_connections_ends_without_a_storm_or_a_herd() {
    outage(Mood::Closes, "");
}

/// Clients pile up behind a service that says nothing: nobody of them is sent when it comes back but who asks then.
#[test]
fn hi_49_gw_506_an_outage_in_silence_ends_without_a_storm_or_a_herd() {
    outage(Mood::Stalls, "timeout = \"200ms\"");
}
