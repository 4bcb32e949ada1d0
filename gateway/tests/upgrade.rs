//! Upgrade in place (HI-64): a new process takes the sockets over, nobody is refused, nothing is lost.

mod support;

use std::ffi::OsStr;

use support::lasting::Lasting;
use support::load::{HOST, Load};
use support::service::Service;
use support::{Process, Signal, Site, answering, document, until};
use tollgate_engine::testing::certificates::{Authority, client_config};

fn toml(service: &Service, mark: &str) -> String {
    document(
        service.address(),
        "timeout = \"60s\"",
        &answering("/mark", mark),
    )
}

#[test]
fn hi_64_an_upgrade_under_load_refuses_nobody_and_loses_nothing() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "old"));
    let old = site.run();
    let (address, admin, pid) = (old.address(), old.admin(), old.pid());
    let load = Load::begin(address);
    let mut lasting = Lasting::begin(address, &service);
    load.wait_for_more(50);
    site.edit(&toml(&service, "new"));
    let new = site.upgrade();
    assert_eq!(
        (new.address(), new.admin()),
        (address, admin),
        "the same sockets"
    );
    old.wait_for_line("a successor serves");
    lasting.check();
    load.wait_for_more(100);
    // Only the new one takes connections now, while the old one still has its guests.
    for _ in 0..20 {
        assert_eq!(new.get("/mark").text(), "new");
        let ready = new.ask("GET /health/ready");
        assert_eq!(ready.status, 200, "the one that serves answers: {ready:?}");
    }
    assert_ne!(new.status()["pid"], pid);
    // Supervisors stop what they started: a process that drains already has nothing to add to that.
    old.signal(Signal::TERM);
    lasting.end();
    let ended = old.end();
    ended.assert_nothing_cut();
    load.wait_for_more(50);
    load.end();
    new.stop().assert_nothing_cut();
}

/// Handshakes and tickets of one process meet the next one.
#[test]
fn hi_64_upgrades_under_tls_load_refuse_nobody_and_lose_nothing() {
    let service = Service::start();
    let site = Site::new();
    let authority = Authority::new();
    let edge = authority.issue(&[HOST]);
    edge.write(site.folder(), "edge")
        .expect("the test's own folder");
    let document = |mark: &str| {
        let tls = "tls = { cert = \"edge.pem\", key = \"edge.key\" }\nbind =";
        toml(&service, mark).replacen("bind =", tls, 1)
    };
    site.edit(&document("0"));
    let mut serving = site.run();
    let load = Load::begin_tls(serving.address(), client_config(&authority));
    for number in 1..=3 {
        load.wait_for_more(30);
        site.edit(&document(&number.to_string()));
        let next = site.upgrade();
        std::mem::replace(&mut serving, next)
            .end()
            .assert_nothing_cut();
    }
    load.wait_for_more(30);
    load.end();
    serving.stop().assert_nothing_cut();
}

#[test]
fn hi_64_five_upgrades_in_a_row_under_load() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "0"));
    let mut serving = site.run();
    let address = serving.address();
    let load = Load::begin(address);
    for number in 1..=5 {
        load.wait_for_more(30);
        site.edit(&toml(&service, &number.to_string()));
        let next = site.upgrade();
        std::mem::replace(&mut serving, next)
            .end()
            .assert_nothing_cut();
        assert_eq!(serving.get("/mark").text(), number.to_string());
    }
    load.wait_for_more(30);
    load.end();
    serving.stop().assert_nothing_cut();
}

#[test]
fn an_upgrade_may_change_workers_and_listeners() {
    let service = Service::start();
    let site = Site::new();
    let (kept, gone, added) = (site.free_port(), site.free_port(), site.free_port());
    let listeners = |second: &str, workers: usize| {
        let more = format!(
            "[[listener]]\nname = \"second\"\nbind = \"{second}\"\n\n[server]\nworkers = {workers}\ndrain = \"60s\"\n"
        );
        document(service.address(), "", &more).replace("127.0.0.1:0", &kept.to_string())
    };
    site.edit(&listeners(&gone.to_string(), 3));
    let mut serving = site.run();
    let load = Load::begin(kept);
    for workers in [1, 4, 2] {
        load.wait_for_more(30);
        site.edit(&listeners(&added.to_string(), workers));
        let next = site.upgrade();
        std::mem::replace(&mut serving, next)
            .end()
            .assert_nothing_cut();
        let mut client = tollgate_engine::testing::client::Client::connect(added);
        assert_eq!(client.get("/").text(), "ok");
        until("the listener that is gone to refuse", || {
            std::net::TcpStream::connect(gone).is_err()
        });
    }
    load.wait_for_more(30);
    load.end();
    serving.stop().assert_nothing_cut();
}

#[test]
fn an_upgrade_with_a_bad_document_leaves_the_old_one_serving() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "old"));
    let old = site.run();
    let mut kept = old.client();
    assert_eq!(kept.get("/mark").text(), "old");
    let test =
        "[[test]]\nrequest = { method = \"GET\", path = \"/\" }\nexpect = { status = 404 }\n";
    let bad = [
        format!("{}\n[[route", toml(&service, "new")),
        format!("{}\n{test}", toml(&service, "new")),
        toml(&service, "new").replace("upstream = \"app\"", "upstream = \"nowhere\""),
    ];
    for toml in bad {
        site.edit(&toml);
        let ended = site.command(&["upgrade"], &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("gateway.toml:"), "{ended:?}");
        assert_eq!(kept.get("/mark").text(), "old");
        assert_eq!(old.get("/mark").text(), "old");
        assert_eq!(old.ask("GET /health/ready").status, 200);
    }
    site.edit(&toml(&service, "new"));
    let new = site.upgrade();
    old.end().assert_nothing_cut();
    assert_eq!(new.get("/mark").text(), "new");
}

/// A successor that cannot have an address that it needs gives everything back by ending.
#[test]
fn an_upgrade_that_cannot_bind_leaves_the_old_one_serving() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "old"));
    let old = site.run();
    let holder = std::net::TcpListener::bind((site.address(), 0)).expect("loopback");
    let taken = holder.local_addr().expect("bound");
    let more = format!("[[listener]]\nname = \"second\"\nbind = \"{taken}\"\n");
    site.edit(&(toml(&service, "new") + &more));
    let ended = site.command(&["upgrade"], &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("listener second"), "{ended:?}");
    for _ in 0..20 {
        assert_eq!(old.get("/mark").text(), "old");
    }
    // What the old one put off for the successor's sake is made up for.
    drop(holder);
    site.edit(&toml(&service, "newer"));
    until("the next change to be served", || {
        old.get("/mark").text() == "newer"
    });
    old.stop().assert_nothing_cut();
}

#[test]
fn an_upgrade_when_nothing_runs_says_so() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "new"));
    let ended = site.command(&["upgrade"], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("no running gateway") && ended.stderr.contains("`run`"),
        "{ended:?}"
    );
}

#[test]
fn a_gateway_after_an_upgrade_follows_its_file_and_can_be_succeeded_again() {
    let service = Service::start();
    let site = Site::with(&toml(&service, "0"));
    let first = site.run();
    let second = Process::start([OsStr::new("upgrade"), site.file().as_os_str()]).serving();
    first.end().assert_nothing_cut();
    site.edit(&toml(&service, "1"));
    until("the change to be served", || {
        second.get("/mark").text() == "1"
    });
    let third = site.upgrade();
    second.end().assert_nothing_cut();
    assert_eq!(third.get("/mark").text(), "1");
}
