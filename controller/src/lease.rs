//! Who leads: one Lease, held by the replica that renews it. Time is only ever measured from what this replica saw on
//! its own clock. A replica that could not renew in time must not write any more: [`hold`] ends, and so does `run`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::chain;
use crate::reports::Leader;

pub const NAME: &str = "larder-controller";

/// Where the holder's reports are received.
const ADDRESS: &str = "registry-operator.dev/reports-address";

/// How long a holder that is not heard of still leads.
const HELD: Duration = Duration::from_secs(15);
/// After so long without a renewal the holder stops by itself, before anybody else may begin.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);

/// This replica, as it stands in the Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Another one at each start, so that a replica does not mistake its own past for itself.
    pub identity: String,
    pub address: SocketAddr,
}

/// What this replica knows of the Lease.
#[derive(Debug, Default)]
struct Seen {
    lease: Option<Lease>,
    /// When the Lease was last seen to change, on our clock.
    changed: Option<Instant>,
    renewed: Option<Instant>,
}

/// Takes part in the election until `stop`, then gives the Lease back. Ends by itself only when leadership is lost.
pub async fn hold(
    api: Api<Lease>,
    me: Candidate,
    leader: watch::Sender<Option<Leader>>,
    stop: CancellationToken,
) {
    let (mut seen, mut ticks) = (Seen::default(), interval(EVERY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let led = seen.renewed.is_some();
        let until = deadline(&seen);
        match in_time(turn(&api, &me, &mut seen), until).await {
            Some(Ok(who)) => tell(&leader, who),
            Some(Err(error)) => debug!(error = chain(&error), "the Lease could not be read or renewed"),
            None => debug!("no answer about the Lease in time"),
        }
        let late = led && deadline(&seen) <= Instant::now();
        if late || led && seen.renewed.is_none() {
            warn!("leadership is lost: the Lease was not renewed in time, or another replica has it");
            tell(&leader, None);
            return;
        }
    }
    tell(&leader, None);
    if seen.renewed.is_some()
        && let Err(error) = release(&api, &me).await
    {
        debug!(error = chain(&error), "the Lease is not given back; it runs out by itself");
    }
}

/// Until when this turn may take: a holder's renewal is over before anybody else may begin.
fn deadline(seen: &Seen) -> Instant {
    seen.renewed.unwrap_or_else(Instant::now) + RENEWED_WITHIN
}

async fn in_time<T>(turn: impl Future<Output = T>, deadline: Instant) -> Option<T> {
    timeout_at(deadline, turn).await.ok()
}

fn tell(leader: &watch::Sender<Option<Leader>>, who: Option<Leader>) {
    leader.send_if_modified(|now| {
        if *now == who {
            return false;
        }
        info!(leader = ?who, "leader");
        *now = who;
        true
    });
}

/// One look at the Lease, and one write where it is ours to renew or to take.
async fn turn(api: &Api<Lease>, me: &Candidate, seen: &mut Seen) -> kube::Result<Option<Leader>> {
    let before = Instant::now();
    let Some(live) = api.get_opt(NAME).await? else {
        return Ok(match api.create(&PostParams::default(), &lease(me, None)).await {
            Ok(made) => Some(won(seen, made, before)),
            Err(error) if is_conflict(&error) => None,
            Err(error) => return Err(error),
        });
    };
    if seen.lease.as_ref().map(record) != Some(record(&live)) {
        seen.changed = Some(Instant::now());
    }
    let holder = live.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    let over = seen.changed.is_none_or(|changed| changed.elapsed() >= HELD);
    if holder != me.identity {
        seen.renewed = None;
        if !holder.is_empty() && !over {
            let address = live.annotations().get(ADDRESS).and_then(|address| address.parse().ok());
            seen.lease = Some(live);
            return Ok(address.map(Leader::Other));
        }
    }
    // The resourceVersion that was read makes the API server refuse when somebody else was quicker.
    match api.replace(NAME, &PostParams::default(), &lease(me, Some(&live))).await {
        Ok(ours) => Ok(Some(won(seen, ours, before))),
        Err(error) if is_conflict(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn won(seen: &mut Seen, lease: Lease, before: Instant) -> Leader {
    *seen = Seen { lease: Some(lease), changed: Some(before), renewed: Some(before) };
    Leader::Me
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// What a change of means that the holder lives.
fn record(lease: &Lease) -> (Option<String>, Option<MicroTime>) {
    lease
        .spec
        .as_ref()
        .map(|spec| (spec.holder_identity.clone(), spec.renew_time.clone()))
        .unwrap_or_default()
}

fn lease(me: &Candidate, live: Option<&Lease>) -> Lease {
    let old = live.and_then(|live| live.spec.clone()).unwrap_or_default();
    let now = MicroTime(Timestamp::now());
    let held = old.holder_identity.as_deref() == Some(&me.identity);
    let mut annotations = live.map(|live| live.annotations().clone()).unwrap_or_default();
    annotations.insert(ADDRESS.to_owned(), me.address.to_string());
    Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            resource_version: live.and_then(ResourceExt::resource_version),
            annotations: Some(annotations),
            labels: Some(BTreeMap::from([(
                crate::apply::MANAGED_BY.0.to_owned(),
                crate::apply::MANAGED_BY.1.to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            acquire_time: if held { old.acquire_time } else { Some(now.clone()) },
            holder_identity: Some(me.identity.clone()),
            lease_duration_seconds: i32::try_from(HELD.as_secs()).ok(),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!held)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

/// Gives the Lease back, so that the next replica need not wait for its end.
async fn release(api: &Api<Lease>, me: &Candidate) -> kube::Result<()> {
    let Some(mut live) = api.get_opt(NAME).await? else { return Ok(()) };
    let Some(spec) = live.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&me.identity))
    else {
        return Ok(());
    };
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    api.replace(NAME, &PostParams::default(), &live).await.map(drop)
}
