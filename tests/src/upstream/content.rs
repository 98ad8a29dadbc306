//! What the test registry holds, and its honest answer to a request: routes, authorisation, ranges, pages. Must not
//! misbehave; rules do that to what comes from here.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::token::{CANARY, Tokens};
use super::{Kind, Reply, Seen};
use crate::image::{OCI_INDEX, Object};

/// Who must show what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nobody anything.
    Open,
    /// Everybody a token, for public repositories an anonymous one.
    Bearer,
    /// Users their password, for private repositories alone.
    Basic,
}

/// How a private repository refuses those who may not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    /// 401 by the token service.
    NoToken,
    /// A token, and 401 by the registry.
    Unauthorized,
    /// A token, and 403 by the registry.
    Forbidden,
    /// A token, and 404 by the registry.
    NotFound,
}

pub(super) struct Content {
    auth: Auth,
    realm: String,
    prefix: String,
    repositories: BTreeMap<String, Repository>,
}

#[derive(Default)]
struct Repository {
    manifests: BTreeMap<String, Object>,
    tags: BTreeMap<String, String>,
    blobs: BTreeMap<String, Bytes>,
    private: Option<Private>,
}

impl Content {
    pub(super) fn new(auth: Auth, realm: String, prefix: String) -> Self {
        Self { auth, realm, prefix, repositories: BTreeMap::new() }
    }

    pub(super) fn put_blob(&mut self, repository: &str, blob: &Object) {
        self.repository(repository).blobs.insert(blob.digest.clone(), blob.bytes.clone());
    }

    pub(super) fn put_manifest(&mut self, repository: &str, manifest: &Object) {
        self.repository(repository).manifests.insert(manifest.digest.clone(), manifest.clone());
    }

