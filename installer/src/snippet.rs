//! How an administrator points containerd at us where the installer only observes: k3s and RKE2, Talos, Bottlerocket.
//! Text only; must not look at the node.

use std::net::SocketAddr;

use larder_wire::name::Registry;

use crate::entry::{mirror_url, quoted};

/// The three ways, each under its heading.
pub(crate) fn snippets(registries: &[&Registry], mirror: SocketAddr) -> String {
    let url = mirror_url(mirror);
    let k3s: String = registries
        .iter()
        .map(|registry| {
            format!("  {}:\n    endpoint:\n      - {}\n", quoted(registry.as_str()), quoted(&url))
        })
        .collect();
    let talos: Vec<String> = registries
        .iter()
        .map(|registry| {
            format!(
                "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: {}\nendpoints:\n  - url: {url}\n",
                quoted(registry.as_str())
            )
        })
        .collect();
    let bottlerocket: String = registries
        .iter()
        .map(|registry| {
            format!(
                "[[settings.container-registry.mirrors]]\nregistry = {}\nendpoint = [{}]\n",
                quoted(registry.as_str()),
                quoted(&url)
            )
        })
        .collect();
    format!(
        "# k3s, RKE2: /etc/rancher/k3s/registries.yaml or /etc/rancher/rke2/registries.yaml, then restart it\n\
         mirrors:\n{k3s}\n\
         # Talos: machine configuration documents\n{}\n\
         # Bottlerocket: user data\n{bottlerocket}",
        talos.join("---\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registry_is_in_every_snippet() {
        let (hub, own): (Registry, Registry) =
            ("docker.io".parse().unwrap(), "registry.example:5000".parse().unwrap());
        let text = snippets(&[&hub, &own], SocketAddr::from(([127, 0, 0, 1], 19500)));
        assert_eq!(text.matches("\"registry.example:5000\"").count(), 3);
        assert_eq!(text.matches("http://127.0.0.1:19500").count(), 6);
        assert!(
            text.contains("mirrors:\n  \"docker.io\":\n    endpoint:\n      - \"http://127.0.0.1:19500\"\n")
        );
        let bottlerocket = text.split("# Bottlerocket: user data\n").nth(1).unwrap();
        assert!(bottlerocket.parse::<toml::Table>().is_ok());
    }
}
