//! Two gateways in front of one registry: one of them counts.

use std::net::SocketAddr;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::owner::Place;
use crate::peers::server;

const TOKEN: &str = "token";

struct Pair {
    gateways: [Arc<Gateway>; 2],
    addresses: [SocketAddr; 2],
    stop: CancellationToken,
}

/// Two replicas; `views` are who each of them sees, by number.
async fn pair(
    registry: &Registry,
    policy: &str,
    settings: &str,
    views: [&[usize]; 2],
    tokens: [&str; 2],
) -> Pair {
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let addresses = [listeners[0].local_addr().unwrap(), listeners[1].local_addr().unwrap()];
    let stop = CancellationToken::new();
    let make = |own: usize| {
        let seen: Vec<SocketAddr> = views[own].iter().map(|number| addresses[*number]).collect();
        let peers = Peers::new(&SecretString::from(tokens[own])).unwrap();
        replica(registry, policy, settings, Owners::settled(addresses[own], &seen), Some(peers))
    };
    let gateways = [make(0), make(1)];
    for (listener, (gateway, token)) in listeners.into_iter().zip(gateways.iter().zip(tokens)) {
        tokio::spawn(server::serve(listener, gateway.tags.clone(), SecretString::from(token), stop.clone()));
    }
    Pair { gateways, addresses, stop }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pushes_over_two_replicas_leave_as_many_as_the_limit() {
    let registry = Registry::start().await;
    let both: [&[usize]; 2] = [&[0, 1], &[0, 1]];
    let pair = pair(&registry, r#"{"limits":{"tags":50}}"#, "seed_timeout = \"60s\"", both, [TOKEN; 2]).await;
    let body = image(&registry, 1);
    let targets: Vec<String> = (0..100).map(|number| format!("team-a/app/v{number}")).collect();
    let spread = targets.iter().enumerate();
    let pushes =
        join_all(spread.map(|(number, target)| push(&pair.gateways[number % 2], target, &body))).await;
    let taken = pushes.iter().filter(|response| response.status() == 201).count();
    let denied = pushes.iter().filter(|response| response.status() == 403).count();
    assert_eq!((taken, denied, registry.tags("team-a/app")), (50, 50, 50));
    let owners = pair.gateways.each_ref().map(|gateway| gateway.tags.owners().place("team-a"));
    assert_eq!(owners.iter().filter(|place| **place == Place::Here).count(), 1);
    pair.stop.cancel();
}

#[tokio::test]
async fn the_owner_is_told_of_uploads_and_deletions() {
    let registry = Registry::start().await;
    registry.add_tag("team-a/app", "v0");
    let alone: [&[usize]; 2] = [&[1], &[1]];
    let pair = pair(&registry, r#"{"limits":{"tags":1}}"#, "seed_timeout = \"60s\"", alone, [TOKEN; 2]).await;
    let (repository, body) = ("team-a/app".parse().unwrap(), image(&registry, 1));
    assert_eq!(pair.gateways[0].tags.owners().place("team-a"), Place::There(pair.addresses[1]));
    pair.gateways[0].tags.touch(&repository, &caller());
    registry.was_asked("tags/list").await;
    assert_eq!(push(&pair.gateways[0], "team-a/app/new", &body).await.status(), 403);
    assert_eq!(push(&pair.gateways[0], "team-a/app/v0", &body).await.status(), 201);
    pair.gateways[0].tags.deleted_tag(&repository, &"v0".parse().unwrap(), &caller());
    let index = pair.gateways[1].tags.index();
    tags::until("the owner knows", || index.tags_of(&repository) == Some(0)).await;
    assert_eq!(push(&pair.gateways[0], "team-a/app/new", &body).await.status(), 201);
    tags::until("the owner knows", || index.tags_of(&repository) == Some(1)).await;
    assert_eq!(push(&pair.gateways[1], "team-a/app/newer", &body).await.status(), 403);
    pair.stop.cancel();
}

#[tokio::test]
async fn nobody_answers_for_what_is_not_his_or_without_the_token() {
    let registry = Registry::start().await;
    let body = image(&registry, 1);
    let (policy, settings) = (r#"{"limits":{"tags":1}}"#, "on_unknown = \"deny\"\nseed_timeout = \"300ms\"");
    let crossed: [&[usize]; 2] = [&[1], &[0]];
    let disagreeing = pair(&registry, policy, settings, crossed, [TOKEN; 2]).await;
    for gateway in &disagreeing.gateways {
        assert_eq!(
            push(gateway, "team-a/app/new", &body).await.status(),
            503,
            "each says that the other counts"
        );
    }
    let alone: [&[usize]; 2] = [&[1], &[1]];
    let strangers = pair(&registry, policy, settings, alone, ["other", TOKEN]).await;
    assert_eq!(push(&strangers.gateways[0], "team-a/app/new", &body).await.status(), 503);
    assert_eq!(push(&strangers.gateways[1], "team-a/app/new", &body).await.status(), 201);
}
