//! The only connector: whatever a registry, a redirect or a token realm names, the address that is really connected to is
//! judged here. Must not know HTTP beyond the proxy's CONNECT, nor read settings.

mod dial;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ipnet::IpNet;
use larder_wire::settings::{Proxy, UpstreamUrl};

pub(crate) use dial::Guard;

/// Why an address is not connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error("{0} is never connected to (link-local, metadata, unspecified, multicast or our own listener)")]
    Never(IpAddr),
    #[error("{0} is a loopback address, and the upstream is not on loopback")]
    Loopback(IpAddr),
    #[error("{0} is a private address; name its range in allow_cidrs if that is right")]
    Private(IpAddr),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("the URI names no host")]
    NoHost,
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no tunnel through the proxy")]
    Tunnel(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The addresses this process listens on: never an upstream.
#[derive(Clone, Default)]
pub(crate) struct OwnListeners(Arc<RwLock<Vec<SocketAddr>>>);

/// What one upstream's connections may reach.
pub(crate) struct Policy {
    pub home: UpstreamUrl,
    pub proxy: Option<Proxy>,
    pub allow: Vec<IpNet>,
    pub own: OwnListeners,
}

/// What stands at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The configured upstream itself.
    Home,
    /// A redirect's target or a token realm; `home_private`: the upstream's own host is a private address.
    Away { home_private: bool },
}

impl OwnListeners {
    pub(crate) fn add(&self, address: SocketAddr) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(address);
    }

    fn contains(&self, address: SocketAddr) -> bool {
        let same = |own: &SocketAddr| {
            own.port() == address.port() && (own.ip() == address.ip() || own.ip().is_unspecified())
        };
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(same)
    }
}

impl Policy {
    fn home_is_loopback(&self) -> bool {
        let host = self.home.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| canonical(address).is_loopback())
    }

    fn is_home(&self, host: &str, port: u16) -> bool {
        host.eq_ignore_ascii_case(&self.home.host) && port == self.home.port_or_default()
    }

    fn judge(&self, address: SocketAddr, peer: Peer) -> Result<(), GuardError> {
        let ip = canonical(address.ip());
        if never(ip) || self.own.contains(SocketAddr::new(ip, address.port())) {
            return Err(GuardError::Never(ip));
        }
        if ip.is_loopback() {
            return if self.home_is_loopback() { Ok(()) } else { Err(GuardError::Loopback(ip)) };
        }
        let allowed = || self.allow.iter().any(|range| range.contains(&ip));
        match peer {
            Peer::Home => Ok(()),
            Peer::Away { home_private } if !private(ip) || home_private || allowed() => Ok(()),
            Peer::Away { .. } => Err(GuardError::Private(ip)),
        }
    }
}

/// The address that a packet would really go to: IPv4 inside IPv6 (mapped, or behind NAT64) is judged as IPv4.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

fn never(address: IpAddr) -> bool {
    const ALIBABA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const AWS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4 == ALIBABA
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast() || v6 == AWS,
    }
}

/// Addresses that mean something else on every network: nothing public answers there.
pub(super) fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_private()
                || (a == 100 && b & 0xc0 == 64)
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && b & 0xfe == 18)
                || a >= 240
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(url: &str, allow: &[&str]) -> Policy {
        let host = url.parse::<larder_wire::name::Registry>().unwrap();
        let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
        Policy { home: UpstreamUrl::of(&host), proxy: None, allow, own: OwnListeners::default() }
    }

    fn judge(policy: &Policy, address: &str, peer: Peer) -> bool {
        policy.judge(SocketAddr::new(address.parse().unwrap(), 443), peer).is_ok()
    }

    const FAR: Peer = Peer::Away { home_private: false };
    const NEAR: Peer = Peer::Away { home_private: true };

    #[test]
    fn some_addresses_are_never_connected_to() {
        let policy = policy("registry.example", &["0.0.0.0/0", "::/0"]);
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
        ] {
            assert!(!judge(&policy, address, Peer::Home) && !judge(&policy, address, NEAR), "{address}");
        }
    }

    #[test]
    fn loopback_is_for_upstreams_on_loopback() {
        for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"] {
            assert!(!judge(&policy("registry.example", &["0.0.0.0/0"]), address, Peer::Home), "{address}");
            assert!(!judge(&policy("10.0.0.1", &["0.0.0.0/0"]), address, NEAR), "{address}");
            assert!(judge(&policy("127.0.0.1:5000", &[]), address, FAR), "{address}");
            assert!(judge(&policy("localhost:5000", &[]), address, Peer::Home), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_for_private_upstreams_and_named_ranges() {
        let public = policy("registry.example", &["10.1.0.0/16"]);
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "fd12::1",
            "198.18.0.1",
            "64:ff9b::10.0.0.1",
        ] {
            assert!(judge(&public, address, Peer::Home), "{address}");
            assert!(!judge(&public, address, FAR), "{address}");
            assert!(judge(&public, address, NEAR), "{address}");
        }
        assert!(
            judge(&public, "10.1.2.3", FAR)
                && judge(&public, "1.1.1.1", FAR)
                && judge(&public, "2606::1", FAR)
        );
    }

    #[test]
    fn our_own_listeners_are_no_upstream() {
        let policy = policy("127.0.0.1:19500", &[]);
        policy.own.add("127.0.0.1:443".parse().unwrap());
        assert!(!judge(&policy, "127.0.0.1", Peer::Home));
        assert!(judge(&policy, "127.0.0.2", Peer::Home));
    }
}
