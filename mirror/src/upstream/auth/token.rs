//! Fetching and keeping bearer tokens. Must not send a credential to a host that is not the upstream's own, of its
//! registrable domain, or named in `token_hosts`; a realm is never redirected.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Method, Uri};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{Challenge, Credential};
use crate::error::UpstreamError;
use crate::flight::{Once, Role};
use crate::upstream::client::Client;

/// Which token: the credential's fingerprint (`None`: anonymous) and where and for what it is fetched.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub credential: Option<[u8; 32]>,
    pub realm: String,
    pub service: Option<String>,
    pub scope: String,
}

#[derive(Clone)]
pub(crate) struct Token {
    pub secret: SecretString,
    /// Tells one token from the next of the same key.
    pub serial: u64,
    renew: Instant,
}

/// A token fetched for this very request that is refused will not be better the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    Now,
    Before,
}

/// The tokens of one upstream.
#[derive(Default)]
pub(crate) struct Tokens {
    kept: Arc<Mutex<Kept>>,
    flights: Once<TokenKey, Result<Token, UpstreamError>>,
}

type Kept = HashMap<TokenKey, Token>;

/// Enough for every repository a node pulls from in an hour; beyond it tokens are fetched and not kept.
const MOST: usize = 1024;
/// What a token without `expires_in` lives, and the least that is believed.
const SHORTEST: Duration = Duration::from_secs(60);
/// The most that is believed.
const LONGEST: Duration = Duration::from_secs(86_400);
const LONGEST_REPLY: usize = 64 << 10;

#[derive(Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl TokenKey {
    pub(crate) fn new(challenge: &Challenge, scope: &str, credential: Option<&Credential>) -> Option<Self> {
        let Challenge::Bearer { realm, service, scope: told } = challenge else { return None };
        // A scope that names no repository is the registry's own fixed word (ECR Public: `aws`).
        let fixed = told.as_deref().filter(|told| !told.is_empty() && !told.starts_with("repository:"));
        let scope = fixed.unwrap_or(scope);
        Some(Self {
            credential: credential.map(Credential::fingerprint),
            realm: realm.clone(),
            service: service.clone(),
            scope: scope.to_owned(),
        })
    }
}

impl Tokens {
    /// A token that will do for a while, fetched now where there is none; and whether it was.
    pub(crate) async fn token(
        &self,
        key: TokenKey,
        client: &Client,
        credential: Option<Credential>,
    ) -> Result<(Token, Fetched), (Role, UpstreamError)> {
        if let Some(token) = lock(&self.kept).get(&key).filter(|token| token.renew > Instant::now()) {
            return Ok((token.clone(), Fetched::Before));
        }
        let (asked, client, kept) = (key.clone(), client.clone(), Arc::clone(&self.kept));
        let (role, fetched) = self.flights.join(key, || async move {
            // The fetch before this one may have landed since we looked.
            if let Some(token) = lock(&kept).get(&asked).filter(|token| token.renew > Instant::now()) {
                return Ok(token.clone());
            }
            let token = fetch(&client, &asked, credential).await?;
            keep(&mut lock(&kept), asked, &token);
            Ok(token)
        });
        let token =
            fetched.value().await.unwrap_or(Err(UpstreamError::Abandoned)).map_err(|error| (role, error))?;
        Ok((token, Fetched::Now))
    }

