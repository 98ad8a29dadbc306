//! Reads again, beside the requests, what may have changed past this gateway, with the gateway's own
//! credential. Must not hurry: nobody waits for it.

mod census;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use larder_wire::name::Repository;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::caller::Caller;
use crate::limits::namespace;
use crate::owner::Place;
use crate::policy::PolicyWatch;
use crate::tags::Tags;
use crate::upstream::Upstream;

/// Between two rounds that somebody rang for.
const BREATH: Duration = Duration::from_secs(2);
/// How often what nobody uses is forgotten.
const TIDY: Duration = Duration::from_secs(60);
/// How often namespaces with limits on all their repositories are walked.
const CENSUS: Duration = Duration::from_secs(3600);

/// The files of the gateway's own user, read again each time: a rotation needs no restart.
#[derive(Clone, Debug, Default)]
pub struct Credential(pub Option<(PathBuf, PathBuf)>);

/// What the task works on.
pub struct Resync {
    pub tags: Tags,
    pub upstream: Arc<Upstream>,
    pub policy: PolicyWatch,
    pub credential: Credential,
    /// Between two looks at what is in use; zero: only when something rang.
    pub every: Duration,
}

impl Credential {
    /// The gateway as a caller of the registry; anonymous where there is no credential, or none that can be
    /// read.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let authorization = self.0.as_ref().and_then(|(user, password)| {
            let read = |path: &PathBuf| std::fs::read_to_string(path).map(SecretString::from);
            match (read(user), read(password)) {
                (Ok(user), Ok(password)) => basic(&user, &password),
                (Err(error), _) | (_, Err(error)) => {
                    warn!(%error, "the gateway's own credential cannot be read");
                    None
                }
            }
        });
        Caller {
            authorization,
            actor: "larder-gateway".to_owned(),
            remote: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

fn basic(user: &SecretString, password: &SecretString) -> Option<HeaderValue> {
    let (user, password) =
        (user.expose_secret().trim(), password.expose_secret().trim_end_matches(['\r', '\n']));
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Keeps the index true until `stop`.
pub async fn run(resync: Resync, stop: CancellationToken) {
    let work = async {
        tokio::join!(resync.rounds(), resync.tidying(), resync.censuses());
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Resync {
    /// At every interval what was in use, and in between what somebody rang for.
    async fn rounds(&self) {
        let index = self.tags.index();
        let mut next = Instant::now() + jittered(self.every);
        loop {
            let due = async {
                if self.every.is_zero() { std::future::pending().await } else { sleep_until(next).await }
            };
            let repositories = tokio::select! {
                () = due => {
                    next = Instant::now() + jittered(self.every);
                    index.take_active()
                }
                () = index.rung() => {
                    sleep(BREATH).await;
                    index.doubtful()
                }
            };
            let caller = self.credential.caller();
            for repository in repositories {
                self.read(&repository, &caller).await;
            }
        }
    }

    async fn tidying(&self) {
        loop {
            sleep(TIDY).await;
            self.tags.tidy();
        }
    }

    async fn read(&self, repository: &Repository, caller: &Caller) {
        if self.tags.owners().place(namespace(repository)) != Place::Here {
            return;
        }
        let quota = self.policy.current().limits(repository).quota;
        let index = self.tags.index();
        let read = if quota.counts_images() {
            index.read_images(repository, caller).await
        } else if quota.counts_tags() {
            index.read_tags(repository, caller).await
        } else {
            return;
        };
        if let Err(trouble) = read {
            debug!(%repository, %trouble, "could not be read again");
        }
    }
}

/// Within a fifth of the time, so that replicas and repositories do not all come at once.
fn jittered(time: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    time.mul_f64(0.8 + 0.4 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_each_time_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (user, password) = (dir.path().join("user"), dir.path().join("password"));
        let credential = Credential(Some((user.clone(), password.clone())));
        assert!(credential.caller().authorization.is_none(), "not there yet");
        std::fs::write(&user, "larder\n").unwrap();
        std::fs::write(&password, "pass word\n").unwrap();
        let caller = credential.caller();
        let value = caller.authorization.clone().unwrap();
        assert_eq!(value.to_str().unwrap(), format!("Basic {}", STANDARD.encode("larder:pass word")));
        assert!(!format!("{caller:?}").contains(&STANDARD.encode("larder:pass word")));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for _ in 0..1000 {
            let time = jittered(Duration::from_secs(10));
            assert!((8.0..=12.0).contains(&time.as_secs_f64()), "{time:?}");
        }
    }
}
