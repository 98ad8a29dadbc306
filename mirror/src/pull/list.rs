//! `tags/list` and `referrers`: passed through, never kept, with upstream's pages pointing at us. Must not follow a link
//! itself.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, LINK};
use http::{HeaderMap, HeaderValue};

use super::deadline::Deadline;
use crate::answer::{Content, Found};
use crate::error::PullError;
use crate::request::{Pull, PullRequest};
use crate::stats::Source;
use crate::upstream::{Ask, Target};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) async fn pass(pull: &Pull, request: &PullRequest, deadline: Deadline) -> Result<Found, PullError> {
    let path = match &pull.target {
        Target::Referrers(digest, _) => format!("/v2/{}/referrers/{digest}", pull.repository),
        Target::Tags(_) | Target::Manifest(_) | Target::Blob(_) => {
            format!("/v2/{}/tags/list", pull.repository)
        }
    };
    let target = pull.target.clone();
    let ask = if request.head_only {
        Ask::head(&pull.repository, target)
    } else {
        Ask::get(&pull.repository, target)
    };
    let upstream = Arc::clone(&pull.upstream);
    let reply = deadline.wait(upstream.ask(&ask)).await?;
    let mut headers = HeaderMap::new();
    for name in [CONTENT_TYPE, FILTERS_APPLIED] {
        if let Some(value) = reply.response.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let ns = pull.upstream.settings.registry.as_str();
    if let Some(link) =
        reply.response.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?, &path, ns))
    {
        headers.insert(LINK, link);
    }
    Ok(Found::new(Content::Passed { headers, reply: Box::new(reply) }, Source::Bypass))
}

/// A page link with our path, upstream's query and our `ns`, wherever it pointed.
fn next_page(link: &str, path: &str, ns: &str) -> Option<HeaderValue> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let ours = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("ns="));
    let query: Vec<String> =
        ours.map(str::to_owned).chain([format!("ns={}", ns.replace(':', "%3A"))]).collect();
    format!("<{path}?{}>; rel=\"next\"", query.join("&")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_on_our_side() {
        let next = |link: &str| {
            next_page(link, "/v2/a/tags/list", "r.test:5000").map(|v| v.to_str().unwrap().to_owned())
        };
        let expected = r#"</v2/a/tags/list?n=2&last=b&ns=r.test%3A5000>; rel="next""#;
        assert_eq!(next(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#).as_deref(), Some(expected));
        assert_eq!(next(r#"<https://evil.test/x?n=2&last=b&ns=q>; rel="next""#).as_deref(), Some(expected));
        assert_eq!(next(r#"</v2/a/tags/list?n=2>; rel="prev""#), None);
        assert_eq!(next("nonsense"), None);
    }
}
