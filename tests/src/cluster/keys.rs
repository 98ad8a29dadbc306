//! What an API server is given to prove itself and to know others by: an authority, its certificate, the key of service
//! account tokens, the administrator's token and kubeconfig. Made anew for each; must not outlive its directory.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SigningKey as _};
use serde_json::{Value, json};

/// Writes `ca.crt`, `server.{crt,key}`, `accounts.{key,pub}`, `tokens.csv` and `kubeconfig`.
pub(super) fn write(dir: &Path, server: &str) -> Result<()> {
    let put = |name: &str, text: &str| fs::write(dir.join(name), text).with_context(|| name.to_owned());

    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["127.0.0.1", "localhost"].map(str::to_owned);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    put("ca.crt", &authority.pem())?;
    put("server.crt", &certificate.pem())?;
    put("server.key", &key.serialize_pem())?;

    let accounts = KeyPair::generate()?;
    put("accounts.key", &accounts.serialize_pem())?;
    put("accounts.pub", &accounts.public_key_pem())?;

    let mut secret = [0; 16];
    getrandom::fill(&mut secret).context("random bytes")?;
    let token = format!("{:032x}", u128::from_le_bytes(secret));
    put("tokens.csv", &format!("{token},admin,admin,\"system:masters\"\n"))?;
    put("kubeconfig", &kubeconfig(dir, server, &token).to_string())
}

/// Signs as the API server signs tokens of service accounts: ES256.
pub(super) fn sign(dir: &Path, text: &[u8]) -> Vec<u8> {
    let key = fs::read_to_string(dir.join("accounts.key")).expect("the key is there");
    let key = KeyPair::from_pem(&key).expect("it is one of ours");
    let der = key.sign(text).expect("it can sign");
    // SEQUENCE, its length; then twice INTEGER, its length, and a number that may have a zero before it or too few bytes.
    let numbers = &der[2..];
    let (first, second) = numbers[2..].split_at(usize::from(numbers[1]));
    let padded = |number: &[u8]| {
        let number = &number[number.len().saturating_sub(32)..];
        [vec![0; 32 - number.len()], number.to_vec()].concat()
    };
    [padded(first), padded(&second[2..])].concat()
}

/// A kubeconfig for the holder of a token: YAML, since JSON is.
pub(super) fn kubeconfig(dir: &Path, server: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": server, "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    })
}
