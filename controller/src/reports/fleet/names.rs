//! Each registry, reason and version is kept once, however many nodes say it. Must not grow with what no node
//! says any more.

use std::collections::HashSet;
use std::sync::Arc;

/// So many names are kept before the first look for unused ones.
const FEW: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Names {
    all: HashSet<Arc<str>>,
    /// More than these, and unused ones are looked for.
    room: usize,
}

impl Names {
    pub(super) fn of(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.all.get(name) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.room.max(FEW) {
            self.all.retain(|name| Arc::strong_count(name) > 1);
            self.room = self.all.len() * 2;
        }
        let name: Arc<str> = Arc::from(name);
        self.all.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept_once_and_what_is_not_goes() {
        let mut names = Names::default();
        let used = names.of("docker.io");
        assert!(Arc::ptr_eq(&used, &names.of("docker.io")));
        for unused in 0..FEW * 3 {
            names.of(&unused.to_string());
        }
        assert!(names.all.len() <= FEW, "{}", names.all.len());
        assert!(Arc::ptr_eq(&used, &names.of("docker.io")));
    }
}
