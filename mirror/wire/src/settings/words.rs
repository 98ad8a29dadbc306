//! The words that settings choose from, each list in the contract's order; reading and writing use the same list.

use super::{Access, Capability, Distribution, InstallerMode, LogFormat};

impl Access {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("public", Self::Public), ("shared", Self::Shared)];
}

impl Capability {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("pull", Self::Pull), ("resolve", Self::Resolve)];
}

impl InstallerMode {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("manage", Self::Manage), ("observe", Self::Observe), ("absent", Self::Absent)];
}

impl Distribution {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[
        ("kubeadm", Self::Kubeadm),
        ("eks", Self::Eks),
        ("k3s", Self::K3s),
        ("rke2", Self::Rke2),
        ("microk8s", Self::Microk8s),
        ("custom", Self::Custom),
    ];
}

impl LogFormat {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[("json", Self::Json), ("text", Self::Text)];
}

/// The word for a value that is in its list.
pub(super) fn word_for<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, meaning)| meaning == value).map_or("", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_word() {
        assert_eq!(word_for(Access::WORDS, &Access::Shared), "shared");
        assert_eq!(word_for(Capability::WORDS, &Capability::Resolve), "resolve");
        assert_eq!(word_for(InstallerMode::WORDS, &InstallerMode::Absent), "absent");
        assert_eq!(word_for(Distribution::WORDS, &Distribution::Custom), "custom");
        assert_eq!(word_for(LogFormat::WORDS, &LogFormat::Text), "text");
    }
}
