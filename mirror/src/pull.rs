//! The story of one pull: read the request, find the answer in the cache or upstream, say it, and write it down. Each
//! stage stands in a file of its own and knows none of the others. Must not hold detail: that is what the stages are for.

mod blob;
mod deadline;
mod list;
mod manifest;
mod tag;

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use larder_wire::route::Reference;

use crate::answer::{self, Body, Content, Found};
use crate::cache::Cache;
use crate::error::PullError;
use crate::refuse;
use crate::request::{PullRequest, What};
use crate::stats::Source;
use crate::upstream::Target;
use deadline::Deadline;

use manifest::fetch as fetch_manifest;

/// Answers one request, whatever it is: there is no request without an answer, a count and a log line.
pub(crate) async fn pull(cache: &Arc<Cache>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let upstreams = cache.upstreams();
    let parsed = PullRequest::read(&request, &upstreams);
    let outcome = match &parsed {
        Ok(request) => match find(cache, request).await {
            Ok(found) => answer::reply(request, found),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.clone().into()),
    };
    let asked = parsed.as_ref().ok();
    let reply = outcome.unwrap_or_else(|error| refuse::reply(&cache.node, asked, &request, &error));
    reply.finish(cache, asked, started, request.method())
}

/// The stages, by what is asked for.
async fn find(cache: &Arc<Cache>, request: &PullRequest) -> Result<Found, PullError> {
    let pull = match &request.what {
        What::Base(challenge) => {
            return Ok(Found::new(Content::Base(cache.prove(challenge.as_deref())), Source::Cache));
        }
        What::Canary(_) if cache.store.bypassed() => return Err(PullError::Bypass),
        What::Canary(challenge) => {
            return Ok(Found::new(Content::Canary(cache.prove(challenge.as_deref())), Source::Cache));
        }
        What::Pull(pull) => pull,
    };
    let deadline = Deadline::of(pull, request.head_only);
    match &pull.target {
        Target::Manifest(Reference::Tag(name)) => {
            let tag = tag::resolve(cache, pull, name, deadline).await?;
            manifest::of_tag(cache, pull, request, tag, deadline).await
        }
        Target::Manifest(Reference::Digest(digest)) => {
            manifest::find(cache, pull, request, *digest, deadline).await
        }
        Target::Blob(digest) => blob::find(cache, pull, request, *digest, deadline).await,
        Target::Tags(_) | Target::Referrers(..) => list::pass(pull, request, deadline).await,
    }
}
