//! The rules that many fields share. Each message names the field, says what is wrong and what to write instead; none
//! repeats the value, which may hold a password. Must not hold a rule that only one kind has: that stands at its type.
//!
//! Rules run in the API server, whose budget for them is counted from the longest string and list that the schema
//! admits: `finish` sees to it that everything has an end.

use kube::core::Rule;

/// Go's notation with a unit: `1h30m`, `0s`.
const DURATION: &str = r"^([0-9]{1,9}([.][0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$";
/// A DNS subdomain, as Kubernetes names objects.
const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A host name or an IPv6 literal in brackets, of either case.
const HOST: &str = "([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?|[\\[][0-9A-Fa-f:.]+[\\]])";

fn rule(expression: impl Into<String>, message: String) -> Rule {
    Rule::new(expression).message(message.as_str())
}

fn matches(pattern: &str, message: String) -> Rule {
    rule(format!("self.matches(r\"{pattern}\")"), message)
}

fn all_match(pattern: &str, message: String) -> Rule {
    rule(format!("self.all(item, item.matches(r\"{pattern}\"))"), message)
}

/// At most `length` characters, a letter first and no dot where a Service is named after the object.
pub(super) fn object_name_length(kind: &str, length: usize) -> Rule {
    rule(
        format!("self.metadata.name.size() <= {length}"),
        format!(
            "metadata.name of a {kind} takes at most {length} characters: names of its parts are made of it"
        ),
    )
}

/// A DNS label that starts with a letter, since a Service is named after the object.
pub(super) fn service_name(kind: &str) -> Rule {
    rule(
        "self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
        format!(
            "metadata.name of a {kind} starts with a letter and has only a-z, 0-9 and -: a Service is named after it"
        ),
    )
}

pub(super) fn immutable(field: &str, instead: &str) -> Rule {
    rule("self == oldSelf", format!("{field} cannot change: {instead}"))
}

pub(super) fn between(field: &str, low: i64, high: i64) -> Rule {
    rule(format!("self >= {low} && self <= {high}"), format!("{field} must be a number from {low} to {high}"))
}

pub(super) fn port(field: &str) -> Rule {
    between(field, 1, 65_535)
}

/// A number of at least 1, or a share from 1% to 100%; of an int-or-string.
pub(super) fn count_or_share(field: &str) -> Rule {
    rule(
        "string(self).matches('^([1-9][0-9]{0,5}|[1-9][0-9]?%|100%)$')",
        format!("{field} must be a number of at least 1, or a share from 1% to 100%"),
    )
}

pub(super) fn duration(field: &str) -> Rule {
    rule(
        format!("self.matches(r\"{DURATION}\") && duration(self) >= duration('0s')"),
        format!("{field} must be a duration with units, like 1h30m, 168h or 0s"),
    )
}

pub(super) fn positive_duration(field: &str) -> Rule {
    rule(
        format!("self.matches(r\"{DURATION}\") && duration(self) > duration('0s')"),
        format!("{field} must be a duration above zero with units, like 30s, 5m or 720h"),
    )
}

pub(super) fn duration_between(field: &str, low: &str, high: &str) -> Rule {
    rule(
        format!(
            "self.matches(r\"{DURATION}\") && duration(self) >= duration('{low}') && \
             duration(self) <= duration('{high}')"
        ),
        format!("{field} must be a duration from {low} to {high}, like 30s"),
    )
}

/// The agent's notation.
pub(super) fn size_or_share(field: &str) -> Rule {
    matches(
        "^([0-9]{1,15}(B|[KMGT]iB?)?|[1-9]?[0-9]%|100%)$",
        format!(
            "{field} must be a size with Ki, Mi, Gi or Ti, like 100Gi, or a share of the file system, like 20%"
        ),
    )
}

/// Kubernetes' notation.
pub(super) fn positive_quantity(field: &str) -> Rule {
    rule(
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        format!("{field} must be a quantity above zero, like 10Gi"),
    )
}

pub(super) fn object_name(field: &str) -> Rule {
    rule(
        format!("self.size() <= 253 && self.matches(r\"{OBJECT_NAME}\")"),
        format!("{field} must be the name of an object: a-z, 0-9, - and ., like my-name"),
    )
}

pub(super) fn data_key(field: &str) -> Rule {
    matches(
        "^[-._A-Za-z0-9]{1,253}$",
        format!("{field} must be a key of a Secret's data: letters, digits, -, _ and ."),
    )
}

pub(super) fn kind(field: &str) -> Rule {
    matches("^[A-Z][A-Za-z0-9]{0,62}$", format!("{field} must be a kind, like Issuer or ClusterIssuer"))
}

pub(super) fn host_name(field: &str) -> Rule {
    rule(
        format!("self.size() <= 253 && self.matches(r\"{OBJECT_NAME}\")"),
        format!(
            "{field} must be a host name in lower case without scheme or port, like registry.example.com"
        ),
    )
}

pub(super) fn hosts(field: &str) -> Rule {
    all_match(
        "^([a-z0-9]([-a-z0-9._]*[a-z0-9])?|[\\[][0-9a-f:.]+[\\]])$",
        format!("{field} takes hosts in lower case without scheme or port, like auth.example.com"),
    )
}

pub(super) fn host_ports(field: &str) -> Rule {
    all_match(
        &format!("^{HOST}:[0-9]{{1,5}}$"),
        format!("{field} takes addresses as HOST:PORT, like valkey:6379"),
    )
}

