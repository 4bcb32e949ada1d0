//! What a caller says once, at the beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;

use crate::registry::Error;

/// Where the registry is and how long its answers are good for. What is missing has the default of REG-403 and DEC-52.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Registries in the order in which they are asked, such as `http://127.0.0.1:8080`.
    pub urls: Vec<String>,
    /// A lookup's answer is good for so long; 30 to 60 seconds.
    pub fresh_for: Duration,
    /// Sent as a bearer token.
    pub token: Option<String>,
    /// Certificates that sign the registry's, as PEM; needed for `https`.
    pub ca: Option<Vec<u8>>,
    /// Addresses for when neither a registry nor anything that was known helps, by service name.
    pub fallback: BTreeMap<String, Vec<String>>,
    /// For a whole question: connecting, asking, reading.
    pub timeout: Duration,
}

impl Settings {
    /// One registry, and otherwise the defaults.
    pub fn of(url: impl Into<String>) -> Self {
        Settings {
            urls: vec![url.into()],
            ..Settings::default()
        }
    }

    pub(crate) fn check(&self) -> Result<Vec<Uri>, Error> {
        let wrong = |what: String| Err(Error::Settings(what));
        if self.urls.is_empty() {
            return wrong(
                "`urls` is empty: name at least one registry, such as http://127.0.0.1:8080"
                    .to_owned(),
            );
        }
        if !(30..=60).contains(&self.fresh_for.as_secs()) {
            return wrong(format!(
                "`fresh_for` is {:?}: 30 to 60 seconds are allowed",
                self.fresh_for
            ));
        }
        let mut urls = Vec::new();
        for text in &self.urls {
            let url = match text.parse::<Uri>() {
                Ok(url) if url.scheme().is_some() && matches!(url.path(), "" | "/") => url,
                _ => {
                    return wrong(format!(
                        "`{text}` is no registry's address: write http://host:port"
                    ));
                }
            };
            match url.scheme_str() {
                Some("http") => {}
                Some("https") if self.ca.is_some() => {}
                Some("https") => {
                    return wrong(format!(
                        "`{text}` needs `ca`, the certificates that sign the registry's"
                    ));
                }
                _ => {
                    return wrong(format!(
                        "`{text}` has an unknown scheme: write http:// or https://"
                    ));
                }
            }
            urls.push(url);
        }
        Ok(urls)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            urls: Vec::new(),
            fresh_for: Duration::from_secs(30),
            token: None,
            ca: None,
            fallback: BTreeMap::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let said = |settings: &Settings| settings.check().unwrap_err().to_string();
        assert!(said(&Settings::default()).contains("name at least one"));
        assert!(said(&Settings::of("localhost")).contains("http://host:port"));
        assert!(said(&Settings::of("http://a/b")).contains("http://host:port"));
        assert!(said(&Settings::of("ftp://a:1")).contains("unknown scheme"));
        assert!(said(&Settings::of("https://a:1")).contains("needs `ca`"));
        let long = Settings {
            fresh_for: Duration::from_secs(61),
            ..Settings::of("http://a:1")
        };
        assert!(said(&long).contains("30 to 60"), "DEC-52");
        assert_eq!(Settings::of("http://a:1").check().unwrap().len(), 1);
    }
}
