//! Limits over several gateways through a real store (GW-315): the stated bound, a store that dies, hangs, talks nonsense
//! or wants another password, and one that comes back.
//!
//! Bounds are computed from the time that the test itself measured around what it did; that the lower ones are met shows
//! in that a test ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::certificates::Authority;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::store::{Redis, free};
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::{self, wait};

/// A gateway of one worker that answers by itself, behind a shared limit.
fn toml(limits: &str, by: &str, rate: &str, burst: u64) -> String {
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"here\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"here\" }}\n\
         filters = [{{ rate_limit = \"all\" }}]\n\n\
         [limits]\n{limits}\n\n\
         [[limit]]\nname = \"all\"\nby = {by}\nrate = \"{rate}\"\nburst = {burst}\nshared = true\n"
    )
}

/// A store that is asked with patience: whether it is away is not a question of how busy the machine is, except where a
/// test says so.
fn store(address: SocketAddr) -> String {
    format!("store = \"redis://{address}\"\ntimeout = \"30s\"")
}

fn three(toml: &str) -> Vec<Gateway> {
    (0..3).map(|_| Gateway::start(toml)).collect()
}

fn sharing(gateway: &Gateway) -> serde_json::Value {
    gateway.get_status()["sharing"].clone()
}

/// Waits until every gateway's standing is as wanted.
fn until(gateways: &[Gateway], what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
    for gateway in gateways {
        wait(what, || sharing(gateway), &holds);
    }
}

fn until_all_meet(gateways: &[Gateway]) {
    let count = gateways.len();
    until(gateways, "they meet", |told| {
        told["reached"] == true && told["gateways"] == count
    });
}

/// All gateways are asked at once until so many requests were admitted by all of them, or by each; how many were, and how
/// long it took from before the first request to after the last.
fn overload(gateways: &[Gateway], total: u64, each: u64) -> (u64, f64) {
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
                    assert!(began.elapsed() < PATIENCE, "too little is admitted");
                }
            });
        }
    });
    (admitted.into_inner(), began.elapsed().as_secs_f64())
}

/// Asks one gateway until it has refused for a while without a break; how many requests it admitted.
fn drain(gateway: &Gateway) -> u64 {
    let mut client = gateway.client();
    let (mut admitted, mut refused, mut since) = (0, 0, Instant::now());
    // A refusal may mean that tokens are on their way; many in a row over a while, that there are none.
    while refused < 50 || since.elapsed() < Duration::from_millis(300) {
        let response = client.get("/");
        match response.status {
            200 => {
                admitted += 1;
                (refused, since) = (0, Instant::now());
            }
            status => {
                assert_eq!((status, &*response.code()), (429, "rate_limited"));
                refused += 1;
            }
        }
    }
    admitted
}

#[test]
fn gw_315_three_gateways_admit_one_limit_together() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let toml = toml(&store(redis.address()), "\"route\"", "200/s", 100);
    let gateways = three(&toml);
    until_all_meet(&gateways);
    let (admitted, seconds) = overload(&gateways, 700, 1);
    // The limit, and a block of 100 x 0.1 / 3 tokens for each.
    let most = 100.0 + 200.0 * seconds + 9.0 + 1.0;
    assert!(
        admitted as f64 <= most,
        "{admitted} > {most} in {seconds} s"
    );
    println!(
        "admitted {admitted} in {seconds:.3} s: limit {:.0}, bound {most:.0}",
        most - 10.0
    );
    // From the store alone, and never on a request's way: every token came ahead, in blocks.
    let metrics = gateways[0].metrics();
    assert!(
        metrics.contains("shared_limit_store_reached 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("shared_limit_gateways 3\n"));
    // Shares are by demand, not by luck: who asks as much gets about as much.
    for gateway in &gateways {
        let status = gateway.get_status();
        let own = status["limits"][0]["tiers"][0]["admitted"].as_u64();
        assert!(
            own.is_some_and(|own| own > admitted / 10),
            "{own:?} of {admitted}"
        );
        assert_eq!(status["limits"][0]["leased"], true);
    }
}

#[test]
fn gw_315_a_client_has_one_bucket_whichever_gateway_it_asks() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let toml = toml(&store(redis.address()), "\"client_ip\"", "1/h", 20);
    let gateways = three(&toml);
    until_all_meet(&gateways);
    // The first takes all there is; the others meet a client of whom they know nothing. And again, should tokens have been
    // on their way for longer than anybody asked.
    let mut admitted = 0;
    waiting::until("all that there is", || {
        admitted += gateways.iter().map(drain).sum::<u64>();
        admitted >= 20
    });
    assert!((20..=23).contains(&admitted), "{admitted}");
    // What is kept there leaves by itself.
    let keys = redis.ask("KEYS tollgate:1:*");
    assert!(keys.contains("tollgate:1:{all}:"), "{keys}");
    for key in keys.lines().filter(|line| line.starts_with("tollgate")) {
        let left = redis.ask(&format!("PTTL {key}"));
        let left: i64 = left[1..]
            .lines()
            .next()
            .unwrap_or_default()
            .parse()
            .expect("a number");
        assert!(left > 0 && left <= 21 * 3_600_000 * 2, "{key} {left}");
    }
}

