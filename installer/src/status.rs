//! What stands in certs.d now, and why: read from the disk, with the last word of a running installer where the disk
//! alone cannot tell. Writes nothing.

use std::collections::BTreeSet;
use std::io::{self, Write};

use larder_wire::settings::{InstallerMode, Settings};

use crate::plan::{self, Decision, Known};
use crate::probe::{self, Verdict};
use crate::state::{RegistryState, Standing, State, read};
use crate::{preflight, snippet, tree};

/// Prints a line a registry, `REGISTRY<TAB>STATE<TAB>REASON`, and in mode observe how to point containerd at us by
/// hand; the words of each reason go to `words`. Whether all registries are installed as they should be, or external.
///
/// # Errors
/// When certs.d cannot be read or the output not be written.
pub fn status(settings: &Settings, out: &mut impl Write, words: &mut impl Write) -> io::Result<bool> {
    let ground = preflight::check(&settings.installer);
    let seen = tree::look(&settings.installer.certs_dir, &ground.roots)?;
    let mirror = probe::mirror_address(settings);
    let nothing = BTreeSet::new();
    let known = Known {
        ground: &ground,
        verdict: &Verdict::Unsure(None),
        mirror,
        recent: &nothing,
        once_in: &nothing,
        fought: &nothing,
    };
    let told = read(&settings.run_dir).unwrap_or_default();
    let mut all = true;
    for decision in plan::plan(settings, &seen, &known).decisions {
        let (state, reason, message) = with_last_word(&decision, &told);
        writeln!(out, "{}\t{state}\t{reason}", decision.registry)?;
        if !message.is_empty() {
            let colon = if reason.is_empty() { "" } else { ": " };
            writeln!(words, "{}: {reason}{colon}{message}", decision.registry)?;
        }
        // An entry that should have gone is not well, though it is there.
        all &= state == Standing::External.as_str()
            || (state == Standing::Installed.as_str() && reason.is_empty());
    }
    if let (InstallerMode::Observe, Some(mirror)) = (settings.installer.mode, mirror) {
        let registries: Vec<_> = settings.upstreams.iter().map(|upstream| &upstream.registry).collect();
        write!(out, "\n{}", snippet::snippets(&registries, mirror))?;
    }
    Ok(all)
}

/// The disk shows what is there; why nothing is there yet, or why what is there should have gone, the installer knows.
fn with_last_word(decision: &Decision, told: &State) -> (String, String, String) {
    let last = told.registries.iter().find(|last| last.registry == decision.registry.as_str());
    let absent = [Standing::Waiting.as_str(), Standing::Withdrawn.as_str(), Standing::Refused.as_str()];
    let knows_more = |last: &&RegistryState| match decision.standing {
        Standing::Waiting => absent.contains(&last.state.as_str()),
        Standing::Installed => last.is_installed() && !last.reason.is_empty(),
        _ => false,
    };
    match last.filter(knows_more) {
        Some(last) => (last.state.clone(), last.reason.clone(), last.message.clone()),
        None => {
            let reason = decision.reason.map(|reason| reason.to_string()).unwrap_or_default();
            (decision.standing.to_string(), reason, decision.message.clone())
        }
    }
}

#[cfg(test)]
mod tests;
