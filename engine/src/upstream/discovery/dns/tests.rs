//! Against a name server of our own, on loopback.

use std::sync::Mutex;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use tokio::sync::mpsc;

use super::*;
use crate::upstream::discovery::{Report, Source, follow};

/// What the server knows; may change while it serves.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<Vec<Record>>>);

impl Zone {
    fn add(&self, name: &str, ttl: u32, data: RData) {
        let record = Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data);
        self.0.lock().unwrap().push(record);
    }

    fn address(&self, name: &str, ttl: u32, address: &str) {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(name, ttl, data);
    }

    fn server(&self, name: &str, priority: u16, weight: u16, port: u16, target: &str) {
        let target = Name::from_ascii(target).unwrap();
        self.add(
            name,
            60,
            RData::SRV(SRV::new(priority, weight, port, target)),
        );
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    fn answer(&self, query: &[u8]) -> Vec<u8> {
        let query = Message::from_vec(query).unwrap();
        let question = query.queries[0].clone();
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.add_query(question.clone());
        let records = self.0.lock().unwrap();
        let mut name = question.name().clone();
        let mut known = false;
        // An alias comes before the records that it stands for, as real servers have it.
        for record in records.iter() {
            if record.name != name {
                continue;
            }
            known = true;
            if record.record_type() == question.query_type() {
                answer.add_answer(record.clone());
            } else if let RData::CNAME(CNAME(target)) = &record.data {
                answer.add_answer(record.clone());
                name = target.clone();
            }
        }
        if !known {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.to_vec().unwrap()
    }

    /// Serves until the test's runtime ends.
    async fn serve(&self) -> Dns {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Dns::with_servers(&[socket.local_addr().unwrap()]).unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                socket
                    .send_to(&zone.answer(&buffer[..length]), peer)
                    .await
                    .unwrap();
            }
        });
        dns
    }
}

fn name(name: &str, port: u16) -> Question {
    Question::Addresses {
        name: name.to_owned(),
        port,
        weight: 2,
        zone: Some("a".to_owned()),
    }
}

fn servers(name: &str) -> Question {
    Question::Servers {
        name: name.to_owned(),
    }
}

fn addresses(answer: &Answer) -> Vec<String> {
    answer
        .endpoints
        .iter()
        .map(|resolved| resolved.address.to_string())
        .collect()
}

#[tokio::test]
async fn a_name_stands_for_all_its_addresses_for_the_shortest_time() {
    let zone = Zone::default();
    zone.address("orders.test.", 30, "10.0.0.2");
    zone.address("orders.test.", 20, "10.0.0.1");
    zone.address("orders.test.", 10, "2001:db8::1");
    let dns = zone.serve().await;
    let answer = dns.ask(&name("orders.test", 80)).await.unwrap();
    assert_eq!(
        addresses(&answer),
        ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]
    );
    assert_eq!(answer.ttl, Duration::from_secs(10));
    let first = &answer.endpoints[0];
    assert_eq!((first.name.as_str(), first.weight), ("orders.test:80", 2));
    assert_eq!(first.zone.as_deref(), Some("a"));
}

#[tokio::test]
async fn an_alias_is_followed_and_its_time_counts() {
    let zone = Zone::default();
    zone.add(
        "orders.test.",
        5,
        RData::CNAME(CNAME(Name::from_ascii("real.test.").unwrap())),
    );
    zone.address("real.test.", 60, "10.0.0.1");
    let dns = zone.serve().await;
    let answer = dns.ask(&name("orders.test", 80)).await.unwrap();
    assert_eq!(addresses(&answer), ["10.0.0.1:80"]);
    assert_eq!(answer.ttl, Duration::from_secs(5));
    assert_eq!(answer.endpoints[0].name, "orders.test:80");
}

#[tokio::test]
async fn a_name_that_is_not_there_is_a_failure_that_names_it() {
    let dns = Zone::default().serve().await;
    let failure = dns.ask(&name("gone.test", 80)).await.unwrap_err();
    assert_eq!(failure.name, "gone.test");
    assert!(failure.to_string().contains("gone.test"), "{failure}");
}

