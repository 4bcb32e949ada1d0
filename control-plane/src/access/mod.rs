//! Who may do what (CP-202): tells who a token belongs to, and whether a page is for them. Holds hashes, never tokens.
//!
//! A caller is somebody with a token, or, as long as the document has no token, anybody: then the address is on
//! loopback, and everybody there may do everything. Called by `api/guard` for each request; decides nothing about what a
//! page does.

pub mod failures;
pub mod pages;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tollgate_config::KeyHash;
use tollgate_config::control_plane::{Role, Token};

use failures::Failures;

/// Longer ones are nobody's.
const LONGEST: usize = 512;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name; `None`: there are no tokens.
    pub name: Option<Arc<str>>,
    pub role: Role,
    /// The one service that it may speak for; `None`: its role decides.
    pub service: Option<Arc<str>>,
    /// The one node that it may be.
    pub node: Option<Arc<str>>,
    pub address: Arc<str>,
    hash: Option<KeyHash>,
}

impl Caller {
    /// Anybody, where there are no tokens.
    pub fn anybody(address: Arc<str>) -> Caller {
        Caller {
            name: None,
            role: Role::Administer,
            service: None,
            node: None,
            address,
            hash: None,
        }
    }

    /// For the audit log: the token's name and the address.
    pub fn words(&self) -> Arc<str> {
        match &self.name {
            Some(name) => format!("{name}@{}", self.address).into(),
            None => self.address.clone(),
        }
    }

    /// Whether it may say something in a service's name.
    pub fn speaks_for(&self, service: &str) -> bool {
        match self.role {
            Role::Operate | Role::Administer => true,
            Role::Service | Role::Node => self.service.as_deref() == Some(service),
            Role::Read => false,
        }
    }

    /// Whether it may be that node.
    pub fn is_node(&self, node: &str) -> bool {
        match self.role {
            Role::Administer => true,
            Role::Node => self.node.as_deref().is_none_or(|own| own == node),
            Role::Read | Role::Operate | Role::Service => false,
        }
    }
}

/// Why nobody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed, and none was sent.
    NoToken,
    /// It is nobody's. `blocked`: no other from this address is looked at for a while.
    NotKnown { blocked: bool },
    /// Too many tokens from there were nobody's; for how long no other is looked at.
    TooMany(Duration),
}

type Known = HashMap<u64, Token, std::hash::RandomState>;

pub struct Access {
    /// Replaced when the document was read again; feeds wait for that.
    tokens: watch::Sender<Arc<Known>>,
    /// Held for a look, never across an await.
    failures: Mutex<Failures>,
    started: Instant,
}