#[test]
fn gw_315_a_store_that_dies_leaves_each_its_share_and_one_that_returns_is_used_again() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let toml = toml(&store(redis.address()), "\"route\"", "90/s", 60);
    let gateways = three(&toml);
    until_all_meet(&gateways);
    let (before, first) = overload(&gateways, 100, 1);
    let most = 60.0 + 90.0 * first + 6.0 + 1.0;
    assert!(before as f64 <= most, "{before} > {most}");
    redis.kill();
    let began = Instant::now();
    until(&gateways, "it is away", |told| told["reached"] == false);
    let told = sharing(&gateways[0]);
    assert_eq!(told["gateways"], 3, "as was last known");
    assert!(told["reason"].is_string(), "{told}");
    assert!(
        gateways[0]
            .metrics()
            .contains("shared_limit_store_reached 0\n")
    );
    // Each of them goes on, at its own pace.
    let (alone, _) = overload(&gateways, 150, 20);
    let away = began.elapsed().as_secs_f64();
    let shares = 60.0 + 90.0 * away + 6.0 + 3.0;
    assert!(alone as f64 <= shares, "{alone} > {shares} in {away} s");
    assert!(
        gateways[0]
            .metrics()
            .contains("shared_limit_tokens_total{limit=\"all\",from=\"own_share\"}")
    );
    redis.restart();
    until_all_meet(&gateways);
    // It has forgotten everything, which is worth a burst.
    let (after, last) = overload(&gateways, 200, 1);
    let most = 60.0 * 2.0 + 90.0 * last + 6.0 + 1.0;
    assert!(after as f64 <= most, "{after} > {most}");
    let errors = sharing(&gateways[0])["errors"].as_u64();
    assert!(errors.is_some_and(|errors| errors > 0), "{errors:?}");
}

#[test]
fn gw_315_a_store_that_hangs_delays_no_request() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let limits = store(redis.address()).replace("30s", "100ms");
    let gateways = three(&toml(&limits, "\"route\"", "90/s", 60));
    until_all_meet(&gateways);
    redis.stall();
    until(&gateways, "it is away", |told| told["reached"] == false);
    assert_eq!(sharing(&gateways[0])["reason"], "no answer within 100 ms");
    overload(&gateways, 60, 10);
    redis.go_on();
    until_all_meet(&gateways);
    overload(&gateways, 60, 10);
}

/// What a gateway says of a store that is none.
fn reason(limits: &str) -> String {
    let gateway = Gateway::start(&toml(limits, "\"route\"", "30/s", 30));
    let gateways = [gateway];
    until(&gateways, "it is away", |told| told["reason"].is_string());
    // And it serves: all of the limit, as long as nobody has said that there are others.
    overload(&gateways, 40, 1);
    let told = gateways[0].get_status().to_string() + &gateways[0].metrics();
    assert!(!told.contains("hush-hush"), "a secret is told");
    let told = sharing(&gateways[0]);
    assert_eq!(
        (&told["reached"], &told["gateways"]),
        (&false.into(), &1.into())
    );
    told["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_store_that_is_not_there_or_talks_nonsense_is_told_as_what_it_is() {
    assert!(reason(&store(Upstream::nobody())).contains("refused"));
    for nonsense in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"*1000000000\r\n",
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"$5\r\nhello\r\n",
        b":1\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        // Ends with the test's process; nothing waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut buffer = [0; 4096];
                while matches!(stream.read(&mut buffer), Ok(1..)) {
                    if stream.write_all(nonsense).is_err() {
                        break;
                    }
                }
            }
        });
        let told = reason(&store(address));
        assert!(
            told.contains("not a store"),
            "{}: {told}",
            nonsense.escape_ascii()
        );
    }
}

