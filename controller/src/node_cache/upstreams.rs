//! The upstreams that nodes are given, with the files beside them. A Shared one stays as nodes have it while its Secret
//! or its authorities cannot be read: agents delete what they keep of an upstream that is taken away. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use kube::ResourceExt;
use larder_wire::settings::{UpstreamSettings, parse};

use super::build::{CREDENTIALS_DIR, SETTINGS_DIR};
use super::dereference::{Dereferenced, Live};
use super::validate::short_hash;
use crate::cache::resolve::{self, LeftOut, Resolved};
use crate::cache::{age, upstream};
use crate::crd::{Access, Cache};

/// The annotation of the credentials' Secret that tells of which specs its Shared upstreams are: `name=hash`, by comma.
const SHARED: &str = "registry-operator.dev/shared";

/// What the settings name, and what stands in files.
#[derive(Default)]
pub(super) struct Given {
    /// By registry.
    pub(super) upstreams: Vec<UpstreamSettings>,
    /// PEM files beside the settings, by name.
    pub(super) authorities: BTreeMap<String, String>,
    /// `<cache>.username` and `<cache>.password`
    pub(super) credentials: BTreeMap<String, ByteString>,
    /// The Caches whose upstream is Shared, each with what stands for its spec.
    pub(super) shared: BTreeMap<String, String>,
}

/// The annotations of the credentials' Secret.
pub(super) fn mark(shared: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let pairs: Vec<String> = shared.iter().map(|(cache, spec)| format!("{cache}={spec}")).collect();
    (!pairs.is_empty()).then(|| [(SHARED.to_owned(), pairs.join(","))].into())
}

/// Of the Caches that can be served; what the others lack is told at themselves.
pub(super) fn given(known: &Dereferenced) -> Given {
    let mut caches: Vec<&Cache> = known.caches.iter().collect();
    caches.sort_by(|one, other| age::by_age(*one, *other));
    let (mut taken, mut given) = (BTreeSet::new(), Given::default());
    // Of two for one registry the elder is meant, even where something else is wrong with it.
    caches.retain(|cache| upstream::registry(&cache.spec).is_ok_and(|registry| taken.insert(registry)));
    for cache in caches {
        let secret = cache.spec.secret_reference_name.as_ref().and_then(|name| known.secrets.get(name));
        let named = resolve::authorities_named(cache).and_then(|name| known.authorities.get(name));
        let upstream = match resolve::resolve(cache, secret, named) {
            Ok(resolved) => Some(given.with_files(cache, resolved)),
            Err(LeftOut::Spec(_)) => None,
            Err(LeftOut::Credential { .. } | LeftOut::Authorities { .. }) => given.keep(cache, &known.live),
        };
        let Some(mut upstream) = upstream else { continue };
        // The eldest is the one of clients that name none.
        upstream.default &= !given.upstreams.iter().any(|before| before.default);
        if cache.spec.access() == Access::Shared {
            given.shared.insert(cache.name_any(), spec_hash(cache));
        }
        given.upstreams.push(upstream);
    }
    given.upstreams.sort_by(|one, other| one.registry.cmp(&other.registry));
    given
}

impl Given {
    /// Puts what is no setting into files, and names them.
    fn with_files(&mut self, cache: &Cache, resolved: Resolved) -> UpstreamSettings {
        let mut upstream = resolved.settings;
        if let Some(credential) = resolved.credential {
            let [username, password] = file_names(cache);
            upstream.username_file = Some(format!("{CREDENTIALS_DIR}/{username}").into());
            upstream.password_file = Some(format!("{CREDENTIALS_DIR}/{password}").into());
            self.credentials.extend([(username, credential.username), (password, credential.password)]);
        }
        if let Some(pem) = resolved.authorities {
            // Named by content: an agent looks at its settings' text to see that something changed.
            let file = format!("ca-{}.pem", short_hash(&pem));
            upstream.ca_file = Some(format!("{SETTINGS_DIR}/{file}").into());
            self.authorities.insert(file, pem);
        }
        upstream
    }

