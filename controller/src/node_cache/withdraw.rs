//! The end of a NodeCache: every node is told to take its entries out of certs.d, then waited for until a deadline, then
//! the children go and the object with them. Must not roll a pod: the agents learn it from their settings.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use larder_wire::settings::{InstallerMode, Parsed, Settings, parse, render};
use larder_wire::units::parse_duration;

use super::dereference::{self, Live};
use super::rollout::Pods;
use super::status::{self, Progress};
use super::{build, child_name, credentials_name, finalizer, gone, settings};
use crate::apply::{self, Child};
use crate::context::Context;
use crate::crd::NodeCache;
use crate::error::{Error, chain};
use crate::events::Kind;
use crate::reports::{Desired, Withdrawal};

/// How long nodes are waited for where the NodeCache does not say: less than the hooks and `helm uninstall` wait.
const TIMEOUT: Duration = Duration::from_secs(180);

/// From one look at the nodes to the next.
const LOOK: Duration = Duration::from_secs(5);

/// Goes on with a deletion; the finalizer goes last.
pub(super) async fn withdraw(node_cache: &NodeCache, context: &Context) -> Result<Action, Error> {
    let name = node_cache.name_any();
    if finalizer::is_held(node_cache) {
        let asked = ask(node_cache, context).await?;
        let deadline = deadline(node_cache);
        if let Some(what) = asked.waits_for().filter(|_| Timestamp::now() < deadline) {
            let progress = Progress::withdrawing(&what, deadline);
            status::progress(node_cache, context, &progress).await?;
            return Ok(Action::requeue(LOOK));
        }
        let (kind, reason, note) = asked.outcome();
        context.events.tell(node_cache, kind, reason, note).await;
        for child in children(&name, &context.config.agent_namespace) {
            apply::remove(context, &child).await?;
        }
        finalizer::release(node_cache, context).await?;
    }
    context.fleet.forget_node_cache(&name);
    context.metrics.forget_node_cache(&name);
    Ok(Action::await_change())
}

/// What became of asking the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// There is no DaemonSet, and so nobody to ask.
    Nobody,
    /// The settings that would tell them could not be written.
    Unwritten(String),
    Told(Left),
}

impl Asked {
    fn waits_for(&self) -> Option<String> {
        match self {
            Self::Nobody => None,
            Self::Unwritten(why) => Some(format!("the nodes cannot be told: {why}")),
            Self::Told(left) => (left.nodes > 0).then(|| left.words()),
        }
    }

    /// An event of what is known, and of nothing else.
    fn outcome(&self) -> (Kind, &'static str, String) {
        match self {
            Self::Nobody => (
                Kind::Normal,
                "NoAgents",
                "there is no DaemonSet of agents; whether nodes still have entries in certs.d is not known"
                    .to_owned(),
            ),
            Self::Unwritten(why) => (
                Kind::Warning,
                "WithdrawIncomplete",
                format!(
                    "the nodes could not be told to take their entries out of certs.d: {why}; agents do so when they \
                     stop, unless they were to keep them"
                ),
            ),
            Self::Told(Left { of: 0, .. }) => {
                (Kind::Normal, "Withdrawn", "no node had an agent, and none reported".to_owned())
            }
            Self::Told(left @ Left { nodes: 0, .. }) => (
                Kind::Normal,
                "Withdrawn",
                format!("all {} nodes have their entries out of certs.d", left.of),
            ),
            Self::Told(left) => {
                let note =
                    format!("{}; agents that have read this take them out when they stop", left.words());
                (Kind::Warning, "WithdrawIncomplete", note)
            }
        }
    }
}

/// Tells the nodes by their settings, and counts what they say.
async fn ask(node_cache: &NodeCache, context: &Context) -> Result<Asked, Error> {
    let (name, now) = (node_cache.name_any(), Timestamp::now());
    let live = dereference::live(node_cache, context).await?;
    let controller = dereference::controller(context).await?;
    let namespace = &context.config.agent_namespace;
    let Some(Told { settings, config_map }) = absent(node_cache, &live, controller, namespace) else {
        return Ok(Asked::Nobody);
    };
    // A fault here is no reason to wait longer than for silent nodes.
    if let Err(error) = apply::apply(context, &Child::of(&config_map)).await {
        return Ok(Asked::Unwritten(chain(&error)));
    }
    let (generation, interval) = (settings.generation, settings.report.interval);
    context.fleet.set_desired(&name, Desired { generation, interval }, now);
    gone::forget(node_cache, context).await;
    let told = context.fleet.withdrawn(&name, generation, now);
    Ok(Asked::Told(Left::of(&told, Pods::of(live.daemon_set.as_ref()).desired)))
}