    /// A token that the registry would not take is not offered again. One that came after it stays.
    pub(crate) fn drop_token(&self, key: &TokenKey, serial: u64) {
        let mut kept = lock(&self.kept);
        if kept.get(key).is_some_and(|token| token.serial == serial) {
            kept.remove(key);
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a token, in the place of ended ones where there are too many.
fn keep(kept: &mut Kept, key: TokenKey, token: &Token) {
    if kept.len() >= MOST {
        let now = Instant::now();
        kept.retain(|_, token| token.renew > now);
    }
    if kept.len() < MOST {
        kept.insert(key, token.clone());
    }
}

/// Whether a realm may see this upstream's credential. Ports are left aside; IP literals must be equal.
pub(crate) fn realm_allowed(realm: &str, upstream: &str, token_hosts: &[String]) -> bool {
    let named = token_hosts.iter().any(|host| host.eq_ignore_ascii_case(realm));
    named || realm.eq_ignore_ascii_case(upstream) || {
        let domain = |host: &str| psl::domain_str(host).map(str::to_owned);
        let is_name = |host: &str| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err();
        is_name(realm) && is_name(upstream) && domain(realm).is_some() && domain(realm) == domain(upstream)
    }
}

async fn fetch(
    client: &Client,
    key: &TokenKey,
    credential: Option<Credential>,
) -> Result<Token, UpstreamError> {
    let mut realm =
        Url::parse(&key.realm).map_err(|_| UpstreamError::Unusable("its token realm is no URL"))?;
    let https = realm.scheme() == "https" || (realm.scheme() == "http" && !client.home().tls);
    let host = realm.host_str().unwrap_or_default().to_ascii_lowercase();
    if !https || host.is_empty() || !realm.username().is_empty() || realm.password().is_some() {
        return Err(UpstreamError::Unusable("its token realm is not an https URL without a user"));
    }
    if credential.is_some() && !realm_allowed(&host, &client.home().host, client.token_hosts()) {
        return Err(UpstreamError::Unusable(
            "its token realm is another host's; name it in token_hosts if that is right",
        ));
    }
    let identity = credential.as_ref().filter(|one| one.username.is_empty());
    if identity.is_none() {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = &key.service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", &key.scope);
    }
    let uri: Uri =
        realm.as_str().parse().map_err(|_| UpstreamError::Unusable("its token realm is no URI"))?;
    let reply = match identity {
        Some(credential) => client.refresh(uri, refresh_form(key, credential)).await?,
        None => {
            let mut request = client.request(Method::GET, uri);
            if let Some(credential) = &credential {
                request = request.header(AUTHORIZATION, credential.basic());
            }
            client.send(request).await?
        }
    };
    read(client, reply).await
}

/// The form of an identity token's refresh grant: a credential without a user name is one.
fn refresh_form(key: &TokenKey, credential: &Credential) -> String {
    use secrecy::ExposeSecret;
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "larder")
        .append_pair("refresh_token", credential.password.expose_secret())
        .append_pair("service", key.service.as_deref().unwrap_or_default())
        .append_pair("scope", &key.scope)
        .finish()
}

async fn read(client: &Client, reply: http::Response<hyper::body::Incoming>) -> Result<Token, UpstreamError> {
    match reply.status().as_u16() {
        200..=299 => {}
        status @ (400 | 401 | 403 | 404) => return Err(UpstreamError::Private(status)),
        429 => return Err(UpstreamError::Limited(crate::upstream::retry_after(reply.headers()))),
        status => return Err(UpstreamError::Status(status)),
    }
    let body = client.whole(reply.into_body(), LONGEST_REPLY).await?;
    let parsed: Reply =
        serde_json::from_slice(&body).map_err(|_| UpstreamError::Unusable("its token reply is no JSON"))?;
    let given = |token: &String| !token.is_empty();
    let secret = [parsed.token, parsed.access_token].into_iter().flatten().find(given);
    let secret = secret.ok_or(UpstreamError::Unusable("its token reply holds no token"))?;
    let life = Duration::from_secs(parsed.expires_in.unwrap_or(0)).clamp(SHORTEST, LONGEST);
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    Ok(Token {
        secret: secret.into(),
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        renew: Instant::now() + life.mul_f64(0.75),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_goes_to_the_upstreams_own_domain() {
        let named = ["auth.elsewhere.test".to_owned()];
        for (realm, upstream) in [
            ("auth.docker.io", "registry-1.docker.io"),
            ("gitlab.example.co.uk", "registry.example.co.uk"),
            ("registry.test", "registry.test"),
            ("10.0.0.1", "10.0.0.1"),
            ("AUTH.elsewhere.test", "ghcr.io"),
        ] {
            assert!(realm_allowed(realm, upstream, &named), "{realm} for {upstream}");
        }
        for (realm, upstream) in [
            ("docker.io.evil.example", "registry-1.docker.io"),
            ("evildocker.io", "registry-1.docker.io"),
            ("other.co.uk", "example.co.uk"),
            ("10.0.0.2", "10.0.0.1"),
            ("b.github.io", "a.github.io"),
            ("localhost", "registry.test"),
            ("io", "registry-1.docker.io"),
        ] {
            assert!(!realm_allowed(realm, upstream, &named), "{realm} for {upstream}");
        }
    }
}
