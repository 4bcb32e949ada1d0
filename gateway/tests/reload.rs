//! Reload (HI-62, HI-63): whatever tells the process that its document changed, nobody who is connected notices.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use support::lasting::Lasting;
use support::load::Load;
use support::service::Service;
use support::{Process, Signal, Site, answering, document, line_of, until};
use tollgate_engine::testing::certificates::{Authority, client_config};
use tollgate_engine::testing::client::Client;

fn toml(service: &Service, mark: &str) -> String {
    document(
        service.address(),
        "timeout = \"60s\"",
        &answering("/mark", mark),
    )
}

fn served(gateway: &Process, mark: &str) {
    until(&format!("{mark} to be served"), || {
        gateway.get("/mark").text() == mark
    });
}

#[test]
fn a_changed_file_is_followed_whoever_writes_it() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "start"));
    let gateway = site.run();
    let mut kept = gateway.client();
    assert_eq!(kept.get("/mark").text(), "start");
    site.edit(&toml(&service, "renamed"));
    served(&gateway, "renamed");
    fs::write(
        site.file(),
        site.completed(&toml(&service, "written in place")),
    )
    .expect("the test's own folder can be written");
    served(&gateway, "written in place");
    fs::remove_file(site.file()).expect("it is there");
    site.edit(&toml(&service, "made anew"));
    served(&gateway, "made anew");
    assert_eq!(
        kept.get("/mark").text(),
        "made anew",
        "on a kept connection, too"
    );
    gateway.stop().assert_nothing_cut();
}

/// Kubernetes mounts `gateway.toml -> ..data/gateway.toml` and `..data -> ..2026_01`, and swaps `..data`.
#[test]
fn a_swapped_link_above_the_document_is_a_change() {
    let service = Service::start();
    let site = Site::new();
    let folder = site.folder();
    for mark in ["one", "two"] {
        let version = folder.join(format!("..{mark}"));
        fs::create_dir(&version).expect("the test's own folder");
        fs::write(
            version.join("gateway.toml"),
            site.completed(&toml(&service, mark)),
        )
        .expect("the test's own folder");
    }
    symlink("..one", folder.join("..data")).expect("links can be made");
    symlink("..data/gateway.toml", site.file()).expect("links can be made");
    let gateway = site.run();
    served(&gateway, "one");
    symlink("..two", folder.join("..data_tmp")).expect("links can be made");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("within one folder");
    served(&gateway, "two");
}

#[test]
fn sighup_and_post_reload_read_the_document_again() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "0"));
    let gateway = site.run();
    site.edit(&toml(&service, "1"));
    gateway.signal(Signal::HUP);
    served(&gateway, "1");
    site.edit(&toml(&service, "2"));
    let answer = gateway.ask("POST /reload");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        gateway.get("/mark").text(),
        "2",
        "it serves when the answer is there"
    );
    let again = gateway.ask("POST /reload");
    assert_eq!(again.text(), answer.text(), "nothing changed, nothing new");
    let generation = gateway.status()["generation"].clone();
    gateway.signal(Signal::HUP);
    assert_eq!(gateway.status()["generation"], generation);
    gateway.stop().assert_nothing_cut();
}

#[test]
fn hi_62_a_refused_reload_keeps_serving_and_everybody_can_see_why() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "good"));
    let gateway = site.run();
    let mut kept = gateway.client();
    let bad = toml(&service, "bad").replace("upstream = \"app\"", "upstraem = \"app\"");
    let place = format!("gateway.toml:{}:", line_of(&bad, "upstraem"));
    site.edit(&bad);
    // By the change of the file alone.
    let log = gateway.wait_for_line("reload refused");
    assert!(log.contains(&place), "{log}");
    let answer = gateway.ask("POST /reload");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.text().contains(&place), "{answer:?}");
    let status = gateway.status();
    assert!(
        status["reload"]["last_refusal"]
            .to_string()
            .contains(&place),
        "{status}"
    );
    assert_eq!(status["generation"], 1, "{status}");
    assert!(gateway.metric("config_reload_failures_total") >= 2.0);
    assert_eq!(kept.get("/mark").text(), "good");
    assert_eq!(gateway.get("/mark").text(), "good");
    assert_eq!(gateway.ask("GET /health/ready").status, 200);
    site.edit(&toml(&service, "better"));
    served(&gateway, "better");
    assert_eq!(kept.get("/mark").text(), "better");
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_whole_reload() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "good"));
    let gateway = site.run();
    let holder = std::net::TcpListener::bind((site.address(), 0)).expect("loopback");
    let taken = holder.local_addr().expect("bound");
    let more = format!("[[listener]]\nname = \"second\"\nbind = \"{taken}\"\n");
    site.edit(&(toml(&service, "bad") + &more));
    let answer = gateway.ask("POST /reload");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(
        answer.text().contains("second") && answer.text().contains(&taken.to_string()),
        "{answer:?}"
    );
    assert_eq!(gateway.get("/mark").text(), "good");
    drop(holder);
    assert_eq!(gateway.ask("POST /reload").status, 200);
    assert_eq!(Client::connect(taken).get("/mark").text(), "bad");
}

