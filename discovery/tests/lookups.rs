//! Finding others, whatever becomes of the registry.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Fake, Real, list, until, url};
use tollgate_discovery::{Error, Registration, Registry, Settings, Strategy, Wanted};

fn addresses(instances: &[tollgate_discovery::Instance]) -> Vec<&str> {
    instances
        .iter()
        .map(|instance| &*instance.address)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_401_a_real_registry_is_asked_and_filters_apply() {
    let real = Real::start();
    let registry = Registry::new(Settings::of(url(real.address))).unwrap();
    let mut both = Vec::new();
    for (port, version) in [(7001, "1.2.0"), (7002, "2.0.1")] {
        let address = format!("127.0.0.1:{port}");
        let registration = Registration::new("users", address).metadata("version", version);
        let mut announced = registry.register(registration);
        announced.registered().await;
        both.push(announced);
    }
    let mut found = registry.resolve("users").await.unwrap();
    found.sort_by(|a, b| a.address.cmp(&b.address));
    assert_eq!(addresses(&found), ["127.0.0.1:7001", "127.0.0.1:7002"]);
    let first = registry
        .resolve_with_filter("users", &Wanted::version("1.1"))
        .await;
    assert_eq!(addresses(&first.unwrap()), ["127.0.0.1:7001"], "REG-411");
    let none = registry
        .resolve_with_filter("users", &Wanted::version("3"))
        .await;
    let none = none.unwrap_err();
    assert_eq!(
        none,
        Error::NoHealthyInstances {
            service: "users".to_owned()
        }
    );
    assert_eq!(
        registry.resolve("nobody").await.unwrap_err().to_string(),
        "no healthy instances of `nobody`"
    );
    let balancer = registry.load_balancer("users", Strategy::RoundRobin);
    let (one, other) = (
        balancer.pick().await.unwrap(),
        balancer.pick().await.unwrap(),
    );
    assert_ne!(one.instance().id, other.instance().id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_404_what_was_known_is_served_while_no_registry_answers() {
    let fake = Fake::start(200, &list(&["10.0.0.1:80"])).await;
    let registry = Registry::new(Settings {
        fallback: [("orders".to_owned(), vec!["10.9.9.9:80".to_owned()])].into(),
        ..Settings::of(url(fake.address))
    })
    .unwrap();
    assert_eq!(
        addresses(&registry.resolve("users").await.unwrap()),
        ["10.0.0.1:80"]
    );
    fake.says(500, "out of order");
    assert!(!registry.refresh_cache("users").await);
    assert_eq!(
        addresses(&registry.resolve("users").await.unwrap()),
        ["10.0.0.1:80"]
    );
    assert_eq!(
        addresses(&registry.resolve("orders").await.unwrap()),
        ["10.9.9.9:80"]
    );
    let why = registry.resolve("carts").await.unwrap_err().to_string();
    assert!(
        why.contains("`carts`") && why.contains("out of order"),
        "{why}"
    );
    fake.says(200, "no JSON");
    assert!(
        !registry.refresh_cache("users").await,
        "nonsense takes nothing away"
    );
    assert_eq!(
        addresses(&registry.resolve("users").await.unwrap()),
        ["10.0.0.1:80"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_403_many_who_miss_a_name_at_once_ask_once() {
    let fake = Fake::start(200, &list(&["10.0.0.1:80"])).await;
    let registry = Registry::new(Settings::of(url(fake.address))).unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let registry = registry.clone();
        asking.spawn(async move { registry.resolve("users").await });
    }
    while let Some(found) = asking.join_next().await {
        assert_eq!(found.unwrap().unwrap().len(), 1);
    }
    assert_eq!(fake.asked(), ["GET /services/users"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_405_a_failed_call_asks_at_once_and_goes_elsewhere() {
    let fake = Fake::start(200, &list(&["10.0.0.1:80", "10.0.0.2:80"])).await;
    let registry = Registry::new(Settings::of(url(fake.address))).unwrap();
    let balancer = registry.load_balancer("users", Strategy::Random);
    let first = balancer.pick().await.unwrap();
    let bad = first.instance().address.clone();
    first.failed();
    until("it is asked again", async || fake.asked().len() == 2).await;
    for _ in 0..50 {
        let next = balancer.pick().await.unwrap();
        assert_ne!(next.instance().address, bad);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_407_another_registry_answers_when_the_first_does_not() {
    let first = Fake::start(503, "stopping").await;
    let second = Fake::start(200, &list(&["10.0.0.2:80"])).await;
    let registry = Registry::new(Settings {
        urls: vec![url(first.address), url(second.address)],
        ..Settings::default()
    })
    .unwrap();
    let began = Instant::now();
    assert_eq!(
        addresses(&registry.resolve("users").await.unwrap()),
        ["10.0.0.2:80"]
    );
    assert!(registry.refresh_cache("users").await);
    let asked = first.asked().len();
    // For a second, which a machine may let pass here.
    assert!(
        asked == 1 || began.elapsed() >= Duration::from_secs(1),
        "it rests"
    );
    first.says(200, &list(&["10.0.0.1:80"]));
    until("it is first again", async || {
        registry.refresh_cache("users").await && first.asked().len() > asked
    })
    .await;
    assert_eq!(
        addresses(&registry.resolve("users").await.unwrap()),
        ["10.0.0.1:80"],
        "failback"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_409_after_ten_failures_it_is_left_alone_and_the_figures_say_so() {
    let fake = Fake::start(500, "").await;
    let registry = Registry::new(Settings::of(url(fake.address))).unwrap();
    for _ in 0..25 {
        assert!(!registry.refresh_cache("users").await);
    }
    until("ten questions", async || fake.asked().len() >= 10).await;
    assert_eq!(fake.asked().len(), 10);
    assert!(registry.cache_stats().degraded);
    assert!(registry.metrics().contains("discovery_degraded 1\n"));
    assert!(registry.metrics().contains("discovery_failures_total 25\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_token() {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let fake = Fake::start_with(200, &list(&["10.0.0.1:80"]), Some(Arc::new(config).into())).await;
    let settings = Settings {
        token: Some("secret".to_owned()),
        ca: Some(pair.cert.pem().into_bytes()),
        ..Settings::of(format!("https://localhost:{}", fake.address.port()))
    };
    let registry = Registry::new(settings.clone()).unwrap();
    assert_eq!(registry.resolve("users").await.unwrap().len(), 1);
    assert_eq!(fake.asked(), ["GET /services/users Bearer secret"]);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let stranger = Registry::new(Settings {
        ca: Some(other.cert.pem().into_bytes()),
        ..settings
    })
    .unwrap();
    let why = stranger.resolve("users").await.unwrap_err().to_string();
    assert!(why.contains("no TLS"), "{why}");
    assert_eq!(fake.asked().len(), 1);
}
