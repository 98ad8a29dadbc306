//! Whose token is whose.

use std::collections::BTreeMap;

use super::*;

fn user(name: &str, nodes: &[&str]) -> UserInfo {
    let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
    let extra = (!nodes.is_empty()).then(|| BTreeMap::from([(NODE_NAME.to_owned(), nodes)]));
    UserInfo { username: Some(name.to_owned()), extra, ..UserInfo::default() }
}

#[test]
fn an_agent_is_its_service_account_on_its_node() {
    let told =
        reporter(&user("system:serviceaccount:larder-agents:larder-edge-eu", &["n1"]), "larder-agents");
    assert_eq!(told, Ok(Reporter { node: "n1".to_owned(), node_cache: "edge-eu".to_owned() }));
}

#[test]
fn nobody_else_is_an_agent() {
    for name in [
        "",
        "admin",
        "system:node:n1",
        "system:serviceaccount:default:larder-edge",
        "system:serviceaccount:larder-agents:default",
        "system:serviceaccount:larder-agents:larder-",
        "system:serviceaccount:larder-agents-2:larder-edge",
        "larder-agents:larder-edge",
    ] {
        let told = reporter(&user(name, &["n1"]), "larder-agents");
        assert!(matches!(told, Err(Refusal::NoAgent { .. })), "{name}");
    }
}

#[test]
fn a_token_of_no_node_or_of_two_speaks_for_none() {
    for nodes in [&[][..], &[""], &["n1", "n2"]] {
        let told = reporter(&user("system:serviceaccount:larder-agents:larder-edge", nodes), "larder-agents");
        assert_eq!(told, Err(Refusal::NoNode), "{nodes:?}");
    }
}

#[test]
fn what_passes_by_itself_is_not_remembered() {
    let again = Duration::from_secs(5);
    let keep = |answer: Result<(), Refusal>| verdict(answer, KEEP).keep;
    assert_eq!(keep(Ok(())), KEEP);
    assert_eq!(keep(Err(Refusal::Token { audience: AUDIENCE })), KEEP_BAD);
    assert_eq!(keep(Err(Refusal::Busy { again })), Duration::ZERO);
    assert_eq!(keep(Err(Refusal::Unreviewed { again })), Duration::ZERO);
}

#[test]
fn a_word_ends_with_the_token_and_after_ten_minutes() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(keep(None, None), minutes(10));
    assert_eq!(keep(Some(minutes(48)), None), minutes(10));
    assert_eq!(keep(Some(minutes(3)), None), minutes(3));
    assert_eq!(keep(Some(Duration::ZERO), Some(0.5)), Duration::ZERO);
    assert_eq!((grace(None, minutes(4)), grace(Some(minutes(48)), minutes(10))), (minutes(10), minutes(10)));
    assert_eq!(
        (grace(Some(minutes(13)), minutes(10)), grace(Some(minutes(3)), minutes(3))),
        (minutes(3), minutes(0))
    );
    assert_eq!((keep(None, Some(0.25)), keep(None, Some(1.0))), (Duration::from_secs(150), minutes(10)));
}

#[test]
fn five_thousand_nodes_at_rest_cost_less_than_ten_reviews_a_second() {
    const MINUTE: f64 = 60.0;
    let mut reviews = [0; 120];
    for node in 0..5000 {
        // Reports each 30 s; the first review within the 100 s that all take, a new token each 48 minutes.
        let spread = |by: u32| f64::from(node * by % 5000) / 5000.0;
        let (mut now, mut believed, mut token) = (100.0 * spread(1), 0.0, 48.0 * MINUTE * spread(7));
        while now < 120.0 * MINUTE {
            if now >= believed || now >= token {
                reviews[Duration::from_secs_f64(now / MINUTE).as_secs() as usize] += 1;
                let part = (now < 100.0).then(|| spread(11));
                believed = now + keep(None, part).as_secs_f64();
                token = if now >= token { token + 48.0 * MINUTE } else { token };
            }
            now += 30.0 * (0.8 + 0.4 * spread(13));
        }
    }
    let five_minutes = |reviews: &[i32]| reviews.iter().sum::<i32>() < 5 * 60 * 10;
    assert!(reviews[2..].windows(5).all(five_minutes), "{reviews:?}");
}