#[tokio::test]
async fn a_service_is_its_best_group_with_its_weights() {
    let zone = Zone::default();
    let service = "_http._tcp.orders.test.";
    zone.server(service, 10, 30, 8001, "one.test.");
    zone.server(service, 10, 0, 8002, "two.test.");
    zone.server(service, 20, 50, 8003, "three.test.");
    zone.server(service, 10, 9, 8004, "missing.test.");
    zone.address("one.test.", 40, "10.0.0.1");
    zone.address("two.test.", 50, "10.0.0.2");
    zone.address("three.test.", 50, "10.0.0.3");
    let dns = zone.serve().await;
    let answer = dns.ask(&servers(service)).await.unwrap();
    assert_eq!(addresses(&answer), ["10.0.0.1:8001", "10.0.0.2:8002"]);
    let weights: Vec<_> = answer
        .endpoints
        .iter()
        .map(|resolved| resolved.weight)
        .collect();
    assert_eq!(weights, [30, 1]);
    assert_eq!(answer.endpoints[0].name, "orders.test:8001");
    assert_eq!(answer.ttl, Duration::from_secs(40));
}

#[tokio::test]
async fn a_service_that_is_not_offered_is_a_failure() {
    let zone = Zone::default();
    zone.server("_http._tcp.orders.test.", 0, 0, 0, ".");
    let dns = zone.serve().await;
    assert!(dns.ask(&servers("_http._tcp.orders.test")).await.is_err());
    assert!(dns.ask(&servers("_none._tcp.orders.test")).await.is_err());
}

/// The one name that everybody uses first: one endpoint, from `/etc/hosts`, without a server.
#[tokio::test]
async fn localhost_is_one_endpoint() {
    for dns in [Dns::with_servers(&[]).unwrap(), Dns::system().unwrap()] {
        let answer = dns.ask(&name("localhost", 80)).await.unwrap();
        assert_eq!(addresses(&answer), ["127.0.0.1:80"]);
    }
}

#[test]
fn addresses_without_a_route_are_left_out_unless_there_are_no_others() {
    let dns = |reachable| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        Dns {
            reachable,
            ..Dns::with_servers(&[]).unwrap()
        }
    };
    let all = |text: &[&str]| -> Vec<IpAddr> {
        text.iter()
            .map(|address| address.parse().unwrap())
            .collect()
    };
    let both = all(&["10.0.0.1", "2001:db8::1"]);
    assert_eq!(dns(|_| true).usable(both.clone()), both);
    assert_eq!(dns(|_| false).usable(both), all(&["10.0.0.1"]));
    let six = all(&["2001:db8::1"]);
    assert_eq!(dns(|_| false).usable(six.clone()), six);
    assert_eq!(
        dns(|_| true).usable(all(&["127.0.0.1", "::1"])),
        all(&["127.0.0.1"])
    );
    assert_eq!(dns(|_| true).usable(all(&["::1"])), all(&["::1"]));
}

#[tokio::test]
async fn a_watched_name_is_asked_for_again_and_its_last_answer_outlives_an_outage() {
    let zone = Zone::default();
    zone.address("orders.test.", 0, "10.0.0.1");
    let dns = zone.serve().await;
    let endpoints = tollgate_config::document::EndpointSource::Dns {
        name: "orders.test".to_owned(),
        port: Some(80),
        srv: false,
        at: tollgate_config::document::At(None),
    };
    let source = Source::new(&endpoints).unwrap();
    let (send, mut reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        follow(&dns, &source, || 0.0, |report| send.send(report).unwrap()).await;
    });
    let mut changed = async || loop {
        match reports.recv().await.unwrap() {
            Report::Changed(all) => return all[0].address.to_string(),
            Report::Failed(failure) => assert_eq!(failure.name, "orders.test"),
            Report::Recovered(name) => assert_eq!(name, "orders.test"),
        }
    };
    assert_eq!(changed().await, "10.0.0.1:80");
    zone.clear();
    // The next report of endpoints is the new address, not an empty list in between.
    zone.address("orders.test.", 0, "10.0.0.2");
    assert_eq!(changed().await, "10.0.0.2:80");
    zone.clear();
    match reports.recv().await.unwrap() {
        Report::Failed(failure) => assert_eq!(failure.name, "orders.test"),
        other => panic!("{other:?}"),
    }
    zone.address("orders.test.", 0, "10.0.0.3");
    let next = async {
        loop {
            if let Report::Changed(all) = reports.recv().await.unwrap() {
                return all[0].address.to_string();
            }
        }
    };
    assert_eq!(next.await, "10.0.0.3:80");
}
