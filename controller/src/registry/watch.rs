//! What wakes a Registry's story: itself, its children, and the template that it names. Secrets, buckets and certificates
//! are only ever read by name, so the story looks at those again by itself.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Client, ResourceExt};

use crate::apply::MANAGED_BY;
use crate::config::Config;
use crate::crd::{Registry, RegistryTemplate};

#[must_use]
pub fn watch(client: &Client, _config: &Config) -> Controller<Registry> {
    let (label, value) = MANAGED_BY;
    let ours =
        watcher::Config::default().labels(&format!("{label}={value},app.kubernetes.io/component=registry"));
    let controller = Controller::new(Api::<Registry>::all(client.clone()), watcher::Config::default());
    let registries = controller.store();
    controller
        .owns(Api::<Deployment>::all(client.clone()), ours.clone())
        .owns(Api::<Service>::all(client.clone()), ours.clone())
        .owns(Api::<Ingress>::all(client.clone()), ours.clone())
        .owns(Api::<PodDisruptionBudget>::all(client.clone()), ours)
        .watches(Api::<RegistryTemplate>::all(client.clone()), watcher::Config::default(), move |template| {
            users(&registries, &template.name_any())
        })
}

fn users(registries: &Store<Registry>, template: &str) -> Vec<ObjectRef<Registry>> {
    let all = registries.state();
    let using = all.iter().filter(|registry| registry.template_name() == Some(template));
    using.map(|registry| ObjectRef::from_obj(registry.as_ref())).collect()
}