#[test]
fn a_store_wants_its_password_which_is_never_told() {
    let Some(redis) = Redis::start(&["--requirepass", "open-sesame"]) else {
        return;
    };
    let address = redis.address();
    let told = reason(&format!(
        "store = \"redis://:hush-hush@{address}\"\ntimeout = \"30s\""
    ));
    assert!(told.contains("WRONGPASS"), "{told}");
    let told = reason(&store(address));
    assert!(told.contains("NOAUTH"), "{told}");
    let right = format!("store = \"redis://default:open%2Dsesame@{address}/3\"\ntimeout = \"30s\"");
    let gateways = [Gateway::start(&toml(&right, "\"route\"", "30/s", 30))];
    until_all_meet(&gateways);
    overload(&gateways, 40, 1);
    let told = sharing(&gateways[0]);
    assert_eq!(told["store"], format!("redis://{address}/3"));
    // A store that forgot the scripts is taught them again.
    let keys = redis.ask("AUTH open-sesame\nSELECT 3\nSCRIPT FLUSH\nDBSIZE");
    assert!(keys.contains("+OK\r\n:"), "{keys}");
    until(&gateways, "it noticed", |told| {
        told["errors"].as_u64() > Some(0)
    });
    until_all_meet(&gateways);
}

#[test]
fn a_store_is_reached_by_tls_and_its_certificate_is_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let ca = authority.write(folder.path(), "ca").expect("written");
    let address = free();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let files = authority.issue(&[&host]).write(folder.path(), "store");
    let files = files.expect("written");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (cert, key) = (text(&files.cert), text(&files.key));
    let arguments = ["--port", "0", "--tls-port", &port, "--tls-cert-file", &cert];
    let more = ["--tls-key-file", &key, "--tls-auth-clients", "no"];
    let Some(_redis) = Redis::start_at(address, &[&arguments[..], &more].concat()) else {
        return;
    };
    let limits = |ca: &std::path::Path| {
        format!(
            "store = \"rediss://{address}\"\nca = \"{}\"\ntimeout = \"30s\"",
            ca.display()
        )
    };
    let gateways = [Gateway::start(&toml(&limits(&ca), "\"route\"", "30/s", 30))];
    until_all_meet(&gateways);
    let stranger = Authority::new()
        .write(folder.path(), "stranger")
        .expect("written");
    let told = reason(&limits(&stranger));
    assert!(told.contains("certificate"), "{told}");
}

#[test]
fn a_limit_becomes_shared_and_is_changed_by_a_reload() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let shared = toml(&store(redis.address()), "\"route\"", "1/h", 30);
    let alone = shared.replace("shared = true\n", "");
    let gateways = [Gateway::start(&alone)];
    assert!(sharing(&gateways[0]).is_null());
    assert_eq!(gateways[0].get("/").status, 200);
    gateways[0].edit(&shared).expect("valid");
    until_all_meet(&gateways);
    overload(&gateways, 30, 1);
    // More is allowed, and what was used is not forgotten.
    gateways[0]
        .edit(&shared.replace("1/h", "3600/h"))
        .expect("valid");
    let (admitted, seconds) = overload(&gateways, 3, 1);
    assert!(
        admitted as f64 <= seconds + 3.0 + 1.0,
        "{admitted} in {seconds} s"
    );
    gateways[0].edit(&alone).expect("valid");
    until(&gateways, "it is left", serde_json::Value::is_null);
    assert_eq!(gateways[0].get("/").status, 200);
}

#[test]
fn hi_59_clients_that_are_made_up_do_not_fill_the_store() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let toml = toml(
        &store(redis.address()),
        "{ header = \"x-user\" }",
        "1/h",
        20,
    );
    let gateways = [Gateway::start(&toml)];
    until_all_meet(&gateways);
    let mut client: Client = gateways[0].client();
    let began = Instant::now();
    for number in 0..10_000 {
        let user = format!("X-User: made-up-{number}");
        assert_eq!(client.request("GET /", &[&user]).status, 200);
    }
    let most = 1000.0 * (began.elapsed().as_secs_f64() + 1.0);
    let size = redis.ask("DBSIZE");
    let size: f64 = size[1..]
        .lines()
        .next()
        .unwrap_or_default()
        .parse()
        .expect("a number");
    assert!(size <= most + 1.0, "{size} > {most}");
    assert!(!redis.ask("KEYS *").contains("made-up"));
    assert!(!gateways[0].metrics().contains("made-up"));
}
