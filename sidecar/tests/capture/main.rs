//! Transparent capture in networks of the test's own (MESH-101): a connection to somewhere is redirected to an engine, and
//! reaches the place where it was going through it. IPv4 and IPv6, both ways, by `nft` and by `iptables`.
//!
//! The networks are made of namespaces, for which one must be root; elsewhere these tests say that they are skipped. The
//! hub is a pod with a service and its sidecar, a spoke is somebody else.

#[path = "../../../gateway/tests/netlab/mod.rs"]
mod netlab;
mod pod;

use std::io::ErrorKind;
use std::net::SocketAddr;

use pod::{Pod, addresses, echo, get, ruleset, talk};
use tollgate_engine::testing::upstream::{Conn, Upstream};
use tollgate_sidecar::capture::{self, By, Settings};

/// Servers speak first here, so silence is over soon.
const SHORT: &str = "20ms";

fn settings() -> Settings {
    Settings {
        inbound_port: 15006,
        outbound_port: 15001,
        // The test itself is the sidecar, and root.
        uid: 0,
        exclude_inbound: vec![15000],
        exclude_outbound_ports: Vec::new(),
        exclude_cidrs: Vec::new(),
    }
}

fn is_redirected() -> bool {
    ruleset().to_ascii_lowercase().contains("tollgate")
}

fn outbound(name: &str, by: By) {
    let Some(pod) = Pod::begin(name, SHORT) else {
        return;
    };
    pod.with_servers_elsewhere(echo, |there| {
        let talked = |count| {
            pod.as_service(|| there.map(talk).map(Result::unwrap));
            there.map(|there| pod.captured(there, count));
        };
        talked(0);
        capture::install_by(by, &settings()).expect("root may");
        let installed = ruleset();
        capture::install_by(by, &settings()).expect("root may, again");
        assert_eq!(ruleset(), installed, "twice is once");
        talked(1);
        // The sidecar's own user goes where it goes.
        there.map(talk).map(Result::unwrap);
        there.map(|there| pod.captured(there, 1));
        // The other program finds what the first one left.
        let other = match by {
            By::Nft => By::Iptables,
            By::Iptables => By::Nft,
        };
        capture::install_by(other, &settings()).expect("root may");
        talked(2);
        capture::remove(&settings()).expect("root may");
        assert!(!is_redirected(), "{}", ruleset());
        capture::remove(&settings()).expect("nothing is easily removed");
        talked(2);
    });
}

#[test]
fn mesh_101_what_a_service_dials_goes_through_its_sidecar_by_nft() {
    outbound("outbound by nft", By::Nft);
}

#[test]
fn mesh_101_what_a_service_dials_goes_through_its_sidecar_by_iptables() {
    outbound("outbound by iptables", By::Iptables);
}

#[test]
fn mesh_101_captured_http_goes_by_its_route_or_where_it_was_going() {
    let Some(pod) = Pod::begin("captured HTTP", "10m") else {
        return;
    };
    let script = |conn: &mut Conn| {
        while conn.read_request().is_some() {
            conn.respond("200 OK", &[], "where it was going");
        }
    };
    pod.with_servers_elsewhere(script, |there| {
        capture::install(&settings()).expect("root may");
        for there in there {
            let answers =
                pod.as_service(|| ["known.example", "nobody.knows"].map(|host| get(there, host)));
            assert!(answers[0].ends_with("by its route"), "{}", answers[0]);
            assert!(answers[1].ends_with("where it was going"), "{}", answers[1]);
        }
        // Nobody redirected this one: there is nowhere else to go.
        let door = pod.gateway().listener("outbound");
        let answer = get(door, "nobody.knows");
        assert!(answer.contains("no_endpoint"), "{answer}");
        let answer = get(door, "known.example");
        assert!(answer.ends_with("by its route"), "{answer}");
    });
}

fn inbound(name: &str, by: By) {
    let Some(pod) = Pod::begin(name, SHORT) else {
        return;
    };
    pod.here(|| {
        let servers = addresses(1).map(|address| Upstream::http1_on(address, echo));
        let excluded = Upstream::http1_on(addresses(1)[0], echo);
        let here = servers.each_ref().map(Upstream::address);
        let mut settings = settings();
        settings.exclude_inbound.push(excluded.address().port());
        capture::install_by(by, &settings).expect("root may");
        pod.elsewhere(|| {
            here.map(talk).map(Result::unwrap);
            talk(excluded.address()).expect("it is not redirected");
        });
        here.map(|here| pod.captured(here, 1));
        pod.captured(excluded.address(), 0);
        capture::remove(&settings).expect("root may");
        assert!(!is_redirected(), "{}", ruleset());
    });
}

#[test]
fn mesh_101_what_others_send_to_a_service_goes_through_its_sidecar_by_nft() {
    inbound("inbound by nft", By::Nft);
}

#[test]
fn mesh_101_what_others_send_to_a_service_goes_through_its_sidecar_by_iptables() {
    inbound("inbound by iptables", By::Iptables);
}

#[test]
fn mesh_101_ports_and_places_that_are_excluded_are_reached_without_the_sidecar() {
    let Some(pod) = Pod::begin("exclusions", SHORT) else {
        return;
    };
    pod.with_servers_elsewhere(echo, |there| {
        let block = |there: SocketAddr| tollgate_config::Cidr {
            address: there.ip(),
            prefix: if there.is_ipv4() { 32 } else { 128 },
        };
        let blocks = Settings {
            exclude_cidrs: there.map(block).to_vec(),
            ..settings()
        };
        let ports = Settings {
            exclude_outbound_ports: there.map(|there| there.port()).to_vec(),
            ..settings()
        };
        for settings in [blocks, ports] {
            for by in [By::Nft, By::Iptables] {
                capture::install_by(by, &settings).expect("root may");
                pod.as_service(|| there.map(talk).map(Result::unwrap));
                there.map(|there| pod.captured(there, 0));
            }
        }
    });
}

#[test]
fn mesh_101_a_sidecar_that_is_redirected_to_itself_refuses_and_does_not_go_round() {
    let Some(pod) = Pod::begin("a loop", SHORT) else {
        return;
    };
    pod.with_servers_elsewhere(echo, |there| {
        // Rules for another user than the one that the sidecar runs as.
        let wrong = Settings {
            uid: 54_321,
            ..settings()
        };
        capture::install(&wrong).expect("root may");
        for there in there {
            let error = pod
                .as_service(|| talk(there))
                .expect_err("it went somewhere");
            let ended = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(ended.contains(&error.kind()), "{error}");
        }
        let metrics = pod.gateway().metrics();
        let accepted: u64 = metrics
            .lines()
            .filter(|line| line.starts_with("listener_connections_total{listener=\"outbound"))
            .filter(|line| line.contains("result=\"accepted\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert!((2..100).contains(&accepted), "{accepted} connections");
        capture::remove(&wrong).expect("root may");
        pod.as_service(|| there.map(talk).map(Result::unwrap));
    });
}
