//! What holds for how long: keys that an issuer publishes, and what a worker has verified.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use serde_json::json;

use super::super::Refusal;
use super::{NOW, SECRET, World, claims, published, with};
use crate::testing::tokens::Signer;

#[test]
fn an_unknown_key_is_worth_a_fetch_when_the_last_one_is_old_and_a_refusal_when_it_is_new() {
    let (first, second) = (Signer::ed25519("1"), Signer::ed25519("2"));
    let world = published();
    let token = |signer: &Signer| signer.token(&with("exp", json!(NOW + 1000)));
    assert_eq!(world.refusal(&token(&first)), Some(Refusal::NoKeys));
    world.publish(&[&first], 0);
    assert!(world.ask_at(&token(&first), 1).is_ok());
    for (second_of, refusal) in [(9, Refusal::UnknownKey), (11, Refusal::NoKeys)] {
        assert_eq!(
            world.ask_at(&token(&second), second_of).err(),
            Some(refusal)
        );
    }
    let odd = first.sign(r#"{"alg":"EdDSA","kid":"../../etc/passwd"}"#, "{}");
    assert_eq!(world.ask_at(&odd, 9).err(), Some(Refusal::UnknownKey));
    world.publish(&[&first, &second], 12);
    assert!(world.ask_at(&token(&second), 13).is_ok());
    // A failure takes nothing away.
    let issuer = world.issuer();
    let learned = issuer.learned().expect("it says where");
    for answer in [
        Err("refused".to_owned()),
        Ok(b"{}".to_vec()),
        Ok(b"{\"keys\":[]}".to_vec()),
    ] {
        assert!(
            learned
                .learn(answer, Instant::now(), SystemTime::now())
                .is_err()
        );
    }
    assert!(world.ask_at(&token(&second), 13).is_ok());
    // A key that is no longer published is no key, also for those who were believed a moment ago.
    assert!(world.ask_at(&token(&first), 13).is_ok());
    world.publish(&[&second], 14);
    assert_eq!(
        world.ask_at(&token(&first), 15).err(),
        Some(Refusal::UnknownKey)
    );
    assert!(world.ask_at(&token(&second), 15).is_ok());
}

#[test]
fn what_was_verified_holds_over_a_reload_and_never_outlives_its_key_or_its_settings() {
    let keys = |secrets: &[&str], more: &str| {
        let keys: Vec<String> = secrets
            .iter()
            .map(|one| format!("{{ secret = \"{one}\" }}"))
            .collect();
        format!("keys = [{}]\n{more}", keys.join(", "))
    };
    let other = "another-secret-of-32-characters!";
    let mut world = World::new(&keys(&[SECRET, other], ""));
    let token = Signer::secret(SECRET).token(&claims());
    let first = world.ask(&token).expect("good");
    let again = |world: &World| {
        world
            .ask(&token)
            .is_ok_and(|known| Rc::ptr_eq(&known, &first))
    };
    assert!(again(&world), "remembered");
    world.load(&keys(&[SECRET, other], ""));
    assert!(again(&world), "a reload that changes nothing");
    world.load(&keys(&[SECRET, other], "# moved\n"));
    assert!(again(&world), "a reload that moves it");
    world.load(&keys(&[other], ""));
    assert_eq!(world.ask(&token).err(), Some(Refusal::BadSignature));
    world.load(&keys(&[SECRET], ""));
    assert!(world.ask(&token).is_ok());
    world.load(&keys(&[SECRET], "headers = { x-who = \"sub\" }"));
    let told = world.ask(&token).expect("good");
    assert_eq!(told.headers[0].0, "x-who", "settings apply at once");
    assert_eq!(world.ask_at(&token, 90).err(), Some(Refusal::Expired));
}
