//! Rules: which requests are answered otherwise than honestly, how often, and how. Must not make replies, only change
//! them.

use std::sync::Arc;

use super::{Kind, Reply, Seen, Upstream};

/// Which requests a rule is for. Add conditions, then say what happens with [`On::once`], [`On::times`] or
/// [`On::always`].
#[must_use = "a rule needs once, times or always"]
pub struct On<'a> {
    upstream: &'a Upstream,
    kind: Kind,
    method: Option<String>,
    reference: Option<String>,
}

pub(super) struct Rule {
    kind: Kind,
    method: Option<String>,
    reference: Option<String>,
    /// How many replies it is still for; without end if none.
    left: Option<usize>,
    pub(super) change: Arc<dyn Fn(&mut Reply) + Send + Sync>,
}

impl<'a> On<'a> {
    pub(super) fn new(upstream: &'a Upstream, kind: Kind) -> Self {
        Self { upstream, kind, method: None, reference: None }
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only for a tag or digest.
    pub fn reference(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned());
        self
    }

    /// Changes the next such reply. Of several rules that fit, every one changes it, in the order they were made.
    pub fn once(self, change: impl Fn(&mut Reply) + Send + Sync + 'static) {
        self.times(1, change);
    }

    pub fn times(self, times: usize, change: impl Fn(&mut Reply) + Send + Sync + 'static) {
        self.add(Some(times), change);
    }

    pub fn always(self, change: impl Fn(&mut Reply) + Send + Sync + 'static) {
        self.add(None, change);
    }

    fn add(self, left: Option<usize>, change: impl Fn(&mut Reply) + Send + Sync + 'static) {
        let rule = Rule {
            kind: self.kind,
            method: self.method,
            reference: self.reference,
            left,
            change: Arc::new(change),
        };
        self.upstream.rules().push(rule);
    }
}

impl Rule {
    /// Whether the rule is for this request; counts it if so.
    pub(super) fn takes(&mut self, seen: &Seen) -> bool {
        let wants = |have: &str, want: &Option<String>| want.as_deref().is_none_or(|want| want == have);
        if self.left == Some(0)
            || self.kind != seen.kind
            || !wants(&seen.method, &self.method)
            || !wants(&seen.reference, &self.reference)
        {
            return false;
        }
        self.left = self.left.map(|left| left - 1);
        true
    }
}
