//! The end of a NodeCache: every node is told to take its entries out of certs.d, then waited for until a deadline, then
//! the children go and the object with them. Must not roll a pod: the agents learn it from their settings.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use larder_wire::settings::{InstallerMode, Settings, parse, render};
use larder_wire::units::parse_duration;

use super::dereference::{self, Live};
use super::rollout::Pods;
use super::status::{self, Progress};
use super::{build, child_name, finalizer, gone};
use crate::apply::{self, Child};
use crate::context::Context;
use crate::crd::NodeCache;
use crate::error::Error;
use crate::events::Kind;
use crate::reports::{Desired, Withdrawal};

/// How long nodes are waited for where the NodeCache does not say.
const TIMEOUT: Duration = Duration::from_secs(300);

/// From one look at the nodes to the next.
const LOOK: Duration = Duration::from_secs(5);

/// Goes on with a deletion; the finalizer goes last.
pub(super) async fn withdraw(node_cache: &NodeCache, context: &Context) -> Result<Action, Error> {
    if !finalizer::is_held(node_cache) {
        return Ok(Action::await_change());
    }
    let name = node_cache.name_any();
    let live = dereference::live(node_cache, context).await?;
    let left = match absent(&live) {
        None => Left::default(),
        Some((settings, config_map)) => {
            apply::apply(context, &Child::of(&config_map)).await?;
            let (generation, interval) = (settings.generation, settings.report.interval);
            context.fleet.set_desired(&name, Desired { generation, interval });
            gone::forget(node_cache, context).await;
            let told = context.fleet.withdrawn(&name, generation, Timestamp::now());
            Left::of(&told, Pods::of(live.daemon_set.as_ref()).desired)
        }
    };
    let deadline = deadline(node_cache);
    if left.nodes > 0 && Timestamp::now() < deadline {
        let progress = Progress::withdrawing(&left.words(), deadline);
        status::progress(node_cache, context, &progress).await?;
        return Ok(Action::requeue(LOOK));
    }
    tell(node_cache, context, &left).await;
    for child in children(&name, &context.config.agent_namespace) {
        apply::remove(context, &child).await?;
    }
    context.fleet.forget_node_cache(&name);
    finalizer::release(node_cache, context).await?;
    Ok(Action::await_change())
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

/// The settings that nodes mount, with every entry to be taken out; `None` when there are none, none that read, or
/// nobody is left to read them.
fn absent(live: &Live) -> Option<(Settings, ConfigMap)> {
    let (config_map, _) = (live.config_map.as_ref()?, live.daemon_set.as_ref()?);
    let parsed = parse(live.settings()?);
    if !parsed.is_usable() {
        return None;
    }
    let mut settings = parsed.settings;
    if settings.installer.mode != InstallerMode::Absent {
        settings.installer.mode = InstallerMode::Absent;
        settings.generation += 1;
    }
    let mut data = config_map.data.clone().unwrap_or_default();
    data.insert(build::SETTINGS_KEY.to_owned(), render(&settings));
    let metadata = ObjectMeta {
        name: config_map.metadata.name.clone(),
        namespace: config_map.metadata.namespace.clone(),
        labels: config_map.metadata.labels.clone(),
        owner_references: config_map.metadata.owner_references.clone(),
        ..ObjectMeta::default()
    };
    Some((settings, ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }))
}

fn deadline(node_cache: &NodeCache) -> Timestamp {
    let written = node_cache.spec.withdraw_timeout.as_deref();
    let patience = written.and_then(|text| parse_duration(text).ok()).unwrap_or(TIMEOUT);
    let asked = node_cache.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    asked.checked_add(patience).unwrap_or(Timestamp::MAX)
}

async fn tell(node_cache: &NodeCache, context: &Context, left: &Left) {
    let (kind, reason, note) = if left.nodes == 0 {
        (Kind::Normal, "Withdrawn", format!("all {} nodes have their entries out of certs.d", left.of))
    } else {
        let note = format!("{}; their agents take them out when they stop", left.words());
        (Kind::Warning, "WithdrawIncomplete", note)
    };
    context.events.tell(node_cache, kind, reason, note).await;
}

/// The pods first: what they mount goes after.
fn children(name: &str, namespace: &str) -> [Child; 4] {
    let metadata = |name: String| ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    let (child, credentials) = (child_name(name), format!("{}-credentials", child_name(name)));
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
        Live { config_map: Some(config_map), daemon_set: Some(DaemonSet::default()) }
    }

    #[test]
    fn nodes_are_told_once_and_what_else_they_mount_stays() {
        let (settings, config_map) = absent(&live(InstallerMode::Manage)).unwrap();
        assert_eq!((settings.generation, settings.installer.mode), (5, InstallerMode::Absent));
        let data = config_map.data.unwrap();
        assert_eq!(parse(&data[build::SETTINGS_KEY]).settings, settings);
        assert!(data.contains_key("ca-1.pem"));
        let (again, _) = absent(&live(InstallerMode::Absent)).unwrap();
        assert_eq!(again.generation, 4);
        let alone = Live { daemon_set: None, ..live(InstallerMode::Manage) };
        assert!(absent(&alone).is_none(), "no agents are left that could do it");
    }

    #[test]
    fn the_deadline_counts_from_the_deletion() {
        let text = "{apiVersion: registry-operator.dev/v1alpha1, kind: NodeCache, metadata: {name: default, \
                    deletionTimestamp: '2026-11-20T09:00:00Z'}, spec: {withdrawTimeout: 90s}}";
        let node_cache: NodeCache = serde_saphyr::from_str(text).unwrap();
        assert_eq!(deadline(&node_cache).to_string(), "2026-11-20T09:01:30Z");
    }
}
