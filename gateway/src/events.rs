//! The registry's notifications: what happened past this gateway. They may come late, twice, in any order or
//! never, so they only say where to look. Must not be taken for the truth.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use larder_wire::digest::Digest;
use larder_wire::name::{Repository, Tag};
use lru::LruCache;
use serde::Deserialize;
use tracing::debug;

use crate::peers::News;
use crate::resync::Credential;
use crate::tags::Tags;

/// Ids that are remembered, each at most this long.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const LONGEST_ID: usize = 128;
/// The longest envelope, in bytes.
pub const MOST_BYTES: usize = 1024 * 1024;

/// Where notifications go.
pub struct Events {
    tags: Tags,
    /// For the looks that they lead to.
    credential: Credential,
    seen: Mutex<LruCache<String, ()>>,
}

/// `application/vnd.docker.distribution.events.v2+json`, as far as it matters.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: Target,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Target {
    digest: String,
    repository: String,
    tag: String,
}

impl Events {
    #[must_use]
    pub fn new(tags: Tags, credential: Credential) -> Self {
        Self { tags, credential, seen: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Takes an envelope of at most [`MOST_BYTES`] and returns how many of its events were new and of any
    /// interest. Does not wait for what they lead to: the registry wants its answer.
    ///
    /// # Errors When it is no envelope; the registry would send it again and again, so a 2xx is the better
    /// answer even then.
    pub fn receive(&self, body: &[u8]) -> Result<usize, serde_json::Error> {
        let envelope: Envelope = serde_json::from_slice(body)?;
        let fresh = envelope.events.into_iter().filter(|event| self.is_new(&event.id));
        let news: Vec<(Repository, News)> = fresh.filter_map(news).collect();
        if news.is_empty() {
            return Ok(0);
        }
        let caller = self.credential.caller();
        let count = news.len();
        for (repository, news) in news {
            debug!(%repository, ?news, "notified");
            self.tags.tell(&repository, news, &caller);
        }
        Ok(count)
    }

    fn is_new(&self, id: &str) -> bool {
        if id.is_empty() || id.len() > LONGEST_ID {
            return true;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.put(id.to_owned(), ()).is_none()
    }
}

/// What an event says about tags and images. Blobs and pulls say nothing.
fn news(event: Event) -> Option<(Repository, News)> {
    let Event { action, target, .. } = event;
    let repository: Repository = target.repository.parse().ok()?;
    let tag = || target.tag.parse::<Tag>().ok();
    let digest = || target.digest.parse::<Digest>().ok();
    let news = match action.as_str() {
        "push" => News::Said { tag: tag()?, present: true },
        "delete" if target.tag.is_empty() => News::ImageDeleted(digest()?),
        "delete" => News::Said { tag: tag()?, present: false },
        _ => return None,
    };
    Some((repository, news))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &str) -> Option<(Repository, News)> {
        news(serde_json::from_str(event).unwrap())
    }

    #[test]
    fn events_say_where_to_look() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let event = |action: &str, rest: &str| {
            format!(r#"{{"id":"1","action":"{action}","target":{{"repository":"a/b"{rest}}},"actor":{{}}}}"#)
        };
        let said = |present| News::Said { tag: "v1".parse().unwrap(), present };
        let both = format!(r#","tag":"v1","digest":"{digest}""#);
        let alone = format!(r#","digest":"{digest}""#);
        assert_eq!(read(&event("push", &both)).unwrap().1, said(true));
        assert_eq!(read(&event("delete", r#","tag":"v1""#)).unwrap().1, said(false));
        assert_eq!(read(&event("delete", &alone)).unwrap().1, News::ImageDeleted(digest.parse().unwrap()));
        for nothing in
            [event("pull", &both), event("push", &alone), event("mount", &both), event("delete", "")]
        {
            assert_eq!(read(&nothing), None, "{nothing}");
        }
        assert_eq!(read(r#"{"action":"push","target":{"repository":"../x","tag":"v1"}}"#), None);
        assert_eq!(read("{}"), None);
    }
}
