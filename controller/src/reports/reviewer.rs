//! Who speaks: the API server's word on a token (TokenReview, SubjectAccessReview), paced and remembered.
//! Must not believe anything a token says of itself, but when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::{Instant, sleep_until, timeout};

use super::answers::{Answers, Verdict};
use super::fleet::WARMING;
use super::metrics::ReportMetrics;
use super::pace::{Asker, Pace, Rates};
use super::refuse::Refusal;
use super::token::Token;
use super::{Reporter, fraction};

/// What agents' tokens are made for.
const AUDIENCE: &str = "larder-controller";
/// The pod's node, in a token's extra.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The API server's word on an agent holds so long, or until the token ends.
const KEEP: Duration = Duration::from_secs(600);
/// What a person may read is asked again after this.
const KEEP_RIGHT: Duration = Duration::from_secs(60);
const KEEP_BAD: Duration = Duration::from_secs(10);
/// How long the API server has for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// From one word in the log about reviews that fail to the next.
const BETWEEN_WORDS: Duration = Duration::from_secs(30);

/// Asks, and remembers.
pub(super) struct Reviewer {
    desk: Desk,
    agents: Answers<Reporter>,
    rights: Answers<()>,
}

/// What a question needs.
#[derive(Clone)]
struct Desk {
    client: Client,
    namespace: String,
    pace: Arc<Mutex<Pace>>,
    /// When the log was last told that reviews fail.
    told: Arc<Mutex<Option<Instant>>>,
    metrics: ReportMetrics,
}

impl Reviewer {
    /// `namespace` is where the agents run.
    pub(super) fn new(client: Client, namespace: String, rates: Rates, metrics: ReportMetrics) -> Self {
        let pace = Arc::new(Mutex::new(Pace::new(rates)));
        let desk = Desk { client, namespace, pace, told: Arc::default(), metrics };
        Self { desk, agents: Answers::new(), rights: Answers::new() }
    }

    /// From now on every token is new.
    pub(super) fn warm_up(&self) {
        self.desk.pace().warm_until(Instant::now() + WARMING);
    }

    /// The node that a token speaks for.
    pub(super) async fn agent(&self, token: &Token) -> Result<Reporter, Refusal> {
        let (desk, key) = (self.desk.clone(), token.key("agent"));
        let token = token.clone();
        let asker = if self.agents.is_known(&key) { Asker::Known } else { Asker::New };
        self.agents.of(key, async move { desk.agent(&token, asker).await }).await
    }

    /// Whether the token's owner may get a page.
    pub(super) async fn reader(&self, token: &Token, path: &'static str) -> Result<(), Refusal> {
        let (desk, key) = (self.desk.clone(), token.key(path));
        let token = token.clone();
        self.rights.of(key, async move { desk.reader(&token, path).await }).await
    }
}

impl Desk {
    async fn agent(&self, token: &Token, asker: Asker) -> Verdict<Reporter> {
        let answer = match self.user(token, Some(AUDIENCE), asker).await {
            Ok(user) => reporter(&user, &self.namespace),
            Err(refusal) => Err(refusal),
        };
        let warming = self.pace().is_warming(Instant::now());
        let left = token.left(Timestamp::now());
        let keep = keep(left, warming.then(fraction));
        Verdict { grace: grace(left, keep), ..verdict(answer, keep) }
    }

    async fn reader(&self, token: &Token, path: &'static str) -> Verdict<()> {
        let answer = match self.user(token, None, Asker::New).await {
            Ok(user) => self.may_get(user, path).await,
            Err(refusal) => Err(refusal),
        };
        let keep = token.left(Timestamp::now()).map_or(KEEP_RIGHT, |left| left.min(KEEP_RIGHT));
        verdict(answer, keep)
    }

