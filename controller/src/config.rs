//! The command line of `larder-controller run` and the environment that its pod gives it; the only file that reads
//! the environment. Must not touch Kubernetes.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

/// How the controller is run. Everything has a default, so that `larder-controller run` works in a pod of the chart
/// and beside a kubeconfig alike.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The controller's own namespace: its Lease, its Service, the Secrets that Caches name
    #[arg(long, env = "POD_NAMESPACE", default_value = "larder-system")]
    pub namespace: String,
    /// Where the agents run
    #[arg(long, default_value = "larder-agents")]
    pub agent_namespace: String,
    /// The Service that agents report to, in the controller's namespace
    #[arg(long, default_value = "larder-controller")]
    pub service: String,
    /// Reports of the nodes, GET /v1/nodes and /v1/summary
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    pub bind_address: SocketAddr,
    /// GET /metrics, plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = ":8443", value_parser = address)]
    pub metrics_bind_address: SocketAddr,
    /// GET /livez and /readyz
    #[arg(long, value_name = "ADDRESS", default_value = ":8081", value_parser = address)]
    pub health_bind_address: SocketAddr,
    /// Requests a second to the API server, on average
    #[arg(long, default_value_t = 60.0, value_parser = positive)]
    pub kube_api_qps: f64,
    /// Requests to the API server at once, before the average holds
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kube_api_burst: u32,
    /// Only the holder of the Lease writes; off for a single replica on a desk
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
    /// This replica's name in the Lease
    #[arg(long, env = "POD_NAME", default_value = "", hide_default_value = true)]
    pub identity: String,
    /// The address at which the other replica reaches this one's reports
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1", value_parser = clap::value_parser!(std::net::IpAddr))]
    pub advertise: std::net::IpAddr,
    #[arg(long, default_value = concat!("ghcr.io/larder/larder:", env!("CARGO_PKG_VERSION")))]
    pub agent_image: String,
    #[arg(long, default_value = "docker.io/library/registry:3.1.1")]
    pub registry_image: String,
    #[arg(long, default_value = concat!("ghcr.io/larder/larder:", env!("CARGO_PKG_VERSION")))]
    pub gateway_image: String,
    /// Secrets with which every workload's image is pulled; may be given more than once
    #[arg(long = "image-pull-secret", value_name = "SECRET")]
    pub image_pull_secrets: Vec<String>,
    #[arg(long, value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,
    /// The agents' priority class
    #[arg(long, default_value = "system-node-critical")]
    pub priority_class: String,
    /// Objects to create once, at the first install: YAML, `---` between them
    #[arg(long, value_name = "FILE")]
    pub defaults: Option<PathBuf>,
    /// json or text, to stderr
    #[arg(long, default_value = "json", value_parser = ["json", "text"])]
    pub log_format: String,
    /// A level, or a filter as tracing-subscriber reads it
    #[arg(long, default_value = "info")]
    pub log_level: String,
}

/// `:8080` is every address, as Go writes it.
fn address(text: &str) -> Result<SocketAddr, String> {
    let whole = text.strip_prefix(':').map(|port| format!("[{}]:{port}", Ipv6Addr::UNSPECIFIED));
    whole
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| "expected IP:PORT, or :PORT for every address".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number of requests a second".to_owned())?;
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err("expected a number above 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        Line::try_parse_from(std::iter::once(&"run").chain(arguments)).map(|line| line.config)
    }

    #[test]
    fn an_address_without_a_host_is_every_address() {
        let config = parse(&["--bind-address=:9000"]).unwrap();
        assert_eq!(config.bind_address, "[::]:9000".parse().unwrap());
        assert!(parse(&["--bind-address=nine"]).is_err());
    }

    #[test]
    fn leader_elect_is_written_as_go_programs_write_it() {
        assert!(parse(&[]).unwrap().leader_elect);
        assert!(parse(&["--leader-elect"]).unwrap().leader_elect);
        assert!(!parse(&["--leader-elect=false"]).unwrap().leader_elect);
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        assert!(parse(&["--kube-api-qps=0"]).is_err());
        assert!(parse(&["--kube-api-qps=NaN"]).is_err());
        assert!(parse(&["--kube-api-burst=0"]).is_err());
    }
}