/// Nodes that have not said that their entries are out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Left {
    nodes: usize,
    of: usize,
    /// Some of them.
    names: Vec<String>,
}

impl Left {
    /// A node that never reported is one of the DaemonSet's, and has confirmed nothing.
    fn of(told: &Withdrawal, desired: i32) -> Self {
        let of = told.known.max(usize::try_from(desired).unwrap_or(0));
        Self { nodes: of.saturating_sub(told.done), of, names: told.remaining.clone() }
    }

    fn words(&self) -> String {
        let names =
            if self.names.is_empty() { String::new() } else { format!(" ({})", self.names.join(", ")) };
        format!(
            "{} of {} nodes have not confirmed that their entries are out of certs.d{names}",
            self.nodes, self.of
        )
    }
}

/// Settings that take every entry out, and the ConfigMap that brings them.
pub(super) struct Told {
    pub(super) settings: Settings,
    pub(super) config_map: ConfigMap,
}

/// The settings that nodes mount, with every entry to be taken out, now and when an agent stops; made of the spec where
/// there are none, or none that read. `None` when nobody is left to read them.
pub(super) fn absent(
    node_cache: &NodeCache,
    live: &Live,
    controller: Option<String>,
    namespace: &str,
) -> Option<Told> {
    live.daemon_set.as_ref()?;
    let metadata = ObjectMeta {
        name: Some(child_name(&node_cache.name_any())),
        namespace: Some(namespace.to_owned()),
        labels: Some(apply::labels(build::COMPONENT, &node_cache.name_any())),
        owner_references: node_cache.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let mounted = live.settings().map(parse).filter(Parsed::is_usable).map(|parsed| parsed.settings);
    let mut data = live.config_map.as_ref().and_then(|live| live.data.clone()).unwrap_or_default();
    let settings = match mounted {
        Some(mounted) => {
            let mut settings = with_all_out(mounted.clone());
            settings.generation += u64::from(settings != mounted);
            settings
        }
        None => {
            let mut settings = with_all_out(of_spec(node_cache, controller));
            settings.generation =
                settings::generation(&settings, live.settings(), settings::told(node_cache));
            settings
        }
    };
    data.insert(build::SETTINGS_KEY.to_owned(), render(&settings));
    Some(Told { settings, config_map: ConfigMap { metadata, data: Some(data), ..ConfigMap::default() } })
}

fn with_all_out(mut settings: Settings) -> Settings {
    settings.installer.mode = InstallerMode::Absent;
    settings.installer.keep_on_shutdown = false;
    settings
}

/// Without upstreams; of a spec that cannot be used, where the entries are.
fn of_spec(node_cache: &NodeCache, controller: Option<String>) -> Settings {
    let spec = &node_cache.spec;
    settings::settings(spec, Vec::new(), controller.clone()).unwrap_or_else(|_| {
        let mut settings = Settings { upstreams: Vec::new(), ..Settings::default() };
        (settings.installer, settings.report.controller) = (settings::installer(spec), controller);
        settings
    })
}

fn deadline(node_cache: &NodeCache) -> Timestamp {
    let written = node_cache.spec.withdraw_timeout.as_deref();
    let patience = written.and_then(|text| parse_duration(text).ok()).unwrap_or(TIMEOUT);
    let asked = node_cache.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    asked.checked_add(patience).unwrap_or(Timestamp::MAX)
}

/// The pods first: what they mount goes after.
fn children(name: &str, namespace: &str) -> [Child; 4] {
    let metadata = |name: String| ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    let (child, credentials) = (child_name(name), credentials_name(name));
    [
        Child::of(&DaemonSet { metadata: metadata(child.clone()), ..DaemonSet::default() }),
        Child::of(&ConfigMap { metadata: metadata(child.clone()), ..ConfigMap::default() }),
        Child::of(&Secret { metadata: metadata(credentials), ..Secret::default() }),
        Child::of(&ServiceAccount { metadata: metadata(child), ..ServiceAccount::default() }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::NodeCacheStatus;
    use crate::node_cache::validate::tests::node_cache;

    #[test]
    fn nodes_that_never_reported_have_confirmed_nothing() {
        let told = Withdrawal { known: 3, done: 2, silent: 0, remaining: vec!["n3".to_owned()] };
        let left = Left::of(&told, 5);
        assert_eq!((left.nodes, left.of), (3, 5));
        assert!(left.words().contains("3 of 5 nodes") && left.words().contains("(n3)"), "{}", left.words());
        assert_eq!(Left::of(&Withdrawal { known: 2, done: 2, ..told }, 2).nodes, 0);
        assert_eq!(Left::of(&Withdrawal::default(), 0), Left::default());
    }

    fn live(mode: InstallerMode) -> Live {
        let mut settings = Settings { generation: 4, ..Settings::default() };
        settings.installer.mode = mode;
        let data =
            [(build::SETTINGS_KEY.to_owned(), render(&settings)), ("ca-1.pem".to_owned(), "pem".to_owned())];
        let config_map = ConfigMap { data: Some(data.into()), ..ConfigMap::default() };
        Live { config_map: Some(config_map), daemon_set: Some(DaemonSet::default()), credentials: None }
    }

    fn told(live: &Live, spec: &str) -> Option<Told> {
        let mut node_cache = node_cache(spec);
        node_cache.status = Some(NodeCacheStatus { generation: 7, ..NodeCacheStatus::default() });
        absent(&node_cache, live, Some("http://10.96.0.7:8080".to_owned()), "larder-agents")
    }

    #[test]
    fn nodes_are_told_once_and_what_else_they_mount_stays() {
        let Told { settings, config_map } = told(&live(InstallerMode::Manage), "{}").unwrap();
        assert_eq!((settings.generation, settings.installer.mode), (5, InstallerMode::Absent));
        assert_eq!(config_map.metadata.name.as_deref(), Some("larder-default"));
        let data = config_map.data.unwrap();
        assert_eq!(parse(&data[build::SETTINGS_KEY]).settings, settings);
        assert!(data.contains_key("ca-1.pem"));
        assert_eq!(told(&live(InstallerMode::Absent), "{}").unwrap().settings.generation, 4);
        let alone = Live { daemon_set: None, ..live(InstallerMode::Manage) };
        assert!(told(&alone, "{}").is_none(), "no agents are left that could do it");
    }

    #[test]
    fn without_settings_that_read_they_are_made_of_the_spec_and_nothing_is_kept() {
        let spec = "{installer: {certsDir: /srv/certs.d, keepOnShutdown: true}, reportInterval: soon}";
        for spec in [spec, &spec.replace("soon", "10s")] {
            let mut live = Live { config_map: None, ..live(InstallerMode::Manage) };
            let Told { settings, config_map } = told(&live, spec).unwrap();
            assert_eq!((settings.generation, settings.installer.mode), (8, InstallerMode::Absent));
            assert!(!settings.installer.keep_on_shutdown && settings.upstreams.is_empty());
            assert_eq!(settings.installer.certs_dir, std::path::Path::new("/srv/certs.d"));
            assert_eq!(settings.report.controller.as_deref(), Some("http://10.96.0.7:8080"));
            live.config_map = Some(config_map);
            assert_eq!(told(&live, spec).unwrap().settings, settings, "and once");
        }
    }

    #[test]
    fn the_event_says_what_is_known() {
        let left = |nodes, of| Asked::Told(Left { nodes, of, names: Vec::new() });
        let cases = [
            (Asked::Nobody, "NoAgents", "not known", false),
            (
                Asked::Unwritten("apply ConfigMap x: no".to_owned()),
                "WithdrawIncomplete",
                "apply ConfigMap x",
                true,
            ),
            (left(0, 0), "Withdrawn", "no node had an agent", false),
            (left(0, 5), "Withdrawn", "all 5 nodes", false),
            (left(2, 5), "WithdrawIncomplete", "2 of 5 nodes have not confirmed", true),
        ];
        for (asked, reason, words, waits) in cases {
            let (_, said, note) = asked.outcome();
            assert_eq!(
                (said, note.contains(words), asked.waits_for().is_some()),
                (reason, true, waits),
                "{note}"
            );
        }
    }

    #[test]
    fn the_deadline_counts_from_the_deletion() {
        let text = "{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, metadata: {name: default, \
                    deletionTimestamp: '2026-11-20T09:00:00Z'}, spec: {withdrawTimeout: 90s}}";
        let node_cache: NodeCache = serde_saphyr::from_str(text).unwrap();
        assert_eq!(deadline(&node_cache).to_string(), "2026-11-20T09:01:30Z");
        let unsaid: NodeCache = serde_saphyr::from_str(&text.replace("withdrawTimeout: 90s", "")).unwrap();
        assert_eq!(deadline(&unsaid).to_string(), "2026-11-20T09:03:00Z");
    }
}
