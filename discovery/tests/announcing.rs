//! Being found, for as long as one lives and no longer.

mod support;

use support::{Fake, Real, free, until, url};
use tollgate_discovery::{Health, Registration, Registry, Settings};

/// Another service's view: a registry asked anew each time.
async fn seen(registry: &Registry) -> Vec<String> {
    registry.refresh_cache("users").await;
    let found = registry.resolve("users").await.unwrap_or_default();
    found.into_iter().map(|instance| instance.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_408_it_is_there_until_it_is_taken_back() {
    let real = Real::start();
    let registry = Registry::new(Settings::of(url(real.address))).unwrap();
    let mut announced = registry.register(Registration::new("users", "127.0.0.1:7001"));
    announced.registered().await;
    assert!(announced.is_registered());
    assert_eq!(seen(&registry).await, [announced.id()]);
    announced.deregister().await;
    assert!(seen(&registry).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_202_with_a_token_a_service_announces_itself_and_nobody_else() {
    let real = Real::guarded(&[("users", "users-0123456789abcdef")]);
    let registry = Registry::new(Settings {
        token: Some("users-0123456789abcdef".to_owned()),
        ..Settings::of(url(real.address))
    })
    .unwrap();
    let mut announced = registry.register(Registration::new("users", "127.0.0.1:7001"));
    announced.registered().await;
    assert_eq!(seen(&registry).await, [announced.id()]);
    let other = registry.register(Registration::new("orders", "127.0.0.1:7002"));
    announced.deregister().await;
    assert!(seen(&registry).await.is_empty());
    assert!(!other.is_registered());
    let stranger = Registry::new(Settings::of(url(real.address))).unwrap();
    assert!(
        stranger.resolve("users").await.is_err(),
        "lookups want one, too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_307_what_changes_is_told_at_once() {
    let real = Real::start();
    let registry = Registry::new(Settings::of(url(real.address))).unwrap();
    let mut announced = registry.register(Registration::new("users", "127.0.0.1:7001"));
    announced.registered().await;
    announced.set_health(Health::Unhealthy);
    until("it is out", async || seen(&registry).await.is_empty()).await;
    announced.set_health(Health::Healthy);
    until("it is back", async || seen(&registry).await.len() == 1).await;
    announced.set_metadata("zone", "b");
    until("its zone is known", async || {
        registry.refresh_cache("users").await;
        let found = registry.resolve("users").await.unwrap();
        found[0]
            .metadata
            .get("zone")
            .is_some_and(|zone| zone == "b")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reg_402_it_starts_before_the_registry_and_outlives_it() {
    // Nobody listens there yet, and nobody else will.
    let port = free();
    let registry = Registry::new(Settings::of(url(port))).unwrap();
    let mut announced = registry.register(Registration::new("users", "127.0.0.1:7001"));
    assert!(!announced.is_registered());
    let real = Real::start_at(port);
    announced.registered().await;
    assert_eq!(seen(&registry).await, [announced.id()]);
    drop(real);
    // One that has never heard of it, as after a lost disk.
    let _real = Real::start_at(port);
    // A beat, which comes by itself every fifteen seconds, is told to register again.
    until("it is there again", async || {
        announced.set_metadata("load", fastrand::u32(..).to_string());
        seen(&registry).await == [announced.id()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_refuses_is_asked_again_and_the_service_goes_on() {
    let fake = Fake::start(422, r#"{"code": "bad_request"}"#).await;
    let registry = Registry::new(Settings::of(url(fake.address))).unwrap();
    let mut announced = registry.register(Registration::new("users", "127.0.0.1:7001"));
    until("it was tried twice", async || fake.asked().len() >= 2).await;
    assert!(!announced.is_registered());
    fake.says(200, r#"{"status": "registered"}"#);
    announced.registered().await;
    assert!(fake.asked().iter().all(|line| line == "POST /register"));
}