impl Access {
    pub fn new(tokens: &[Token]) -> Access {
        Access {
            tokens: watch::Sender::new(known(tokens)),
            failures: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Other tokens from now on.
    pub fn change(&self, tokens: &[Token]) {
        self.tokens.send_replace(known(tokens));
    }

    /// Whether anybody may do everything.
    pub fn is_open(&self) -> bool {
        self.tokens.borrow().is_empty()
    }

    /// Who sent `authorization`, the field's value.
    pub fn who(&self, authorization: Option<&[u8]>, address: Arc<str>) -> Result<Caller, Denied> {
        let tokens = self.tokens.borrow().clone();
        if tokens.is_empty() {
            return Ok(Caller::anybody(address));
        }
        let token = authorization.and_then(bearer).ok_or(Denied::NoToken)?;
        let from = address
            .parse()
            .unwrap_or(IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED));
        let hash = KeyHash::of(token);
        let now = self.started.elapsed();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .may_try(from, place(&hash), now)
            .map_err(Denied::TooMany)?;
        let found = tokens
            .get(&place(&hash))
            .filter(|token| same(&token.hash, &hash));
        let Some(found) = found.filter(|_| token.len() <= LONGEST) else {
            let blocked = failures.failed(from, now);
            return Err(Denied::NotKnown { blocked });
        };
        failures.succeeded(from, place(&hash), now);
        Ok(caller(found, address))
    }

    /// Returns when the caller is not any more who it was: the token was taken out, or is for something else.
    pub async fn revoked(self: Arc<Access>, caller: Caller) {
        let mut tokens = self.tokens.subscribe();
        let still = |tokens: &Known| match &caller.hash {
            None => tokens.is_empty(),
            Some(hash) => { tokens.get(&place(hash)) }
                .is_some_and(|token| self::caller(token, caller.address.clone()) == caller),
        };
        if tokens.wait_for(|tokens| !still(tokens)).await.is_err() {
            // Nobody can change anything any more.
            std::future::pending::<()>().await;
        }
    }
}

fn caller(token: &Token, address: Arc<str>) -> Caller {
    Caller {
        name: Some(token.name.as_str().into()),
        role: token.role,
        service: token.service.as_deref().map(Arc::from),
        node: token.node.as_deref().map(Arc::from),
        address,
        hash: Some(token.hash),
    }
}

fn known(tokens: &[Token]) -> Arc<Known> {
    Arc::new(
        { tokens.iter() }
            .map(|token| (place(&token.hash), token.clone()))
            .collect(),
    )
}

/// The first bytes of a hash find it: nobody can choose them without breaking the hash, and the rest is compared in
/// constant time.
fn place(hash: &KeyHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn same(one: &KeyHash, other: &KeyHash) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(&one.0, &other.0).is_ok()
}

/// What stands behind `Bearer` (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, role: Role, service: Option<&str>) -> Token {
        Token {
            name: name.to_owned(),
            role,
            hash: KeyHash::of(name.as_bytes()),
            service: service.map(str::to_owned),
            node: None,
        }
    }

    fn ask(access: &Access, token: &str) -> Result<Caller, Denied> {
        let value = format!("Bearer {token}");
        access.who(Some(value.as_bytes()), "10.0.0.1".into())
    }

    #[test]
    fn without_tokens_everybody_may_do_everything_and_with_one_nobody_without_it() {
        let access = Access::new(&[]);
        assert!(access.is_open());
        let anybody = access.who(None, "127.0.0.1".into()).expect("open");
        assert_eq!((anybody.role, anybody.name), (Role::Administer, None));
        access.change(&[token("ada", Role::Read, None)]);
        assert_eq!(access.who(None, "x".into()), Err(Denied::NoToken));
        for nonsense in [&b"Bearer"[..], b"Bearer ", b"Basic ada", b"", b"ada"] {
            let asked = access.who(Some(nonsense), "x".into());
            assert_eq!(asked, Err(Denied::NoToken));
        }
        let ada = access.who(Some(b"bEaReR ada"), "10.0.0.1".into());
        assert_eq!(&*ada.expect("known").words(), "ada@10.0.0.1");
        assert_eq!(
            ask(&access, "eve"),
            Err(Denied::NotKnown { blocked: false })
        );
    }

    #[test]
    fn a_service_speaks_for_itself_alone() {
        let access = Access::new(&[
            token("orders", Role::Service, Some("orders")),
            token("edge", Role::Node, Some("edge")),
            token("plain", Role::Node, None),
            token("reader", Role::Read, None),
            token("root", Role::Administer, None),
        ]);
        let speaks =
            |who: &str, service: &str| ask(&access, who).expect("known").speaks_for(service);
        assert!(speaks("orders", "orders") && !speaks("orders", "payments"));
        assert!(speaks("edge", "edge") && !speaks("edge", "orders"));
        assert!(!speaks("plain", "orders") && !speaks("reader", "orders"));
        assert!(speaks("root", "orders"));
    }

    #[test]
    #[ignore = "a measurement"]
    fn what_asking_who_it_is_costs() {
        let names: Vec<String> = (0..10_000)
            .map(|number| format!("service-{number}"))
            .collect();
        let tokens: Vec<Token> = { names.iter() }
            .map(|name| token(name, Role::Service, Some(name)))
            .collect();
        let access = Access::new(&tokens);
        let values: Vec<String> = names.iter().map(|name| format!("Bearer {name}")).collect();
        let address: Arc<str> = "10.0.0.1".into();
        let (began, rounds) = (Instant::now(), 20);
        for value in values.iter().cycle().take(values.len() * rounds) {
            assert!(access.who(Some(value.as_bytes()), address.clone()).is_ok());
        }
        let each = began.elapsed() / (values.len() * rounds) as u32;
        println!("{each:?} each, of {} tokens", tokens.len());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_loses_a_token_is_told_and_who_keeps_it_is_not() {
        let (ada, bob) = (
            token("ada", Role::Node, None),
            token("bob", Role::Node, None),
        );
        let access = Arc::new(Access::new(&[ada.clone(), bob.clone()]));
        let callers = ["ada", "bob"].map(|name| ask(&access, name).expect("known"));
        let [mut gone, mut stays] = callers.map(|caller| Box::pin(access.clone().revoked(caller)));
        tokio::select! {
            biased;
            () = &mut gone => panic!("nothing has changed"),
            () = &mut stays => panic!("nothing has changed"),
            () = std::future::ready(()) => {}
        }
        // Another role is another caller.
        let weaker = Token {
            role: Role::Read,
            ..ada
        };
        access.change(&[weaker, bob]);
        gone.await;
        tokio::select! {
            biased;
            () = &mut stays => panic!("it has the same token as before"),
            () = std::future::ready(()) => {}
        }
    }
}
