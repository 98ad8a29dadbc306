//! How an agent proves that it is the one whose key lies in `run_dir/instance`: HMAC-SHA256 of a random challenge.
//! A squatter on the port cannot answer, even if it heard earlier probes. Must not read or make the key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::digest::{hex, unhex};

/// Request header: 64 lower-case hex digits, fresh for each probe.
pub const CHALLENGE: &str = "larder-challenge";
/// Reply header: hex HMAC-SHA256 of the challenge's text under the bytes of the key file.
pub const PROOF: &str = "larder-proof";
/// The manifest that probes ask for, with HEAD: it exists in every agent and never upstream.
pub const CANARY_PATH: &str = "/v2/larder/canary/manifests/probe";
/// The key's file in `run_dir`; the whole file is the key.
pub const KEY_FILE: &str = "instance";
/// The file in `run_dir` with the address that the running agent's mirror listens at, as text.
pub const ADDRESS_FILE: &str = "address";
/// Reply header of an agent whose kill switch is set.
pub const BYPASS: &str = "larder-bypass";

/// Whether a text is a challenge: anything else is left unanswered.
#[must_use]
pub fn is_challenge(text: &str) -> bool {
    unhex::<32>(text).is_some()
}

/// The proof for a challenge.
#[must_use]
pub fn prove(key: &[u8], challenge: &str) -> String {
    hex(&Hmac::<Sha256>::new_from_slice(key)
        .expect("HMAC takes a key of any length")
        .chain_update(challenge.as_bytes())
        .finalize()
        .into_bytes())
}

/// Whether a reply's proof is the one for this key and challenge, compared in constant time.
#[must_use]
pub fn holds(key: &[u8], challenge: &str, proof: &str) -> bool {
    prove(key, challenge).as_bytes().ct_eq(proof.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_key_and_challenge_alone() {
        let challenge = "ab".repeat(32);
        let proof = prove(b"key", &challenge);
        assert!(holds(b"key", &challenge, &proof));
        assert!(!holds(b"other", &challenge, &proof));
        assert!(!holds(b"key", &"cd".repeat(32), &proof));
        assert!(!holds(b"key", &challenge, ""));
    }

    #[test]
    fn the_proof_is_plain_hmac_sha256() {
        // RFC 4231, test case 2
        assert_eq!(
            prove(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn only_64_hex_digits_are_a_challenge() {
        assert!(is_challenge(&"0f".repeat(32)));
        for text in ["", "0f", &"0F".repeat(32), &"0f".repeat(33), &"zz".repeat(32)] {
            assert!(!is_challenge(text));
        }
    }
}
