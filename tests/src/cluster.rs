//! A real Kubernetes API server with an etcd of its own, and what tests do with it: the one that the tests of a process
//! share ([`Cluster::start`]), or one alone ([`Cluster::private`]). Nodes and pods are objects without a machine behind
//! them. Must not hold what a test expects.

mod access;
mod agent;
mod controller;
mod gate;
mod helm;
mod keys;
mod led;
mod plane;
mod played;
mod programs;
mod rights;
mod space;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Client, Config};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, interval};

use crate::wait::{DEADLINE, within};

pub use agent::{Agent, Answer, ask};
pub use controller::Controller;
pub use gate::Gate;
pub use helm::{Helm, chart};
pub use led::Led;
pub use plane::Plane;
pub use played::{Pods, image_of};
pub use programs::Programs;
pub use rights::{AGENTS, NAMESPACE};
pub use space::Space;

/// How often a cluster is asked whether something has come about.
const LOOK: Duration = Duration::from_millis(50);

/// The way to a running API server. Costs nothing to drop: the server is its [`Plane`]'s, or the process's.
pub struct Cluster {
    /// May do everything.
    pub admin: Client,
    place: Place,
}

/// Where a control plane is.
#[derive(Clone, Debug)]
struct Place {
    programs: Programs,
    /// Files of tests; gone with the control plane.
    dir: PathBuf,
    /// `https://127.0.0.1:PORT`
    server: String,
}

/// How a program ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Cluster {
    /// The cluster that all tests of this process share, with our custom resources in it: a test makes a namespace of
    /// its own and gives cluster-wide objects names of its own. Nothing, and one line that says so, where the programs
    /// are not.
    ///
    /// # Panics
    /// When they are there and do not come up.
    pub async fn start() -> Option<Self> {
        let place = plane::shared().await?;
        Some(Self::at(place).await)
    }

    /// A cluster of the test's own, without our custom resources. It ends when its plane is dropped.
    ///
    /// # Panics
    /// When the programs are there and do not come up.
    pub async fn private() -> Option<(Self, Plane)> {
        let plane = Plane::start(&Programs::find()?).await.expect("the control plane comes up");
        Some((Self::at(plane.place().clone()).await, plane))
    }

    async fn at(place: Place) -> Self {
        let admin = client(&place.kubeconfig()).await;
        Self { admin, place }
    }

    /// An administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    /// A directory that goes with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// A name that no other test of this process has.
    #[must_use]
    pub fn name(&self, prefix: &str) -> String {
        static USED: AtomicUsize = AtomicUsize::new(1);
        format!("{prefix}-{}", USED.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a namespace of a name that no other test has.
    pub async fn namespace(&self, prefix: &str) -> String {
        let name = self.name(prefix);
        self.namespace_called(&name).await;
        name
    }

    /// Makes a namespace; one that is there already is fine.
    pub async fn namespace_called(&self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        self.make(Api::all(self.admin.clone()), Namespace { metadata, ..Namespace::default() }).await;
    }

    /// Makes a node object with labels; one that is there already is fine.
    pub async fn node(&self, name: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.collect()),
            ..ObjectMeta::default()
        };
        self.make(Api::all(self.admin.clone()), Node { metadata, ..Node::default() }).await;
    }

    /// Applies the custom resources as the controller has them and waits until they are served.
    pub async fn install_crds(&self) {
        let api: Api<CustomResourceDefinition> = Api::all(self.admin.clone());
        for crd in larder_controller::crd::all() {
            let name = crd.metadata.name.clone().expect("a custom resource has a name");
            let params = PatchParams::apply("larder-tests").force();
            api.patch(&name, &params, &Patch::Apply(&crd)).await.expect("a custom resource is accepted");
            let established = await_condition(api.clone(), &name, is_crd_established());
            within(format!("{name} is established"), established).await.expect("it can be watched");
        }
        // What discovery tells may come later.
        wait_for("kubectl knows the custom resources", DEADLINE, async || {
            let known =
                self.kubectl(&["api-resources", "--api-group=registry-operator.dev", "-o=name"], "").await;
            (known.code == Some(0) && known.out.lines().count() >= larder_controller::crd::all().len())
                .then_some(())
        })
        .await;
    }

    /// Runs kubectl as the administrator; `input` is its standard input.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Said {
        let mut command = tokio::process::Command::new(self.place.programs.path("kubectl"));
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl can be started");
        let mut stdin = child.stdin.take().expect("it was asked for");
        let fed = async {
            // One that does not read what it is given has its reasons, and tells them.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await.expect("our own child can be waited for")
        };
        Said::of(&within(format!("kubectl {args:?}"), fed).await)
    }

    /// `kubectl apply` of YAML in a namespace.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> Said {
        self.kubectl(&["apply", "--namespace", namespace, "--filename", "-"], yaml).await
    }

    async fn make<K>(&self, api: Api<K>, object: K)
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
    {
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            made => drop(made.expect("an object can be made")),
        }
    }
}

impl Place {
    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// What it wrote to standard output; fails the test when it did not end well.
    ///
    /// # Panics
    /// When its exit code is not 0.
    #[must_use]
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

/// A client for a kubeconfig. It belongs to the runtime that made it, as every client does.
///
/// # Panics
/// When the file is no kubeconfig.
pub async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig can be read");
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a kubeconfig of ours is right")).expect("a client can be made")
}

/// Asks until the answer is there. Fails the test when it is not before the deadline.
pub async fn wait_for<T>(
    what: impl Display,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
    }
}
