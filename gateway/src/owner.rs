//! Which replica counts for which namespace: rendezvous hashing over the addresses that the other replicas
//! see as well. Must not answer for a namespace before every replica had the time to see that it does.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A new owner answers when it has been the owner for this long by its own view.
const SETTLED: Duration = Duration::from_secs(5);
/// Between two looks at who is there.
const POLL: Duration = Duration::from_secs(1);

/// Tells the addresses of all replicas. Tests bring their own.
pub type Resolve = Arc<dyn Fn() -> Resolving + Send + Sync>;
/// What [`Resolve`] gives.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Where the counts of a namespace are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Here,
    There(SocketAddr),
    /// Nobody answers for it: ownership is changing hands, or nobody is known.
    Nowhere,
}

/// The replicas as this one sees them. Clones share the view.
#[derive(Clone)]
pub struct Owners(Option<Arc<Group>>);

struct Group {
    /// Whether an address of the view is this replica's own.
    is_own: Box<dyn Fn(&SocketAddr) -> bool + Send + Sync>,
    views: Mutex<Views>,
}

/// The views of the last five seconds, the present one last. Before the first there was nobody.
#[derive(Debug, Default)]
struct Views(VecDeque<View>);

#[derive(Debug)]
struct View {
    since: Instant,
    replicas: BTreeSet<SocketAddr>,
}

impl Owners {
    /// There is one replica, and it owns everything.
    #[must_use]
    pub fn single() -> Self {
        Self(None)
    }

    /// Several replicas, none of which has been seen yet.
    #[must_use]
    pub fn group(is_own: impl Fn(&SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Group { is_own: Box::new(is_own), views: Mutex::default() })))
    }

    /// Replicas that have been the same for long enough.
    #[cfg(test)]
    pub(crate) fn settled(own: SocketAddr, replicas: &[SocketAddr]) -> Self {
        let owners = Self::group(move |address| *address == own);
        let long_ago = Instant::now().checked_sub(2 * SETTLED).unwrap_or_else(Instant::now);
        owners.see(long_ago, replicas.iter().copied().collect());
        owners
    }

    /// Who counts for a namespace now.
    #[must_use]
    pub fn place(&self, namespace: &str) -> Place {
        match &self.0 {
            None => Place::Here,
            Some(group) => group.place(Instant::now(), namespace),
        }
    }

    /// Whether the counts of a namespace may be kept here: it is ours, or about to be.
    #[must_use]
    pub fn may_keep(&self, namespace: &str) -> bool {
        !matches!(self.place(namespace), Place::There(_))
    }

    /// Takes over a new view. Returns whether it differs from the one before.
    fn see(&self, now: Instant, replicas: BTreeSet<SocketAddr>) -> bool {
        self.0.as_ref().is_some_and(|group| lock(&group.views).see(now, replicas))
    }
}

impl Group {
    fn place(&self, now: Instant, namespace: &str) -> Place {
        let views = lock(&self.views);
        let Some(owner) = views.0.back().and_then(|view| view.owner(namespace)) else {
            return Place::Nowhere;
        };
        if !(self.is_own)(&owner) {
            return Place::There(owner);
        }
        if views.held_since(namespace, owner).is_some_and(|since| now.duration_since(since) >= SETTLED) {
            Place::Here
        } else {
            Place::Nowhere
        }
    }
}

impl Views {
    fn see(&mut self, now: Instant, replicas: BTreeSet<SocketAddr>) -> bool {
        // Of those that ended before the time that matters, none is asked any more.
        while self.0.get(1).is_some_and(|next| now.duration_since(next.since) > 2 * SETTLED) {
            self.0.pop_front();
        }
        if self.0.back().is_some_and(|view| view.replicas == replicas) {
            return false;
        }
        self.0.push_back(View { since: now, replicas });
        true
    }

    /// Since when the owner has been this one without a break.
    fn held_since(&self, namespace: &str, owner: SocketAddr) -> Option<Instant> {
        let held = self.0.iter().rev().take_while(|view| view.owner(namespace) == Some(owner));
        held.last().map(|view| view.since)
    }
}

impl View {
    /// The replica with the highest hash: when one goes, only its namespaces move.
    fn owner(&self, namespace: &str) -> Option<SocketAddr> {
        self.replicas.iter().copied().max_by_key(|replica| weight(replica, namespace))
    }
}

fn weight(replica: &SocketAddr, namespace: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(replica.to_string())
        .chain_update([0])
        .chain_update(namespace)
        .finalize()
        .into()
}

