//! Who lends tokens of shared limits: the control plane, or a store by its URL. What is wrong with it is told without its text, which may hold a password.

use crate::document::{SharedStore, StoreUrl};
use crate::rule;

pub(super) fn store(text: &str) -> Result<SharedStore, &'static str> {
    match text {
        "control-plane" => Ok(SharedStore::ControlPlane),
        url_text => url(url_text).map(SharedStore::Redis),
    }
}

fn url(text: &str) -> Result<StoreUrl, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no `://`")?;
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err("only `redis` and `rediss` are known"),
    };
    if rest.contains(['?', '#', ' ']) {
        return Err(
            "what follows a `?` or `#` is not understood; write such a character as %3F or %23",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) = match authority.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, authority),
    };
    let (user, password) = match login {
        None => (None, None),
        Some(login) => {
            let (user, password) = login
                .split_once(':')
                .ok_or("there is a user without a password")?;
            let decoded = |text| decoded(text).ok_or("its user or password is badly encoded");
            let (user, password) = (decoded(user)?, decoded(password)?);
            if password.is_empty() {
                return Err("the password is empty");
            }
            (Some(user).filter(|user| !user.is_empty()), Some(password))
        }
    };
    let (host, port) = rule::split_port(address).map_err(|_| "its host and port are not valid")?;
    let database = match path {
        "" => 0,
        path => path
            .parse()
            .ok()
            .filter(|number| *number < 1 << 16)
            .ok_or("its database is not a number from 0 to 65535")?,
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Ok(StoreUrl {
        tls,
        user,
        password,
        host: host.to_owned(),
        port: port.unwrap_or(6379),
        database,
    })
}

/// With `%XX` replaced.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_its_url_and_shown_without_secrets() {
        let all = url("rediss://us%40er:p%3A%2Fw@[fd00::7]:7000/3").expect("valid");
        assert_eq!(
            (all.tls, all.user.as_deref(), all.password.as_deref()),
            (true, Some("us@er"), Some("p:/w"))
        );
        assert_eq!((&*all.host, all.port, all.database), ("fd00::7", 7000, 3));
        assert_eq!(all.to_string(), "rediss://[fd00::7]:7000/3");
        assert!(!format!("{all:?}").contains("p:/w"));
        let least = url("redis://store").expect("valid");
        assert_eq!((least.port, least.database, least.tls), (6379, 0, false));
        assert_eq!((least.user, least.password), (None, None));
        let password = url("redis://:secret@10.0.0.7:1").expect("valid");
        assert_eq!(
            (password.user, password.password.as_deref()),
            (None, Some("secret"))
        );
    }

    #[test]
    fn what_is_not_a_store_is_told_without_its_text() {
        for bad in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://:secret@",
            "redis://user@host",
            "redis://:@host",
            "redis://:%zz@host",
            "redis://:%f@host",
            "redis://host:port",
            "redis://host:99999",
            "redis://host/secret",
            "redis://host/70000",
            "redis://host/0?secret=1",
            "unix:///run/redis",
        ] {
            let why = url(bad).expect_err(bad);
            assert!(!why.contains("secret"), "{bad}");
        }
    }
}