#[test]
fn hi_63_a_hundred_reloads_under_load_lose_no_request_and_cut_no_stream() {
    let service = Service::start();
    let site = Site::new();
    // Odd numbers change the busy route, even ones another.
    let numbered = |number: u64| {
        let route = format!(
            "timeout = \"{}s\"\nfilters = [{{ set_headers = {{ request = {{ x-number = \"{}\" }} }} }}]\n",
            60 + number.div_ceil(2),
            number.div_ceil(2)
        );
        document(
            service.address(),
            &route,
            &answering("/mark", &number.to_string()),
        )
    };
    site.edit(&numbered(0));
    let gateway = site.run();
    let address = gateway.address();
    let load = Load::begin(address);
    let mut lasting = Lasting::begin(address, &service);
    load.wait_for_more(20);
    let mut kept = gateway.client();
    for number in 1..=100 {
        site.edit(&numbered(number));
        let answer = gateway.ask("POST /reload");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(kept.get("/mark").text(), number.to_string());
        if number % 20 == 0 {
            load.wait_for_more(10);
            lasting.check();
        }
    }
    load.wait_for_more(350);
    lasting.end();
    assert!(load.end() > 1000, "the load was a load");
    until("the former generations to be gone", || {
        gateway.status()["generations"]
            .as_array()
            .is_some_and(|alive| alive.len() == 1)
    });
    drop(kept);
    gateway.stop().assert_nothing_cut();
}

#[test]
fn hi_63_listeners_come_and_go_while_others_serve() {
    let service = Service::start();
    let site = Site::new();
    let second = site.free_port();
    let more = format!("[[listener]]\nname = \"second\"\nbind = \"{second}\"\n");
    let (one, two) = (toml(&service, "one"), toml(&service, "two") + &more);
    site.edit(&one);
    let gateway = site.run();
    let address = gateway.address();
    let load = Load::begin(address);
    let mut lasting = Lasting::begin(address, &service);
    for round in 1..=5 {
        site.edit(&two);
        assert_eq!(gateway.ask("POST /reload").status, 200);
        let told = &gateway.status()["listeners"];
        let told = told.as_array().into_iter().flatten();
        let told: Vec<_> = told.map(|listener| listener["address"].clone()).collect();
        assert_eq!(told, [address.to_string(), second.to_string()]);
        let (mut idle, mut slow) = (Client::connect(second), Client::connect(second));
        assert_eq!(idle.get("/mark").text(), "two");
        slow.send("GET /pending HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
        service.wait_for("/pending", round);
        site.edit(&one);
        assert_eq!(gateway.ask("POST /reload").status, 200);
        until("the second listener to refuse", || {
            TcpStream::connect(second).is_err()
        });
        idle.assert_closed();
        slow.send("x");
        assert_eq!(
            slow.read_response().text(),
            "ok",
            "round {round}: what was in flight on a listener that goes is finished"
        );
        slow.assert_closed();
        lasting.check();
    }
    lasting.end();
    load.end();
    gateway.stop().assert_nothing_cut();
}

/// The certificate that a server shows to a new client, and what it answers.
fn over_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> (Vec<u8>, String) {
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a valid client");
    let socket = TcpStream::connect(address).expect("the gateway accepts");
    let mut stream = StreamOwned::new(connection, socket);
    stream
        .write_all(b"GET /mark HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered whole");
    let shown = stream.conn.peer_certificates().expect("TLS has one");
    (shown[0].to_vec(), answer)
}

#[test]
fn certificates_that_were_replaced_are_served_after_a_reload() {
    let service = Service::start();
    let (site, authority) = (Site::new(), Authority::new());
    let config = Arc::new(client_config(&authority));
    authority
        .issue(&["localhost"])
        .write(site.folder(), "edge")
        .expect("written");
    let toml = toml(&service, "secret").replacen(
        "bind =",
        "tls = { cert = \"edge.pem\", key = \"edge.key\" }\nbind =",
        1,
    );
    site.edit(&toml);
    let gateway = site.run();
    let address = gateway.address();
    let (first, answer) = over_tls(address, &config);
    assert!(answer.ends_with("secret"), "{answer}");
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a valid client");
    let socket = TcpStream::connect(address).expect("the gateway accepts");
    let mut kept = StreamOwned::new(connection, socket);
    let ask = |kept: &mut StreamOwned<ClientConnection, TcpStream>| {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("sent");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\nok") {
            kept.read_exact(&mut byte).expect("the connection lives");
            answer.push(byte[0]);
        }
    };
    ask(&mut kept);
    authority
        .issue(&["localhost"])
        .write(site.folder(), "edge")
        .expect("written");
    assert_eq!(gateway.ask("POST /reload").status, 200);
    let (second, answer) = over_tls(address, &config);
    assert!(answer.ends_with("secret"), "{answer}");
    assert_ne!(first, second, "the new certificate is shown");
    ask(&mut kept);
    // Half a pair is refused, and the good one stays.
    fs::write(site.folder().join("edge.key"), "not a key").expect("written");
    let refusal = gateway.ask("POST /reload");
    assert_eq!(refusal.status, 422, "{refusal:?}");
    assert!(refusal.text().contains("edge.key"), "{refusal:?}");
    assert_eq!(over_tls(address, &config).0, second);
    ask(&mut kept);
}

/// What renews certificates writes them one after the other and tells nobody.
#[test]
fn certificates_that_are_replaced_are_noticed_unasked() {
    let service = Service::start();
    let (site, authority) = (Site::new(), Authority::new());
    let config = Arc::new(client_config(&authority));
    let folder = site.folder().join("certificates");
    fs::create_dir(&folder).expect("the test's own folder");
    let issue = || authority.issue(&["localhost"]).write(&folder, "edge");
    issue().expect("written");
    let secured = toml(&service, "secret").replacen(
        "bind =",
        "tls = { cert = \"certificates/edge.pem\", key = \"certificates/edge.key\" }\nbind =",
        1,
    );
    site.edit(&secured);
    let gateway = site.run();
    let (first, _) = over_tls(gateway.address(), &config);
    issue().expect("written");
    until("the new certificate", || {
        over_tls(gateway.address(), &config).0 != first
    });
}