    pub(super) fn put_tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.repository(repository).tags.insert(tag.to_owned(), digest.to_owned());
    }

    pub(super) fn delete_tag(&mut self, repository: &str, tag: &str) {
        self.repository(repository).tags.remove(tag);
    }

    pub(super) fn make_private(&mut self, repository: &str, how: Private) {
        self.repository(repository).private = Some(how);
    }

    pub(super) fn set_realm(&mut self, realm: &str) {
        realm.clone_into(&mut self.realm);
    }

    /// Kind, repository and reference of a path.
    pub(super) fn route(&self, path: &str) -> (Kind, String, String) {
        let none = |kind| (kind, String::new(), String::new());
        if path == "/token" {
            return none(Kind::Token);
        }
        let root = if self.prefix.is_empty() { "/v2" } else { &self.prefix };
        let Some(rest) = path.strip_prefix(root) else { return none(Kind::Other) };
        if matches!(rest, "" | "/") {
            return none(Kind::Base);
        }
        let parts: Vec<&str> = rest.trim_start_matches('/').rsplitn(3, '/').collect();
        let [reference, word, name] = parts[..] else { return none(Kind::Other) };
        let kind = match word {
            "manifests" if reference.contains(':') => Kind::Manifest,
            "manifests" => Kind::Tag,
            "blobs" => Kind::Blob,
            "tags" => Kind::Tags,
            "referrers" => Kind::Referrers,
            _ => Kind::Other,
        };
        (kind, name.to_owned(), reference.to_owned())
    }

    /// The honest answer, with its body also for HEAD.
    pub(super) fn answer(&self, seen: &Seen, tokens: &Tokens) -> Reply {
        match seen.kind {
            Kind::Token => return token(seen, tokens),
            Kind::Base => return self.base(seen, tokens),
            Kind::Other | Kind::Connect => return error(404, "UNSUPPORTED"),
            Kind::Manifest | Kind::Tag | Kind::Blob | Kind::Tags | Kind::Referrers => {}
        }
        if let Some(refusal) = self.refusal(seen, tokens) {
            return refusal;
        }
        let Some(repository) = self.repositories.get(&seen.repository) else {
            return error(404, "NAME_UNKNOWN");
        };
        match seen.kind {
            Kind::Blob => repository.blob(seen),
            Kind::Tags => repository.tag_list(seen, &self.prefix),
            Kind::Referrers => Reply::new(200, OCI_INDEX, empty_index()),
            _ => repository.manifest(&seen.reference),
        }
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    fn base(&self, seen: &Seen, tokens: &Tokens) -> Reply {
        let open = self.auth != Auth::Bearer
            || seen.header("authorization").is_some_and(|value| tokens.grant(value).is_some());
        if open { Reply::new(200, "application/json", "{}") } else { self.challenge(None) }
    }

    /// Why a request may not read its repository, if it may not.
    fn refusal(&self, seen: &Seen, tokens: &Tokens) -> Option<Reply> {
        let name = seen.repository.as_str();
        let private = self.repositories.get(name).and_then(|repository| repository.private);
        let shown = seen.header("authorization").unwrap_or_default();
        let known = match self.auth {
            Auth::Open => return private.map(|_| error(403, "DENIED")),
            Auth::Basic => tokens.basic_user(shown).is_some(),
            Auth::Bearer => match tokens.grant(shown) {
                Some(grant) if grant.opens(&self.scoped(name)) => grant.user.is_some(),
                _ => return Some(self.challenge(Some(name))),
            },
        };
        match private {
            Some(how) if !known => Some(match how {
                Private::NoToken | Private::Unauthorized => self.challenge(Some(name)),
                Private::Forbidden => error(403, "DENIED"),
                Private::NotFound => error(404, "NAME_UNKNOWN"),
            }),
            _ => None,
        }
    }

    /// A repository's name in token scopes: what stands between `/v2/` and the kind of the request.
    fn scoped(&self, name: &str) -> String {
        match self.prefix.strip_prefix("/v2/") {
            Some(project) => format!("{project}/{name}"),
            None => name.to_owned(),
        }
    }

    fn challenge(&self, name: Option<&str>) -> Reply {
        let scope = name
            .map_or_else(String::new, |name| format!(r#",scope="repository:{}:pull""#, self.scoped(name)));
        let value = match self.auth {
            Auth::Basic => r#"Basic realm="test""#.to_owned(),
            Auth::Bearer | Auth::Open => format!(r#"Bearer realm="{}",service="test"{scope}"#, self.realm),
        };
        let mut reply = error(401, "UNAUTHORIZED");
        reply.header("WWW-Authenticate", value);
        reply
    }
}

impl Repository {
    fn manifest(&self, reference: &str) -> Reply {
        let digest = self.tags.get(reference).map_or(reference, String::as_str);
        let Some(manifest) = self.manifests.get(digest) else { return error(404, "MANIFEST_UNKNOWN") };
        let mut reply = Reply::new(200, &manifest.media_type, manifest.bytes.clone());
        reply.header("Docker-Content-Digest", digest).header("ETag", format!("\"{digest}\""));
        reply
    }

    fn blob(&self, seen: &Seen) -> Reply {
        let digest = &seen.reference;
        let Some(blob) = self.blobs.get(digest) else { return error(404, "BLOB_UNKNOWN") };
        let mut reply = Reply::new(200, "application/octet-stream", blob.clone());
        let etag = format!("\"{digest}\"");
        reply.header("Docker-Content-Digest", digest).header("ETag", &etag).header("Accept-Ranges", "bytes");
        let same = seen.header("if-range").is_none_or(|value| value == etag);
        if let Some(range) = seen.header("range").filter(|_| same) {
            let total = blob.len() as u64;
            match first_and_last(range, total) {
                Some((first, last)) => reply.part(first, last),
                None => reply.error(416, "UNKNOWN").header("Content-Range", format!("bytes */{total}")),
            };
        }
        reply
    }

    fn tag_list(&self, seen: &Seen, prefix: &str) -> Reply {
        let value = |key: &str| {
            seen.query
                .split('&')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
        };
        let last = value("last");
        let after: Vec<&String> =
            self.tags.keys().filter(|tag| last.as_ref().is_none_or(|last| *tag > last)).collect();
        let limit = value("n").and_then(|n| n.parse().ok()).unwrap_or(after.len());
        let page = &after[..limit.min(after.len())];
        let list = serde_json::json!({"name": seen.repository, "tags": page});
        let mut reply = Reply::new(200, "application/json", list.to_string());
        if let Some(last) = page.last().filter(|_| page.len() < after.len()) {
            let root = if prefix.is_empty() { "/v2" } else { prefix };
            let next = format!("<{root}/{}/tags/list?n={limit}&last={last}>; rel=\"next\"", seen.repository);
            reply.header("Link", next);
        }
        reply
    }
}

/// The bytes that a Range of one part asks for, when it can be satisfied.
fn first_and_last(range: &str, total: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), last) => (first, last.unwrap_or(u64::MAX)),
        (None, Some(suffix)) => (total.saturating_sub(suffix), u64::MAX),
        (None, None) => return None,
    };
    (first < total && first <= last).then(|| (first, last.min(total - 1)))
}

fn token(seen: &Seen, tokens: &Tokens) -> Reply {
    if seen.method != "GET" {
        return error(405, "UNSUPPORTED");
    }
    let scopes = seen.query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let scopes = scopes
        .map(|scope| scope.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"));
    match tokens.issue(seen.header("authorization"), scopes.collect()) {
        Some(json) => Reply::new(200, "application/json", json),
        None => error(401, "UNAUTHORIZED"),
    }
}

fn error(status: u16, code: &str) -> Reply {
    // The text of a registry's own error must not reach metrics or logs unasked; a canary shows it.
    let mut reply = Reply::new(status, "application/json", "");
    reply.error(status, code).header("X-Secret", format!("{CANARY}-header"));
    reply
}

fn empty_index() -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#)
}
