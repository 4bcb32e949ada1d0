//! The whole shop under a crowd: `tollgate up`, and customers who each signed up, browse and order at moments that no answer
//! shifts. What one had to wait for a late answer before counts, because latency runs from the moment at which a request was due.
//!
//! Every customer comes from an address of its own on loopback, as strangers do, so that limits for each address see a crowd and
//! not one client in a hurry. Nothing here outlives the run: the system is told to end and is waited for, also after Ctrl-C.

mod customer;
mod report;
mod system;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::load::{Schedule, Timer};
use crate::summary::{Failure, Recorder};

use customer::{Customer, Kind};
use system::System;

pub use report::Report;

/// How large the crowd is, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub customers: usize,
    /// Requests a second, of all customers together.
    pub rate: f64,
    /// Which part of the requests are orders, from 0 to 1.
    pub orders: f64,
    /// Not counted.
    pub warm_up: Duration,
    pub span: Duration,
}

/// So many sign up at once: the service users hashes two passwords at a time and lets few wait.
const AT_ONCE: usize = 8;
/// What is due, and not answered so long after the end, has failed.
const PATIENCE: Duration = Duration::from_secs(35);

/// What both kinds of requests met.
#[derive(Debug, Default)]
struct Met {
    browse: Recorder,
    order: Recorder,
}

impl Met {
    fn of(&mut self, kind: Kind) -> &mut Recorder {
        match kind {
            Kind::Browse => &mut self.browse,
            Kind::Order => &mut self.order,
        }
    }
}

/// Starts the system, sends everybody, and ends it. Needs a runtime that allows local tasks.
pub async fn run(program: &Path, size: Size) -> io::Result<Report> {
    let system = System::start(program).await?;
    eprintln!("{} customers sign up", size.customers);
    let crowd = sign_up(&system, size.customers).await?;
    eprintln!(
        "{} requests a second for {} s",
        size.rate,
        (size.warm_up + size.span).as_secs()
    );
    let met = Rc::new(RefCell::new(Met::default()));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for customer in crowd {
        drop(tasks.spawn_local(shop(customer, size, begin, met.clone())));
    }
    let end = begin + size.warm_up + size.span + PATIENCE;
    let all = async { while tasks.join_next().await.is_some() {} };
    // Whoever still waits then has counted a failure by its own limit, which is shorter.
    if tokio::time::timeout_at(end.into(), all).await.is_err() {
        eprintln!("some customers did not come to an end");
    }
    tasks.shutdown().await;
    let memory = system.memory()?;
    system.end().await?;
    let met = met.borrow();
    Ok(Report {
        size,
        browse: met.browse.summary(size.span),
        order: met.order.summary(size.span),
        memory,
    })
}

async fn sign_up(system: &System, customers: usize) -> io::Result<Vec<Customer>> {
    let shop = Rc::new(customer::Shop::open(system.gateway, system.address(0)).await?);
    let mut tasks = JoinSet::new();
    let mut crowd = Vec::with_capacity(customers);
    for number in 0..customers {
        if tasks.len() == AT_ONCE
            && let Some(joined) = tasks.join_next().await
        {
            crowd.push(joined.map_err(io::Error::other)??);
        }
        let from = system.address(number + 1);
        drop(tasks.spawn_local(Customer::sign_up(shop.clone(), from, number)));
    }
    while let Some(joined) = tasks.join_next().await {
        crowd.push(joined.map_err(io::Error::other)??);
    }
    Ok(crowd)
}

/// One customer, until the run is over. Requests that are due while one is under way wait for it, and their wait counts.
async fn shop(mut customer: Customer, size: Size, begin: Instant, met: Rc<RefCell<Met>>) {
    let Ok(timer) = Timer::new() else {
        return eprintln!("no timer for customer {}", customer.number);
    };
    let schedule = Schedule::new(begin, size.rate);
    let (counted, end) = (begin + size.warm_up, begin + size.warm_up + size.span);
    for turn in 0u64.. {
        let due = schedule.due(turn * size.customers as u64 + customer.number as u64);
        if due >= end || timer.until(due).await.is_err() {
            return;
        }
        let kind = match fastrand::f64() < size.orders {
            true => Kind::Order,
            false => Kind::Browse,
        };
        let left = (end + PATIENCE / 2).saturating_duration_since(Instant::now());
        let answer = tokio::time::timeout(left, customer.ask(kind)).await;
        if due < counted {
            continue;
        }
        let mut met = met.borrow_mut();
        match answer {
            Ok(Ok(status)) => met.of(kind).answered(status, due.elapsed()),
            Ok(Err(failure)) => met.of(kind).failed(failure),
            Err(_late) => met.of(kind).failed(Failure::Unfinished),
        }
    }
}