    /// Whose token it is.
    async fn user(
        &self,
        token: &Token,
        audience: Option<&'static str>,
        asker: Asker,
    ) -> Result<UserInfo, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: audience.map(|audience| vec![audience.to_owned()]),
                token: Some(token.expose().to_owned()),
            },
            ..TokenReview::default()
        };
        let status = self.ask("TokenReview", review, asker).await?.status.unwrap_or_default();
        let audiences = status.audiences.unwrap_or_default();
        let meant = audience.is_none_or(|audience| audiences.iter().any(|meant| meant == audience));
        match status.user.filter(|_| status.authenticated == Some(true) && meant) {
            Some(user) => {
                self.metrics.review("accepted");
                Ok(user)
            }
            None => {
                self.metrics.review("denied");
                Err(Refusal::Token { audience: audience.unwrap_or("the API server's own audience") })
            }
        }
    }

    async fn may_get(&self, user: UserInfo, path: &'static str) -> Result<(), Refusal> {
        let get = NonResourceAttributes { path: Some(path.to_owned()), verb: Some("get".to_owned()) };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                extra: user.extra,
                groups: user.groups,
                uid: user.uid,
                user: user.username,
                non_resource_attributes: Some(get),
                resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let allowed = self
            .ask("SubjectAccessReview", review, Asker::New)
            .await?
            .status
            .is_some_and(|status| status.allowed);
        self.metrics.review(if allowed { "accepted" } else { "denied" });
        if allowed { Ok(()) } else { Err(Refusal::Forbidden { path }) }
    }

    /// Waits for a turn and asks.
    async fn ask<K>(&self, what: &str, review: K, asker: Asker) -> Result<K, Refusal>
    where
        K: kube::Resource<DynamicType = ()>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let _waiting = self.metrics.waiting();
        let turn = self.pace().turn(asker, Instant::now()).map_err(|again| {
            self.metrics.review("busy");
            Refusal::Busy { again }
        })?;
        sleep_until(turn).await;
        let (api, post): (Api<K>, _) = (Api::all(self.client.clone()), PostParams::default());
        match timeout(ANSWER, api.create(&post, &review)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.tell(what, &crate::error::chain(&error)),
            Err(_) => self.tell(what, "no answer in 5s"),
        }
        self.metrics.review("error");
        Err(Refusal::Unreviewed {
            again: Duration::from_secs(5) + Duration::from_secs(10).mul_f64(fraction()),
        })
    }

    /// Once in a while: every report fails for the same reason.
    fn tell(&self, what: &str, reason: &str) {
        let (mut told, now) = (self.told.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if told.is_none_or(|told| now - told >= BETWEEN_WORDS) {
            *told = Some(now);
            tracing::warn!(what, reason, "the API server cannot be asked about tokens; reports wait");
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long an agent is believed whose token has so much time left. After a restart all tokens are asked
/// about at once, and would be again each ten minutes: a part of the time, another for each, spreads them for
/// good.
fn keep(left: Option<Duration>, part: Option<f64>) -> Duration {
    let keep = left.map_or(KEEP, |left| left.min(KEEP));
    part.map_or(keep, |part| keep.mul_f64(part))
}

/// For how much longer it is believed when the next review has no turn; never beyond the token's own end.
fn grace(left: Option<Duration>, keep: Duration) -> Duration {
    left.map_or(KEEP, |left| left.saturating_sub(keep).min(KEEP))
}

/// A refusal that passes by itself is not remembered.
fn verdict<T>(answer: Result<T, Refusal>, keep: Duration) -> Verdict<T> {
    let keep = match &answer {
        Ok(_) => keep,
        Err(Refusal::Busy { .. } | Refusal::Unreviewed { .. }) => Duration::ZERO,
        Err(_) => KEEP_BAD,
    };
    Verdict { answer, keep, grace: Duration::ZERO }
}

/// The agent that a user is: one ServiceAccount for each NodeCache, one token for each pod.
fn reporter(user: &UserInfo, namespace: &str) -> Result<Reporter, Refusal> {
    let name = user.username.as_deref().unwrap_or_default();
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|account| account.split_once(':'))
        .filter(|(of, _)| *of == namespace)
        .and_then(|(_, account)| account.strip_prefix("larder-"))
        .filter(|node_cache| !node_cache.is_empty());
    let node_cache = account.ok_or_else(|| Refusal::NoAgent { namespace: namespace.to_owned() })?.to_owned();
    let extra = user.extra.as_ref().and_then(|extra| extra.get(NODE_NAME));
    match extra.map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(Reporter { node: node.clone(), node_cache }),
        _ => Err(Refusal::NoNode),
    }
}

#[cfg(test)]
mod tests;
