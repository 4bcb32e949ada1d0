//! Tokens good, bad and hostile against one issuer, with the time as an argument; and the vectors of the standards.

mod keys;
mod lasting;

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_config::Loader;

use super::*;
use crate::telemetry::metrics::Metrics;
use crate::testing::tokens::{Signer, encode, jwks};

/// 2026-11-21.
const NOW: u64 = 1_795_300_000;
const SECRET: &str = "a-secret-of-thirty-two-characters";

/// What workers and the control thread would have between them.
struct World {
    memory: IssuerMemory,
    metrics: Metrics,
    issuers: Option<Arc<Issuers>>,
    cache: Cache,
    began: Instant,
}

impl World {
    fn new(keys: &str) -> World {
        let mut world = World {
            memory: IssuerMemory::default(),
            metrics: Metrics::new(1),
            issuers: None,
            cache: Cache::default(),
            began: Instant::now(),
        };
        world.load(keys);
        world
    }

    fn load(&mut self, keys: &str) {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\nmatch = {{ path = \"/{{id}}\" }}\nrespond = {{ status = 200 }}\n\
             filters = [{{ jwt = \"users\" }}, {{ allow = {{ owner = {{ parameter = \"id\", claim = \"account\" }} }} }}]\n\
             [[jwt]]\nname = \"users\"\nissuer = \"https://users.example\"\naudience = [\"shop\", \"other\"]\n{keys}\n"
        );
        let mut loader = Loader::with_environment(|_| None);
        let document = loader.load_text("t.toml", &text, std::path::Path::new("/"));
        let document = document.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let issuers = Issuers::compile(
            &document,
            self.issuers.as_ref(),
            &self.memory,
            &self.metrics,
        );
        self.issuers = Some(issuers.expect("the keys are good"));
    }

    fn issuer(&self) -> Arc<Issuer> {
        let issuers = self.issuers.as_ref().expect("loaded");
        issuers.named("users").expect("it is there")
    }

    /// The issuer publishes these now, so many seconds after the beginning.
    fn publish(&self, signers: &[&Signer], second: u64) {
        let issuer = self.issuer();
        let learned = issuer.learned().expect("it says where");
        let at = self.began + Duration::from_secs(second);
        let body = Ok(jwks(signers).into_bytes());
        learned
            .learn(body, at, SystemTime::now())
            .expect("keys that can be used");
    }

    fn ask_at(&self, token: &str, second: u64) -> Result<Rc<Identity>, Refusal> {
        let field = format!("Bearer {token}");
        let field = HeaderValue::from_str(&field).map_err(|_| Refusal::NotThreeParts)?;
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, field)]);
        let now = Now {
            worker: 0,
            cache: &self.cache,
            now: self.began + Duration::from_secs(second),
            unix: NOW + second,
        };
        self.issuer().ask(&headers, now)
    }

    fn ask(&self, token: &str) -> Result<Rc<Identity>, Refusal> {
        self.ask_at(token, 0)
    }

    fn refusal(&self, token: &str) -> Option<Refusal> {
        // Twice: what is refused once must not have been remembered.
        let first = self.ask(token).err();
        assert_eq!(self.ask(token).err(), first);
        first
    }
}

fn local() -> World {
    World::new(&format!("keys = [{{ secret = \"{SECRET}\" }}]"))
}

fn published() -> World {
    World::new("jwks = \"https://users.example/keys\"")
}

