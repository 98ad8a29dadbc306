//! Who else than the administrator asks the cluster: service accounts by real tokens, so that what they may do is
//! decided by RBAC, and pods on nodes. Must not grant anything by itself.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{Cluster, client, keys};

impl Cluster {
    /// Makes a service account; one that is there already is fine.
    pub async fn service_account(&self, namespace: &str, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let api = Api::namespaced(self.admin.clone(), namespace);
        self.make(api, ServiceAccount { metadata, ..ServiceAccount::default() }).await;
    }

    /// A client that may do what the service account may. The account is made if it is not there.
    pub async fn client_of(&self, namespace: &str, service_account: &str) -> Client {
        client(&self.kubeconfig_of(namespace, service_account).await).await
    }

    /// A kubeconfig file of a service account, for an hour. The account is made if it is not there.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub async fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> PathBuf {
        self.service_account(namespace, service_account).await;
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let token = self.token(namespace, service_account, spec).await;
        let path = self.dir().join(format!("kubeconfig-{namespace}-{service_account}"));
        let text = keys::kubeconfig(self.dir(), &self.place.server, &token).to_string();
        fs::write(&path, text).expect("a kubeconfig can be written");
        path
    }

    /// A pod's token as the kubelet of `node` would put it into a volume: for `audience`, bound to a pod on the node, so
    /// that it carries the node's name. Node, service account and pod are made if they are not there.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn node_token(
        &self,
        node: &str,
        namespace: &str,
        service_account: &str,
        audience: &str,
    ) -> String {
        self.node(node, &[]).await;
        self.service_account(namespace, service_account).await;
        let pod = self.pod_on(node, namespace, service_account).await;
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            expiration_seconds: Some(3600),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
        };
        self.token(namespace, service_account, spec).await
    }

    /// A token with claims as asked for.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn token(&self, namespace: &str, service_account: &str, spec: TokenRequestSpec) -> String {
        let api: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), namespace);
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = api.create_token_request(service_account, &PostParams::default(), &request).await;
        made.expect("a token is given").status.expect("the answer has a token").token
    }

    /// The same token with other claims, signed by the cluster's own key.
    ///
    /// # Panics
    /// When it is no token of this cluster.
    #[must_use]
    pub fn with_claims(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let [head, claims] = [0, 1].map(|at| token.split('.').nth(at).expect("a token has three parts"));
        let claims = URL_SAFE_NO_PAD.decode(claims).expect("a token's parts are base64");
        let mut claims = serde_json::from_slice(&claims).expect("a token's claims are JSON");
        change(&mut claims);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = keys::sign(self.dir(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The pod `<service account>-<node>`, made if it is not there.
    ///
    /// # Panics
    /// When the API server refuses.
    pub async fn pod_on(&self, node: &str, namespace: &str, service_account: &str) -> Pod {
        let api: Api<Pod> = Api::namespaced(self.admin.clone(), namespace);
        let name = format!("{service_account}-{node}");
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "serviceAccountName": service_account,
                "containers": [{"name": "agent", "image": "none.test/none:1"}],
            },
        });
        self.make(api.clone(), serde_json::from_value(pod).expect("a fixed pod is right")).await;
        api.get(&name).await.expect("the pod is there")
    }
}