/// Whether an address is one of this host's: only then can a socket be bound to it.
#[must_use]
pub fn is_local(address: &SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Resolves `NAME:PORT`, whose A records are the replicas.
#[must_use]
pub fn by_name(name: String, port: u16) -> Resolve {
    Arc::new(move || {
        let name = name.clone();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    })
}

/// Looks each second who is there, until `stop`; rings at each change.
pub async fn run(owners: Owners, resolve: Resolve, changed: impl Fn() + Send, stop: CancellationToken) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match timeout(2 * POLL, resolve()).await {
            Ok(Ok(addresses)) => {
                failing = false;
                let replicas: BTreeSet<SocketAddr> = addresses.into_iter().collect();
                let count = replicas.len();
                if owners.see(Instant::now(), replicas) {
                    info!(replicas = count, "the replicas have changed");
                    changed();
                }
            }
            // Who was there is there: a name server that is away moves nothing.
            Ok(Err(_)) | Err(_) if failing => {}
            Ok(Err(error)) => {
                failing = true;
                warn!(%error, "the replicas cannot be looked up, going on with those known");
            }
            Err(_) => {
                failing = true;
                warn!("looking up the replicas takes too long, going on with those known");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 5002))
    }

    fn replicas(numbers: &[u8]) -> BTreeSet<SocketAddr> {
        numbers.iter().copied().map(replica).collect()
    }

    fn group(own: u8) -> Group {
        Group { is_own: Box::new(move |address| *address == replica(own)), views: Mutex::default() }
    }

    fn see(group: &Group, now: Instant, numbers: &[u8]) {
        lock(&group.views).see(now, replicas(numbers));
    }

    #[test]
    fn all_replicas_agree_and_only_the_namespaces_of_the_lost_one_move() {
        let name = |n: u32| format!("team-{n}");
        let owner =
            |numbers: &[u8], n| View { since: Instant::now(), replicas: replicas(numbers) }.owner(&name(n));
        let mut counts = [0; 4];
        for n in 0..300 {
            let before = owner(&[1, 2, 3], n).unwrap();
            let after = owner(&[1, 3], n).unwrap();
            assert!(before == replica(2) || before == after, "{n}");
            assert_ne!(after, replica(2));
            let SocketAddr::V4(address) = before else { panic!("not v4") };
            counts[usize::from(address.ip().octets()[3])] += 1;
        }
        assert!(counts[1..].iter().all(|count| *count > 60), "{counts:?}");
    }

    #[test]
    fn a_new_owner_waits_and_an_old_one_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (one, two) = (group(1), group(2));
        for group in [&one, &two] {
            assert_eq!(group.place(start, "a"), Place::Nowhere, "nobody is known");
            see(group, start, &[1, 2]);
        }
        let namespaces: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
        let (of_one, of_two): (Vec<&String>, Vec<&String>) =
            namespaces.iter().partition(|name| two.place(at(9), name) == Place::There(replica(1)));
        assert!(!of_one.is_empty() && !of_two.is_empty());
        for name in &of_one {
            assert_eq!((one.place(at(4), name), one.place(at(5), name)), (Place::Nowhere, Place::Here));
        }
        see(&one, at(20), &[1]);
        for name in &of_one {
            assert_eq!(one.place(at(20), name), Place::Here, "it was the owner before");
        }
        for name in &of_two {
            assert_eq!((one.place(at(24), name), one.place(at(25), name)), (Place::Nowhere, Place::Here));
        }
        see(&one, at(40), &[]);
        assert_eq!(one.place(at(40), of_one[0]), Place::Nowhere);
        see(&one, at(41), &[1]);
        assert_eq!(one.place(at(41), of_one[0]), Place::Nowhere, "it starts anew");
    }

    #[tokio::test(start_paused = true)]
    async fn views_come_from_the_resolver_and_a_failing_one_changes_nothing() {
        let owners = Owners::group(|_| true);
        let answers = Arc::new(Mutex::new(VecDeque::from([
            Ok(vec![replica(1)]),
            Err(io::Error::other("no name server")),
            Ok(vec![replica(1), replica(2)]),
        ])));
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let resolve: Resolve = Arc::new(move || {
            let answer = lock(&answers).pop_front().unwrap_or_else(|| Ok(vec![replica(1), replica(2)]));
            Box::pin(async move { answer })
        });
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(run(owners.clone(), resolve, move || tell.send(()).unwrap(), stop.clone()));
        told.recv().await.unwrap();
        assert_eq!(lock(&owners.0.as_ref().unwrap().views).0.len(), 1);
        told.recv().await.unwrap();
        assert_eq!(lock(&owners.0.as_ref().unwrap().views).0.back().unwrap().replicas, replicas(&[1, 2]));
        stop.cancel();
        running.await.unwrap();
    }

    #[test]
    fn one_replica_owns_everything() {
        assert_eq!(Owners::single().place("a"), Place::Here);
        assert!(is_local(&"127.0.0.1:5002".parse().unwrap()));
        assert!(!is_local(&"192.0.2.1:5002".parse().unwrap()));
    }
}