/// What containerd calls a registry.
pub(super) fn registry_name(field: &str) -> Rule {
    matches(
        "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?|[\\[][0-9a-f:.]+[\\]])(:[1-9][0-9]{0,4})?$",
        format!("{field} must be HOST or HOST:PORT in lower case without a scheme, like docker.io"),
    )
}

pub(super) fn upstream_url(field: &str) -> Rule {
    let path = "(/[-A-Za-z0-9._~!$&'()*+,;=:@]+)*/?";
    rule(
        format!(
            "self.matches(r\"^https?://{HOST}(:[1-9][0-9]{{0,4}})?{path}$\") && !self.matches('/[.][.]?(/|$)')"
        ),
        format!(
            "{field} must be https://HOST[:PORT][/PATH], or http://, without user, query or fragment, \
             like https://registry-1.docker.io"
        ),
    )
}

pub(super) fn endpoint_url(field: &str) -> Rule {
    matches(
        r"^https?://[^\s/?#@]+/?$",
        format!(
            "{field} must be https://HOST[:PORT], or http://, without the bucket, like https://s3.example.com"
        ),
    )
}

pub(super) fn web_url(field: &str) -> Rule {
    matches(
        r"^https?://[^\s/?#@]+(/[^\s#]*)?$",
        format!("{field} must be a URL that clients can reach, like https://auth.example.com/token"),
    )
}

/// Empty is no proxy.
pub(super) fn proxy_url(field: &str) -> Rule {
    matches(
        &format!(r"^(http://([^\s/?#@]+@)?{HOST}(:[1-9][0-9]{{0,4}})?/?)?$"),
        format!("{field} must be http://[USER:PASSWORD@]HOST[:PORT], like http://proxy.example.com:3128"),
    )
}

pub(super) fn image(field: &str) -> Rule {
    matches(
        "^[A-Za-z0-9][-A-Za-z0-9._/:]*(@sha256:[0-9a-f]{64})?$",
        format!("{field} must be an image, like registry:3.1.1 or registry.example.com/registry@sha256:..."),
    )
}

pub(super) fn version(field: &str) -> Rule {
    matches(
        "^v?[0-9]{1,9}([.][0-9]{1,9}){0,2}(-[-0-9A-Za-z.]{1,64})?$",
        format!("{field} must be a version of Distribution, like 3.1.1"),
    )
}

pub(super) fn absolute_path(field: &str) -> Rule {
    rule(
        "self.matches('^(/[-A-Za-z0-9._+@=]+)+$') && !self.matches('/[.][.]?(/|$)')",
        format!("{field} must be an absolute path without . and .., like /etc/containerd/certs.d"),
    )
}

/// A directory whose owner changes, so not one that the node lives on.
pub(super) fn own_directory(field: &str) -> Rule {
    let taken = "['/bin', '/boot', '/dev', '/etc', '/etc/containerd', '/etc/kubernetes', '/home', '/lib', '/lib64', \
                 '/opt', '/proc', '/root', '/run', '/sbin', '/srv', '/sys', '/tmp', '/usr', '/var', '/var/lib', \
                 '/var/lib/containerd', '/var/lib/etcd', '/var/lib/kubelet', '/var/log', '/var/run', '/mnt']";
    rule(
        format!(
            "self.matches('^(/[-A-Za-z0-9._+@=]+)+$') && !self.matches('/[.][.]?(/|$)') && \
             !self.matches('^/(proc|sys|dev)/') && !(self in {taken})"
        ),
        format!("{field} must be an absolute path to a directory of its own, like /var/lib/larder"),
    )
}

pub(super) fn access_mode(field: &str) -> Rule {
    matches(
        "^(ReadWriteOnce|ReadOnlyMany|ReadWriteMany|ReadWriteOncePod)$",
        format!("{field} must be ReadWriteOnce, ReadWriteOncePod, ReadOnlyMany or ReadWriteMany"),
    )
}

/// A registry writes, so one of them is for writing.
pub(super) fn access_modes(field: &str) -> Rule {
    rule(
        "self.all(mode, mode in ['ReadWriteOnce', 'ReadWriteOncePod', 'ReadWriteMany']) && self.size() >= 1",
        format!("{field} takes ReadWriteOnce, ReadWriteOncePod or ReadWriteMany: a registry writes"),
    )
}

/// Something in one piece.
pub(super) fn word(field: &str) -> Rule {
    matches(r"^[^\s/]+$", format!("{field} must be one word without spaces and slashes"))
}

pub(super) fn printable(field: &str) -> Rule {
    matches(r"^[^\r\n\t]*[^\s]+[^\r\n\t]*$", format!("{field} must be one line of text that is not empty"))
}

/// A pattern that does not compile makes the rule itself fail, which refuses it as well.
pub(super) fn regular_expression(field: &str) -> Rule {
    rule(
        "self.size() >= 1 && ''.matches(self) in [true, false]",
        format!("{field} must be a regular expression, like ^sha256-[0-9a-f]{{64}}"),
    )
}

pub(super) fn repository_patterns(field: &str) -> Rule {
    all_match(
        "^[a-z0-9*][-a-z0-9*._/]*$",
        format!("{field} takes repository names in which * stands for one part, like team-a/*"),
    )
}
