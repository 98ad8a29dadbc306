//! Statuses from what was seen.

use super::super::policy::BadLimit;
use super::*;

fn gateway(status: Option<RegistryGatewayStatus>) -> RegistryGateway {
    let mut gateway = RegistryGateway::new("main", crate::crd::RegistryGatewaySpec::default());
    gateway.metadata.generation = Some(2);
    gateway.status = status;
    gateway
}

fn deployment(counts: &str) -> Deployment {
    serde_saphyr::from_str(&format!(
        "metadata: {{name: main-gateway, generation: 4}}\nspec: {{replicas: 2, selector: {{}}, template: {{}}}}\n\
         status: {{{counts}}}"
    ))
    .unwrap()
}

const HEALTHY: &str =
    "observedGeneration: 4, replicas: 2, updatedReplicas: 2, readyReplicas: 2, availableReplicas: 2";

fn words(status: &RegistryGatewayStatus) -> Vec<(&str, &str, &str)> {
    status.conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str())).collect()
}

fn bad_limit() -> Refusal {
    let spec: crate::crd::RegistryGatewaySpec =
        serde_saphyr::from_str("{registryRef: {name: main}, limits: {image: {max: 1m}}}").unwrap();
    let bad: BadLimit =
        super::super::policy::Policy::of(&spec, 1, std::collections::BTreeMap::new()).unwrap_err();
    Refusal::Policy(bad)
}

#[test]
fn a_refused_policy_leaves_what_runs_and_its_hash() {
    let old =
        RegistryGatewayStatus { policy_hash: Some("c0ffee".to_owned()), ..RegistryGatewayStatus::default() };
    let (gateway, deployment) = (gateway(Some(old)), deployment(HEALTHY));
    let (status, transitions) =
        status_of(&gateway, Some(&deployment), Err(&bad_limit()), Timestamp::UNIX_EPOCH);
    assert_eq!(
        words(&status),
        [
            ("Available", "True", "Ready"),
            ("Progressing", "False", "InvalidPolicy"),
            ("Degraded", "True", "InvalidPolicy"),
            ("PolicyAccepted", "False", "InvalidPolicy"),
        ]
    );
    assert_eq!(status.policy_hash.as_deref(), Some("c0ffee"));
    assert_eq!((status.replicas, status.ready_replicas, status.observed_generation), (2, 2, Some(2)));
    assert!(status.selector.unwrap().contains("app.kubernetes.io/instance=main"));
    let told: Vec<_> = transitions.iter().filter_map(|it| news(&gateway, it)).collect();
    assert_eq!(told, vec![(Kind::Warning, "InvalidPolicy".to_owned()); 2]);
}

#[test]
fn a_registry_that_is_on_its_way_is_no_degradation() {
    let waiting = Refusal::NoService("main".to_owned());
    let (status, transitions) = status_of(&gateway(None), None, Err(&waiting), Timestamp::UNIX_EPOCH);
    assert_eq!(
        words(&status),
        [
            ("Available", "False", "NotDeployed"),
            ("Progressing", "True", "RegistryNotReady"),
            ("Degraded", "False", "AsExpected"),
            ("PolicyAccepted", "Unknown", "RegistryNotReady"),
        ]
    );
    let told: Vec<_> = transitions.iter().filter_map(|it| news(&gateway(None), it)).collect();
    assert_eq!(told, vec![]);
}

#[test]
fn what_the_deployment_says_is_told() {
    let waiting = Refusal::NoService("main".to_owned());
    let degraded = |old: Option<RegistryGatewayStatus>, counts: &str, minutes: i64| {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let (status, _) = status_of(&gateway(old), Some(&deployment(counts)), Err(&waiting), now);
        status.conditions.iter().find(|it| it.type_ == DEGRADED).unwrap().reason.clone()
    };
    let stuck = "conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]";
    assert_eq!(degraded(None, stuck, 0), "RolloutStuck");
    let mut away = status_of(&gateway(None), None, Err(&waiting), Timestamp::UNIX_EPOCH).0;
    for condition in &mut away.conditions {
        condition.last_transition_time.0 = Timestamp::UNIX_EPOCH;
    }
    assert_eq!(degraded(Some(away.clone()), "replicas: 2", 4), "AsExpected");
    assert_eq!(degraded(Some(away.clone()), "replicas: 2", 6), "Unavailable");
    assert_eq!(degraded(Some(away), HEALTHY, 6), "AsExpected");
}

#[test]
fn a_rollout_ends_when_every_pod_is_the_new_one() {
    let progress = |counts: &str| {
        let deployment = deployment(counts);
        let counts = deployment.status.clone().unwrap();
        progressing(Some(&deployment), 2, &counts, None).1
    };
    assert_eq!(progress(HEALTHY), "AsExpected");
    assert_eq!(progress(&HEALTHY.replace("observedGeneration: 4", "observedGeneration: 3")), "RollingOut");
    assert_eq!(progress(&HEALTHY.replace("updatedReplicas: 2", "updatedReplicas: 1")), "RollingOut");
    assert_eq!(progress(&HEALTHY.replace(" replicas: 2,", " replicas: 3,")), "RollingOut");
    assert_eq!(progress(&HEALTHY.replace("availableReplicas: 2", "availableReplicas: 1")), "RollingOut");
}

#[test]
fn what_the_api_server_refuses_is_told_and_not_tried_without_end() {
    let answer = |code: u16| {
        let status = kube::core::Status { code, message: "no".to_owned(), ..kube::core::Status::default() };
        Error::api("apply Deployment a/main-gateway")(kube::Error::Api(Box::new(status)))
    };
    for code in [400, 403, 422] {
        let refused = Refusal::of_writing(answer(code)).unwrap();
        let running = deployment(HEALTHY);
        let (status, _) = status_of(&gateway(None), Some(&running), Err(&refused), Timestamp::UNIX_EPOCH);
        let wanted = [
            ("Available", "True", "Ready"),
            ("Progressing", "False", "ApplyRefused"),
            ("Degraded", "True", "ApplyRefused"),
            ("PolicyAccepted", "Unknown", "ApplyRefused"),
        ];
        assert_eq!(words(&status), wanted, "{code}");
        assert!(status.conditions[2].message.contains("main-gateway: no"));
    }
    for passes in [409, 500, 503] {
        assert!(Refusal::of_writing(answer(passes)).is_err(), "{passes}");
    }
    let foreign = Refusal::of_writing(Error::NotOurs("Service a/main-gateway".to_owned())).unwrap();
    assert_eq!(foreign.reason(), "NotOurs");
}

#[test]
fn a_namespace_that_may_not_be_read_is_told_and_its_pods_are_not_counted_as_gone() {
    let status = kube::core::Status { code: 403, ..kube::core::Status::default() };
    let forbidden = Error::api("read Service a/main-registry")(kube::Error::Api(Box::new(status)));
    let refused = Refusal::of_reading(forbidden).unwrap();
    let old = RegistryGatewayStatus { replicas: 2, ready_replicas: 2, ..RegistryGatewayStatus::default() };
    let (status, _) = status_of(&gateway(Some(old)), None, Err(&refused), Timestamp::UNIX_EPOCH);
    assert_eq!((status.replicas, status.ready_replicas), (2, 2));
    assert_eq!(words(&status)[0], ("Available", "Unknown", "NamespaceNotAllowed"));
    assert_eq!(words(&status)[2], ("Degraded", "True", "NamespaceNotAllowed"));
}