fn claims() -> Value {
    json!({ "iss": "https://users.example", "aud": "shop", "sub": "u1", "exp": NOW + 60 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

#[test]
fn gw_901_every_claim_that_decides_must_be_there_and_right() {
    let (world, signer) = (local(), Signer::secret(SECRET));
    let cases = [
        (claims(), None),
        (with("aud", json!(["x", "other"])), None),
        (with("nbf", json!(NOW + 30)), None),
        (with("exp", json!(NOW - 29)), None),
        (with("exp", json!(NOW as f64 + 0.5)), None),
        (with("exp", json!(NOW - 30)), Some(Refusal::Expired)),
        (with("nbf", json!(NOW + 31)), Some(Refusal::TooEarly)),
        (without("exp"), Some(Refusal::NoExpiry)),
        (without("iss"), Some(Refusal::OtherIssuer)),
        (without("aud"), Some(Refusal::OtherAudience)),
        (with("aud", json!([])), Some(Refusal::OtherAudience)),
        (with("aud", json!("Shop")), Some(Refusal::OtherAudience)),
        (
            with("aud", json!({ "shop": 1 })),
            Some(Refusal::OtherAudience),
        ),
        (
            with("iss", json!(["https://users.example"])),
            Some(Refusal::OtherIssuer),
        ),
        (
            with("iss", json!("https://users.example/")),
            Some(Refusal::OtherIssuer),
        ),
        (
            with("exp", json!((NOW + 60).to_string())),
            Some(Refusal::BadDate),
        ),
        (with("exp", json!(-1)), Some(Refusal::BadDate)),
        (with("exp", json!(u64::MAX)), Some(Refusal::BadDate)),
        (with("exp", json!(1e300)), Some(Refusal::BadDate)),
        (with("exp", json!(null)), Some(Refusal::BadDate)),
        (with("nbf", json!("soon")), Some(Refusal::BadDate)),
    ];
    for (claims, refusal) in cases {
        assert_eq!(world.refusal(&signer.token(&claims)), refusal, "{claims}");
    }
}

#[test]
fn hostile_tokens_are_refused_each_for_its_own_reason() {
    let (world, signer) = (local(), Signer::secret(SECRET));
    let good = signer.token(&claims());
    let (head, plain) = (r#"{"alg":"HS256"}"#, claims().to_string());
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(3000), "]".repeat(3000));
    let many: String = (0..300).map(|n| format!("\"c{n}\":1,")).collect();
    let twice = plain.replacen('{', r#"{"sub":"admin","#, 1);
    let ran_over = plain.replacen('{', r#"{"nbf":1e999,"#, 1);
    let cases = [
        ("nothing", String::new(), Refusal::NotThreeParts),
        ("dots", ".".repeat(2000), Refusal::NotThreeParts),
        ("two dots", "..".to_owned(), Refusal::BadHeader),
        ("four parts", format!("{good}."), Refusal::NotThreeParts),
        (
            "huge",
            format!("{good}{}", "A".repeat(8192)),
            Refusal::TooLong,
        ),
        ("padding", format!("{good}="), Refusal::NotBase64),
        (
            "no signature",
            good[..=good.rfind('.').expect("a dot")].to_owned(),
            Refusal::BadSignature,
        ),
        (
            "alg none",
            format!(
                "{}.{}.",
                encode(br#"{"alg":"none"}"#),
                encode(plain.as_bytes())
            ),
            Refusal::OtherAlgorithm,
        ),
        (
            "alg nOnE",
            signer.sign(r#"{"alg":"nOnE"}"#, &plain),
            Refusal::OtherAlgorithm,
        ),
        ("no alg", signer.sign("{}", &plain), Refusal::BadHeader),
        (
            "alg twice",
            signer.sign(r#"{"alg":"HS256","alg":"HS256"}"#, &plain),
            Refusal::BadHeader,
        ),
        (
            "alg no text",
            signer.sign(r#"{"alg":["HS256"]}"#, &plain),
            Refusal::BadHeader,
        ),
        (
            "kid no text",
            signer.sign(r#"{"alg":"HS256","kid":1}"#, &plain),
            Refusal::BadHeader,
        ),
        (
            "crit",
            signer.sign(r#"{"alg":"HS256","crit":["exp"]}"#, &plain),
            Refusal::Critical,
        ),
        ("no object", signer.sign("[]", &plain), Refusal::BadHeader),
        (
            "other hash",
            signer.sign(r#"{"alg":"HS384"}"#, &plain),
            Refusal::OtherAlgorithm,
        ),
        (
            "a claim twice",
            signer.sign(head, &twice),
            Refusal::BadClaims,
        ),
        (
            "a number that ran over",
            signer.sign(head, &ran_over),
            Refusal::BadClaims,
        ),
        ("deep", signer.sign(head, &deep), Refusal::BadClaims),
        (
            "many claims",
            signer.sign(head, &plain.replacen('{', &format!("{{{many}"), 1)),
            Refusal::BadClaims,
        ),
        (
            "claims no object",
            signer.sign(head, "[1]"),
            Refusal::BadClaims,
        ),
        (
            "more behind",
            signer.sign(head, &format!("{plain}{{}}")),
            Refusal::BadClaims,
        ),
        (
            "not UTF-8",
            {
                let signed = format!("{}.{}", encode(head.as_bytes()), encode(b"{\"\xff\":1}"));
                format!("{signed}.{}", encode(&signer.signature(signed.as_bytes())))
            },
            Refusal::BadClaims,
        ),
        (
            "another secret",
            Signer::secret("another-secret-of-32-characters!").token(&claims()),
            Refusal::BadSignature,
        ),
        (
            "a role with a comma",
            signer.token(&with("roles", json!(["user,admin"]))),
            Refusal::Unwritable,
        ),
        (
            "a role that is no text",
            signer.token(&with("roles", json!([1]))),
            Refusal::BadClaims,
        ),
        (
            "a line end",
            signer.token(&with("sub", json!("a\r\nx-user-roles: admin"))),
            Refusal::Unwritable,
        ),
        (
            "blanks around",
            signer.token(&with("sub", json!(" u2 "))),
            Refusal::Unwritable,
        ),
    ];
    for (name, token, refusal) in cases {
        assert_eq!(world.refusal(&token), Some(refusal), "{name}");
    }
    assert_eq!(world.refusal(&good), None);
}

#[test]
fn a_key_is_for_one_algorithm_and_a_public_key_is_never_a_secret() {
    let (rsa, ed) = (Signer::rs256("r"), Signer::ed25519("e"));
    let world = published();
    world.publish(&[&rsa, &ed], 0);
    assert_eq!(world.refusal(&rsa.token(&claims())), None);
    assert_eq!(world.refusal(&ed.token(&claims())), None);
    // Everybody knows the public key: who signs with it as a secret has signed nothing.
    for (secret, id) in [
        (rsa.pem(), "r"),
        (rsa.jwk()["n"].to_string(), "r"),
        (ed.pem(), "e"),
    ] {
        let forger = Signer::secret(&secret);
        let header = json!({ "alg": "HS256", "kid": id }).to_string();
        let token = forger.sign(&header, &claims().to_string());
        assert_eq!(world.refusal(&token), Some(Refusal::OtherAlgorithm), "{id}");
    }
    // One key's name with another key's signature.
    let borrowed = ed.sign(r#"{"alg":"EdDSA","kid":"r"}"#, &claims().to_string());
    assert_eq!(world.refusal(&borrowed), Some(Refusal::OtherAlgorithm));
    let borrowed = rsa.sign(r#"{"alg":"EdDSA","kid":"e"}"#, &claims().to_string());
    assert_eq!(world.refusal(&borrowed), Some(Refusal::BadSignature));
    // What the header brings along is looked at by nobody.
    let own = Signer::es256("mine");
    let header =
        json!({ "alg": "ES256", "jwk": own.jwk(), "jku": "https://evil.test", "kid": "r" });
    let token = own.sign(&header.to_string(), &claims().to_string());
    assert_eq!(world.refusal(&token), Some(Refusal::OtherAlgorithm));
    // A published secret is none.
    let world = published();
    let secret = Signer::secret(SECRET);
    world.publish(&[&secret, &ed], 0);
    assert_eq!(
        world.refusal(&secret.token(&claims())),
        Some(Refusal::OtherAlgorithm)
    );
}

#[test]
fn gw_903_and_904_claims_become_headers_roles_bring_permissions_and_dots_lead_into_objects() {
    let more = "roles = \"realm.roles\"\npermissions = \"scope\"\ngrants = { admin = [\"orders:write\", \"orders:read\"] }";
    let world = World::new(&format!("keys = [{{ secret = \"{SECRET}\" }}]\n{more}"));
    let mut claims = with("realm", json!({ "roles": ["user", "admin"] }));
    claims["scope"] = json!("orders:read  pay");
    claims["account"] = json!(42);
    let who = world
        .ask(&Signer::secret(SECRET).token(&claims))
        .expect("good");
    let told: Vec<(&str, &str)> = who
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
        .collect();
    assert_eq!(
        told,
        [
            ("x-user-id", "u1"),
            ("x-user-roles", "user,admin"),
            ("x-user-permissions", "orders:read,pay,orders:write"),
        ]
    );
    assert!(who.has_role("admin") && !who.has_role("adm"));
    assert!(who.may("orders:write") && !who.may("orders"));
    assert_eq!(
        (who.claim("account"), who.claim("scope")),
        (Some("42"), None)
    );
    assert_eq!(who.subject(), "u1");
}

#[test]
fn hi_57_nobody_but_us_says_who_calls_whatever_the_spelling() {
    let world = local();
    let mut headers = HeaderMap::new();
    for name in [
        "x-user-id",
        "X_User_Id",
        "x-user_roles",
        "x-user-idea",
        "x-tenant-id",
    ] {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_static("forged"));
    }
    world.issuers.as_ref().expect("loaded").strip(&mut headers);
    let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-user-idea"]);
}

proptest! {
    /// No text at all is believed, and none takes the worker down.
    #[test]
    fn no_made_up_token_is_believed(text in "[A-Za-z0-9_.=-]{0,300}", json in "\\PC{0,80}") {
        let world = local();
        prop_assert!(world.ask(&text).is_err());
        // With a signature that holds, so that the claims are read.
        let token = Signer::secret(SECRET).sign(r#"{"alg":"HS256"}"#, &json);
        prop_assert!(world.ask(&token).is_err());
    }

    /// A good token with any one bit changed is none.
    #[test]
    fn no_changed_token_is_believed(place in 0usize..200, bit in 0u8..7) {
        let world = local();
        let good = Signer::secret(SECRET).token(&claims());
        let mut bytes = good.clone().into_bytes();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        prop_assume!(bytes.iter().all(|byte| (0x21..0x7f).contains(byte)));
        let changed = String::from_utf8(bytes).expect("ASCII");
        prop_assert!(world.ask(&changed).is_err());
        prop_assert!(world.ask(&good).is_ok());
    }
}