    /// A Shared upstream as nodes have it, with all its files; `None` when they have it of another spec, or not at all.
    fn keep(&mut self, cache: &Cache, live: &Live) -> Option<UpstreamSettings> {
        let secret = live.credentials.as_ref()?;
        let mark = format!("{}={}", cache.name_any(), spec_hash(cache));
        secret.annotations().get(SHARED)?.split(',').find(|shared| **shared == mark)?;
        let registry = upstream::registry(&cache.spec).ok()?;
        let upstreams = parse(live.settings()?).settings.upstreams;
        let upstream = upstreams.into_iter().find(|upstream| upstream.registry == registry)?;
        let credential = file_names(cache).map(|file| {
            let value = secret.data.as_ref()?.get(&file)?.clone();
            Some((file, value))
        });
        let [Some(username), Some(password)] = credential else { return None };
        if let Some(path) = &upstream.ca_file {
            let file = path.file_name()?.to_str()?.to_owned();
            let pem = live.config_map.as_ref()?.data.as_ref()?.get(&file)?.clone();
            self.authorities.insert(file, pem);
        }
        self.credentials.extend([username, password]);
        Some(upstream)
    }
}

fn file_names(cache: &Cache) -> [String; 2] {
    ["username", "password"].map(|key| format!("{}.{key}", cache.name_any()))
}

fn spec_hash(cache: &Cache) -> String {
    short_hash(serde_json::to_string(&cache.spec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use larder_wire::settings::{Settings, render};

    use super::*;
    use crate::node_cache::build::SETTINGS_KEY;
    use crate::node_cache::validate::tests::{cache, known};

    const QUAY: &str = "{upstreamRegistryURL: 'https://quay.io', secretReferenceName: quay, access: Shared, \
                        tls: {caConfigMapRef: {name: corp}}}";

    /// What stands in the cluster after nodes were given this.
    fn live(given: &Given) -> Live {
        let settings = Settings { upstreams: given.upstreams.clone(), ..Settings::default() };
        let mut data = given.authorities.clone();
        data.insert(SETTINGS_KEY.to_owned(), render(&settings));
        let mut secret = Secret { data: Some(given.credentials.clone()), ..Secret::default() };
        secret.metadata.annotations = mark(&given.shared);
        let config_map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        Live { config_map: Some(config_map), credentials: Some(secret), daemon_set: None }
    }

    #[test]
    fn a_shared_upstream_stays_as_it_is_while_its_secret_is_away() {
        let mut known = known(vec![cache("q", QUAY)]);
        let before = given(&known);
        known.live = live(&before);
        known.secrets.clear();
        let after = given(&known);
        assert_eq!(after.upstreams, before.upstreams);
        assert!(after.credentials == before.credentials && after.credentials.len() == 2);
        assert_eq!((after.authorities, after.shared), (before.authorities, before.shared));
        known.authorities.clear();
        assert_eq!(given(&known).upstreams, before.upstreams, "its authorities are away too");
    }

    #[test]
    fn a_shared_upstream_goes_when_its_spec_changed_or_it_never_was_there() {
        let mut known = known(vec![cache("q", QUAY)]);
        let before = live(&given(&known));
        known.secrets.clear();
        assert_eq!(given(&known).upstreams, [], "never there");
        known.live = before;
        known.caches =
            vec![cache("q", &QUAY.replace("secretReferenceName: quay", "secretReferenceName: other"))];
        assert_eq!(given(&known).upstreams, [], "another Secret");
        known.caches = vec![cache("r", QUAY)];
        assert_eq!(given(&known).upstreams, [], "another Cache");
        known.caches = vec![cache("q", QUAY)];
        known.live.credentials.as_mut().unwrap().data.as_mut().unwrap().remove("q.password");
        assert_eq!(given(&known).upstreams, [], "its credential is lost");
    }
}
