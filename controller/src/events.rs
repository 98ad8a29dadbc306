//! Events on what a person would ask about. Repeated ones become a series with a count; a story never fails for one.

use std::time::Duration;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::time::timeout;
use tracing::debug;

use crate::error::chain;

/// How long an event may take before it is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest note that the API server takes.
const LONGEST_NOTE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Warning,
}

/// Where events go. Cheap to clone; events for one reason on one object are grouped.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    #[must_use]
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: "larder-controller".to_owned(), instance };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells of `object`; `reason` in PascalCase, `note` a sentence.
    pub async fn tell<K>(&self, object: &K, kind: Kind, reason: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        let mut note: String = note.into();
        if note.len() > LONGEST_NOTE {
            let end = (0..=LONGEST_NOTE).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
            note.truncate(end);
        }
        let event = Event {
            type_: match kind {
                Kind::Normal => EventType::Normal,
                Kind::Warning => EventType::Warning,
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        match timeout(PATIENCE, self.recorder.publish(&event, &object.object_ref(&()))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(reason, error = chain(&error), "an event is lost"),
            Err(_) => debug!(reason, "an event is lost: no answer in time"),
        }
    }
}
