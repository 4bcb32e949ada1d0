//! What becomes of a document that somebody edits: each new revision, and each refusal with its lines, is said where `up`
//! runs.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::client::Admin;

const LOOK: Duration = Duration::from_millis(300);

/// What was told before.
#[derive(Debug, Default)]
pub(super) struct News {
    revision: u64,
    refused: Value,
}

impl News {
    /// Waits until there is something to tell. A control plane that is away has nothing to tell.
    pub(super) async fn next(&mut self, control: SocketAddr) -> String {
        loop {
            tokio::time::sleep(LOOK).await;
            let asked = tokio::task::spawn_blocking(move || {
                let control: Admin = control.to_string().parse().ok()?;
                control.ask("GET", "/revisions", "").ok()
            });
            let Ok(Some(now)) = asked.await else {
                continue;
            };
            if let Some(text) = self.told(&now) {
                return text;
            }
        }
    }

    fn told(&mut self, now: &Value) -> Option<String> {
        let revision = now["revision"].as_u64()?;
        let first = self.revision == 0;
        let mut text = String::new();
        if std::mem::replace(&mut self.revision, revision) != revision && !first {
            let newest = { now["revisions"].as_array().into_iter().flatten() }
                .find(|one| one["revision"] == revision);
            let note = newest.and_then(|one| one["note"].as_str());
            let _infallible = writeln!(
                text,
                "revision {revision} is served: {}",
                note.unwrap_or("-")
            );
        }
        if self.refused != now["folder_refused"] {
            self.refused = now["folder_refused"].clone();
            let problems = self.refused["problems"].as_array();
            for problem in problems.into_iter().flatten() {
                let word = |key: &str| problem[key].as_str().unwrap_or_default();
                let _infallible = writeln!(
                    text,
                    "refused, and nothing has changed: {}: {}",
                    word("place"),
                    word("message")
                );
                if !word("hint").is_empty() {
                    let _infallible = writeln!(text, "  = {}", word("hint"));
                }
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_change_and_each_refusal_is_told_once() {
        let mut news = News::default();
        let mut now = json!({ "revision": 1, "revisions": [{ "revision": 1, "note": "shop.toml" }], "folder_refused": null });
        assert_eq!(news.told(&now), None, "what was there at the start");
        now["folder_refused"] = json!({ "problems": [{ "place": "shop.toml:7", "message": "no upstream `a`", "hint": "write `b`" }] });
        let told = news.told(&now).unwrap();
        assert!(
            told.contains("shop.toml:7: no upstream `a`\n  = write `b`\n"),
            "{told}"
        );
        assert_eq!(news.told(&now), None);
        now["folder_refused"] = Value::Null;
        now["revision"] = json!(2);
        now["revisions"] = json!([{ "revision": 2, "note": "shop.toml" }, { "revision": 1 }]);
        assert_eq!(
            news.told(&now).unwrap(),
            "revision 2 is served: shop.toml\n"
        );
    }
}
