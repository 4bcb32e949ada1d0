//! Gateways that share a limit through a control plane, and how much they admit.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_engine::testing::gateway::Gateway;

use super::until;

/// A gateway of one worker that answers by itself, behind a shared limit; its document names the control plane, and asks it
/// with patience: whether it is away is not a question of how busy the machine is.
pub fn toml(urls: &[SocketAddr], by: &str, rate: &str, burst: u64) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"http://{url}\"")).collect();
    format!(
        "[control_plane]\nurls = [{}]\n\n\
         [[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"here\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"here\" }}\n\
         filters = [{{ rate_limit = \"all\" }}]\n\n[limits]\n{PATIENT}\n\n\
         [[limit]]\nname = \"all\"\nby = {by}\nrate = \"{rate}\"\nburst = {burst}\nshared = true\n",
        urls.join(", ")
    )
}

/// The line about it.
pub const PATIENT: &str = "timeout = \"30s\"";

pub fn three(toml: &str) -> Vec<Gateway> {
    (0..3).map(|_| Gateway::start(toml)).collect()
}

pub fn sharing(gateway: &Gateway) -> Value {
    gateway.get_status()["sharing"].clone()
}

#[track_caller]
pub fn until_all(gateways: &[Gateway], what: &str, holds: impl Fn(&Value) -> bool) {
    for gateway in gateways {
        until(what, || holds(&sharing(gateway)));
    }
}

#[track_caller]
pub fn until_all_meet(gateways: &[Gateway]) {
    let count = gateways.len();
    until_all(gateways, "all gateways meet", |told| {
        told["reached"] == true && told["gateways"] == count
    });
}

/// Asks one gateway until it has refused for a while without a break; how many requests it admitted.
pub fn drain(gateway: &Gateway) -> u64 {
    let mut client = gateway.client();
    let (mut admitted, mut refused, mut since) = (0, 0, Instant::now());
    // A refusal may mean that tokens are on their way; many in a row over a while, that there are none.
    while refused < 50 || since.elapsed() < Duration::from_millis(300) {
        match client.get("/").status {
            200 => {
                admitted += 1;
                (refused, since) = (0, Instant::now());
            }
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    admitted
}

/// The same for some of them together, until at least so many are admitted: what was on its way for longer than anybody asked
/// comes later.
#[track_caller]
pub fn drain_to(gateways: &[Gateway], least: u64) -> u64 {
    let mut admitted = 0;
    until(&format!("{least} to be admitted"), || {
        admitted += gateways.iter().map(drain).sum::<u64>();
        admitted >= least
    });
    admitted
}

/// All gateways are asked at once until so many requests were admitted by all of them, or by each; how many were, and how
/// long it took from before the first request to after the last.
pub fn overload(gateways: &[Gateway], total: u64, each: u64) -> (u64, f64) {
    let (admitted, missing) = (AtomicU64::new(0), AtomicU64::new(gateways.len() as u64));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for gateway in gateways {
            scope.spawn(|| {
                let mut client = gateway.client();
                let mut own = 0;
                while admitted.load(Ordering::Relaxed) < total
                    || missing.load(Ordering::Relaxed) > 0
                {
                    if client.get("/").status == 200 {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        own += 1;
                        if own == each {
                            missing.fetch_sub(1, Ordering::Relaxed);
                        }
                    } else {
                        // A machine of two cores has work for others, too.
                        std::thread::yield_now();
                    }
                    let patience = Duration::from_secs(60);
                    assert!(began.elapsed() < patience, "too little is admitted");
                }
            });
        }
    });
    (admitted.into_inner(), began.elapsed().as_secs_f64())
}
