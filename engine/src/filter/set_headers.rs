//! `{ set_headers = { request = {…}, response = {…}, remove = […] } }`: removes, then sets.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) fn apply(headers: &mut HeaderMap, remove: &[HeaderName], set: &[(HeaderName, HeaderValue)]) {
    for name in remove {
        headers.remove(name);
    }
    for (name, value) in set {
        headers.insert(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_can_be_set_again() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let name = HeaderName::from_static("x-a");
        apply(&mut headers, std::slice::from_ref(&name), &[(name.clone(), HeaderValue::from_static("3"))]);
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["3"]);
    }
}
