//! One authority over several control planes: any of them takes requests and all tell the same, whoever leads, and a
//! token is good once, wherever it is shown (MESH-304, 307).

use rustix::process::Signal;
use serde_json::Value;
use tollgate_config::feed::Line;
use tollgate_config::identity::Trust;
use tollgate_engine::testing::client::Response;

use super::Reader;
use super::etcd::missing;
use super::fleet::Fleet;
use super::support::member::{Member, answer, lets_in, name_of, now, refused};
use super::support::until;

const LINE: &str = "POST /identity/certificate";

/// Asks one of them until somebody leads. What was answered with doubt is asked again: whoever holds the key is the same.
fn asked(fleet: &Fleet, number: usize, line: &str, body: &str) -> Response {
    let mut answer = None;
    until(line, || {
        let response = fleet.caller(number).ask(line, body);
        let done = response.status != 503;
        answer = Some(response);
        done
    });
    answer.expect("answered")
}

/// What all of them tell, as soon as it is the same.
fn trust(fleet: &Fleet) -> Trust {
    let mut told = None;
    until("the same trust everywhere", || {
        let all: Vec<_> = { fleet.there().into_iter() }
            .map(|number| fleet.caller(number).ask("GET /identity/trust", ""))
            .collect();
        let same = all
            .iter()
            .all(|one| one.status == 200 && one.body == all[0].body);
        told = same.then(|| serde_json::from_slice(&all[0].body).expect("trust"));
        same
    });
    told.expect("trust")
}

/// Asks until somebody leads.
fn token(fleet: &Fleet, service: &str) -> String {
    let body = serde_json::json!({ "service": service }).to_string();
    let (status, made) = fleet.ask("POST /identity/token", &body);
    assert_eq!(status, 200, "{made}");
    made["token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_token_is_good_once_wherever_it_is_shown_and_all_tell_the_same_mesh_307() {
    if missing() {
        return;
    }
    let fleet = Fleet::start(3, 1, "");
    fleet.until_led();
    let first = trust(&fleet);
    for _ in 0..3 {
        let token = token(&fleet, "orders");
        let members: Vec<Member> = (0..3).map(|_| Member::new("orders")).collect();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asking = members.iter().enumerate().map(|(number, member)| {
                let (fleet, body) = (&fleet, member.joining(&token));
                scope.spawn(move || asked(fleet, number, LINE, &body))
            });
            let asking: Vec<_> = asking.collect();
            asking
                .into_iter()
                .map(|one| one.join().expect("asked"))
                .collect()
        });
        let good: Vec<_> = answers.iter().filter(|one| one.status == 200).collect();
        assert_eq!(good.len(), 1, "one is believed");
        let given = answer(good[0]);
        assert!(lets_in(&first, &given.certificate, now()));
        for other in answers.iter().filter(|one| one.status != 200) {
            refused(other, 403, "token_used");
        }
    }
    // Listed at each, with the address of whoever asked.
    for number in 0..3 {
        until("the members", || {
            let standing = fleet.caller(number).json("GET /identity", "", 200);
            let member = &standing["members"][0];
            member["certificates"] == 3 && member["address"] == "127.0.0.1"
        });
    }
}

#[test]
fn whoever_leads_next_signs_with_the_same_keys_and_knows_who_is_revoked_mesh_304() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(2, 1, "");
    let leader = fleet.until_led();
    let follower = 1 - leader;
    let before = trust(&fleet);
    let mut reader = Reader::trusting(&fleet, follower);
    assert!(matches!(reader.next(), Line::Hello(_)));
    assert!(matches!(reader.next(), Line::Trust(told) if told == before));
    let (member, next) = (Member::new("orders"), Member::new("orders"));
    let joining = member.joining(&token(&fleet, "orders"));
    let given = answer(&asked(&fleet, follower, LINE, &joining));
    let (_, serial) = name_of(&given.certificate);
    let other = Member::new("users");
    let joining = other.joining(&token(&fleet, "users"));
    let good = answer(&asked(&fleet, follower, LINE, &joining));
    let body = format!("{{\"serial\": \"{serial}\"}}");
    let revoked = asked(&fleet, follower, "POST /identity/revoke", &body);
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    loop {
        match reader.next() {
            Line::Trust(told) => {
                assert!(told.version > before.version && told.revoked == [serial]);
                break;
            }
            Line::Begin(_) | Line::End(_) | Line::Beat(_) => {}
            line => panic!("{line:?}"),
        }
    }
    let rotated = asked(&fleet, follower, "POST /identity/rotate", "");
    // 409: the first answer was lost.
    assert!([200, 409].contains(&rotated.status), "{}", rotated.text());
    let announced = trust(&fleet);
    fleet.signal(leader, Signal::KILL);
    fleet.kill(leader);
    until("the other to lead", || {
        fleet.about(follower)["leads"] == true
    });
    assert_eq!(trust(&fleet), announced);
    let renewal = member.renewing(&next, &given.certificate);
    refused(&asked(&fleet, follower, LINE, &renewal), 403, "not_proven");
    let renewal = other.renewing(&Member::new("users"), &good.certificate);
    let renewed = answer(&asked(&fleet, follower, LINE, &renewal));
    assert!(
        lets_in(&before, &renewed.certificate, now()),
        "the same key signs"
    );
    let standing: Value = fleet.caller(follower).json("GET /identity", "", 200);
    let phases: Vec<&Value> = { standing["authorities"].as_array().expect("keys").iter() }
        .map(|one| &one["phase"])
        .collect();
    assert_eq!(phases, ["signs", "announced"]);
}
