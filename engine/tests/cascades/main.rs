//! What one part's failure does to the others, from end to end: cascades, outages and returns (GW-401, GW-506, GW-608,
//! GW-705, HI-49, HI-50).
//!
//! Demand comes at a pace, as from clients who do not wait for each other, and every request has a number. What is
//! asserted is counted in requests: "within half a second at 200 requests a second" is "within the next hundred". So
//! a machine that is busy makes a test last longer and changes nothing about what it says. Where the product keeps time by
//! itself, a bound has added to it what the machine was seen to hold this process up (`Witness`).

mod dependencies;
mod endpoints;
mod outage;
mod service;
