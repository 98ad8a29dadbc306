//! The validate step of a NodeCache: what it depends on -> everything decided, or why nothing is touched. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ResourceRequirements, SELinuxOptions, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use larder_wire::settings::{Settings, parse, render};
use sha2::{Digest, Sha256};

use super::conflict::{Conflict, conflict};
use super::dereference::Dereferenced;
use super::rollout::{self, Degraded, Pods, Rollout};
use super::{child_name, credentials_name, places, settings, upstreams};
use crate::cache::age;
use crate::cache::upstream::Wrong;
use crate::config::Config;
use crate::crd::{NodeCache, NodeCacheSpec};

/// What one ConfigMap or Secret takes, with room for its metadata.
const LARGEST: usize = 900 * 1024;

/// Everything that the build step needs.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    /// The NodeCache's.
    pub(super) name: String,
    /// Where the children stand.
    pub(super) namespace: String,
    pub(super) owner: OwnerReference,
    pub(super) settings: Settings,
    /// PEM files beside the settings, by name.
    pub(super) authorities: BTreeMap<String, String>,
    /// `<cache>.username` and `<cache>.password`
    pub(super) credentials: BTreeMap<String, ByteString>,
    /// The Caches whose upstream is Shared, each with what stands for its spec.
    pub(super) shared: BTreeMap<String, String>,
    pub(super) pod: Pod,
    pub(super) rollout: Rollout,
    /// Nodes that were degraded when this release began.
    pub(super) degraded_before: usize,
    /// Tells one release of the pods from the next.
    pub(super) release: String,
    pub(super) max_unavailable: IntOrString,
}

/// What the pods' template takes from the NodeCache and the controller's own settings.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) image: String,
    pub(super) pull_policy: Option<String>,
    pub(super) pull_secrets: Vec<String>,
    pub(super) priority_class: String,
    pub(super) node_selector: BTreeMap<String, String>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) se_linux_options: Option<SELinuxOptions>,
    /// The agent container's, where the NodeCache has its own.
    pub(super) resources: Option<ResourceRequirements>,
}

/// Why the children stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}; what runs is left as it is")]
    Invalid(Wrong),
    #[error(
        "NodeCache {} selects {} of these nodes too, {} among them, and is older; narrow one nodeSelector. Until then \
         nothing of this one is made or changed", .0.elder, .0.nodes, .0.example
    )]
    Conflict(Conflict),
    /// What was asked, and the API server's own words.
    #[error("{0}; what comes after it is left as it is, and tried again")]
    Api(String),
}

impl Refusal {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "InvalidConfiguration",
            Self::Conflict(_) => "Conflict",
            Self::Api(_) => "ApplyRefused",
        }
    }
}

impl Effective {
    pub(super) fn child_name(&self) -> String {
        child_name(&self.name)
    }

    pub(super) fn credentials_name(&self) -> String {
        credentials_name(&self.name)
    }
}

pub(super) fn validate(
    node_cache: &NodeCache,
    known: &Dereferenced,
    config: &Config,
) -> Result<Effective, Refusal> {
    let nodes = known.nodes.iter().map(AsRef::as_ref);
    if let Some(conflict) = conflict(node_cache, &known.node_caches, nodes) {
        return Err(Refusal::Conflict(conflict));
    }
    age::selector(node_cache).map_err(|why| Refusal::Invalid(Wrong { field: "spec.cacheSelector", why }))?;
    let upstreams::Given { upstreams, authorities, credentials, shared } = upstreams::given(known);
    // A Service that is gone for a moment does not silence the nodes.
    let live = known.live.settings();
    let controller = known.controller.clone().or_else(|| parse(live?).settings.report.controller);
    let mut settings =
        settings::settings(&node_cache.spec, upstreams, controller).map_err(Refusal::Invalid)?;
    settings.generation = settings::generation(&settings, live, settings::told(node_cache));
    places::apart(&settings).map_err(Refusal::Invalid)?;
    fits(&settings, &authorities, &credentials).map_err(Refusal::Invalid)?;
    let (daemon_set, told) = (known.live.daemon_set.as_ref(), node_cache.status.as_ref());
    let told = told.map_or(0, |status| status.nodes.degraded);
    let degraded = Degraded::of(&known.summary, Pods::of(daemon_set), told);
    let pod = pod(&node_cache.spec, config);
    let release = release(&pod, &settings);
    let (rollout, degraded_before) = rollout::decide(daemon_set, degraded, &release);
    let max_unavailable =
        node_cache.spec.rollout.as_ref().and_then(|rollout| rollout.max_unavailable.clone());
    Ok(Effective {
        name: node_cache.name_any(),
        namespace: config.agent_namespace.clone(),
        owner: node_cache.controller_owner_ref(&()).unwrap_or_default(),
        settings,
        authorities,
        credentials,
        shared,
        pod,
        rollout,
        degraded_before,
        release,
        max_unavailable: max_unavailable.unwrap_or_else(|| IntOrString::String("5%".to_owned())),
    })
}

/// What the API server would refuse, again and again.
fn fits(
    settings: &Settings,
    authorities: &BTreeMap<String, String>,
    credentials: &BTreeMap<String, ByteString>,
) -> Result<(), Wrong> {
    let config = render(settings).len() + authorities.values().map(String::len).sum::<usize>();
    let secret = credentials.values().map(|value| value.0.len()).sum::<usize>();
    if config.max(secret) <= LARGEST {
        return Ok(());
    }
    let why = format!(
        "the {} Caches it selects take more than {} KiB of settings, certificates or credentials; select fewer",
        settings.upstreams.len(),
        LARGEST / 1024
    );
    Err(Wrong { field: "spec.cacheSelector", why })
}

fn pod(spec: &NodeCacheSpec, config: &Config) -> Pod {
    let own = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone());
    let mut pull_secrets: Vec<String> = own.chain(config.image_pull_secrets.iter().cloned()).collect();
    pull_secrets.sort();
    pull_secrets.dedup();
    let everything = || vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }];
    Pod {
        image: spec.image.clone().unwrap_or_else(|| config.agent_image.clone()),
        pull_policy: config.image_pull_policy.clone(),
        pull_secrets,
        priority_class: spec.priority_class_name.clone().unwrap_or_else(|| config.priority_class.clone()),
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        tolerations: spec.tolerations.clone().unwrap_or_else(everything),
        se_linux_options: spec.se_linux_options.clone(),
        resources: spec.resources.clone(),
    }
}

/// Of everything that an administrator can change about the pods.
fn release(pod: &Pod, settings: &Settings) -> String {
    let installer = &settings.installer;
    let places = (
        &settings.data_dir,
        &settings.run_dir,
        &installer.certs_dir,
        &installer.containerd_config,
        &settings.listen,
    );
    short_hash(format!("{pod:?} {places:?}"))
}

pub(super) fn short_hash(text: impl AsRef<[u8]>) -> String {
    Sha256::digest(text)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(in crate::node_cache) mod tests;
