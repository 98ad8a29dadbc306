//! What the registry's configuration is made of besides the spec: keys, passwords and certificates, read out of what was
//! found, or the trouble of what is missing. Pure; no text of a secret reaches a message.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::build::Mount;
use super::config_file::{self, DescriptorCache};
use super::dereference::{Found, FoundBucket, S3_CREDENTIALS};
use super::foreign::{CosiVersion, at, bucket_info, is_true_at, text_at};
use super::names::Names;
use super::trouble::{Part, Trouble};
use super::validate::{Certificate, Store, Valid};
use crate::crd::{AuthType, MetadataCacheType, RegistrySpec, S3};

/// Where the pods find their images.
pub(crate) const STORE_ROOT: &str = "/var/lib/registry";

const ACCESS_KEY: &str = "REGISTRY_STORAGE_S3_ACCESSKEY";
const SECRET_KEY: &str = "REGISTRY_STORAGE_S3_SECRETKEY";
const HTPASSWD: &str = "htpasswd";

/// Everything that `build` needs besides what is valid.
#[derive(Debug)]
pub(crate) struct Materials {
    pub store: config_file::Store,
    /// PEM, beside the system's own roots.
    pub trusted_ca: Option<String>,
    pub cache: DescriptorCache,
    pub http_secret: SecretString,
    /// The Secret with `tls.crt` and `tls.key`.
    pub tls_secret: Option<String>,
    pub htpasswd_secret: Option<String>,
    pub token_roots: Option<TokenRoots>,
    /// Hash of what was read from other objects, copied into the configuration or mounted.
    pub read: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRoots {
    pub secret: String,
    pub key: String,
}

/// The hash of the effective spec, with what it takes from other objects: a new password is a new try as well. Without
/// replicas: scaling is none. Everybody may read it in the status, so it begins with a secret of the Registry's own: whoever
/// guesses at a password cannot try the guess on it.
#[must_use]
pub(crate) fn spec_hash(valid: &Valid, materials: &Materials) -> String {
    let written = RegistrySpec { replicas: None, image: Some(valid.image.clone()), ..valid.spec.clone() };
    let mut hash = Sha256::new();
    hash.update(materials.http_secret.expose_secret());
    hash.update(serde_json::to_vec(&written).expect("a spec is JSON"));
    hash.update(&materials.read);
    short(&hash.finalize())
}

/// The hash of what pods mount and read only once. None when some of it is not there.
#[must_use]
pub(crate) fn mounted_hash(mounts: &[Mount], found: &Found) -> Option<String> {
    let mut hash = Sha256::new();
    for mount in mounts {
        hash.update(bytes(found, &mount.secret, &mount.key)?);
    }
    Some(short(&hash.finalize()))
}

/// # Errors
/// The first thing that is missing.
pub(crate) fn gather(valid: &Valid, found: &Found, http_secret: SecretString) -> Result<Materials, Trouble> {
    let mut read = Sha256::new();
    let store = store(valid, found)?;
    let trusted_ca = trusted_ca(&valid.store, found)?;
    let cache = cache(&valid.spec, found)?;
    if let config_file::Store::S3(s3) = &store {
        read.update(format!("{:?}", (&s3.bucket, &s3.region, &s3.endpoint)));
        read.update(s3.access_key.expose_secret());
        read.update(s3.secret_key.expose_secret());
    }
    read.update(trusted_ca.as_deref().unwrap_or_default());
    if let DescriptorCache::Redis { password: Some(password), .. } = &cache {
        read.update(password.expose_secret());
    }
    let tls_secret = tls_secret(valid, found)?;
    for key in ["tls.crt", "tls.key"] {
        read.update(tls_secret.as_deref().and_then(|name| bytes(found, name, key)).unwrap_or_default());
    }
    let htpasswd_secret = htpasswd_secret(&valid.spec, found)?;
    let users = htpasswd_secret.as_deref().and_then(|name| bytes(found, name, HTPASSWD));
    read.update(users.unwrap_or_default());
    let token_roots = token_roots(&valid.spec, found)?;
    if let Some(roots) = &token_roots {
        read.update(bytes(found, &roots.secret, &roots.key).unwrap_or_default());
    }
    Ok(Materials {
        store,
        trusted_ca,
        cache,
        http_secret,
        tls_secret,
        htpasswd_secret,
        token_roots,
        read: short(&read.finalize()),
    })
}

/// The first ten hex digits: enough to tell one configuration of a Registry from another.
pub(super) fn short(hash: &[u8]) -> String {
    hash[..5].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<'f>(found: &'f Found, secret: &str, key: &str) -> Option<&'f [u8]> {
    value(found.secrets.get(secret)?, key)
}

fn value<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    secret.data.as_ref()?.get(key).map(|value| value.0.as_slice()).filter(|value| !value.is_empty())
}

/// One value as text, without the newline that an editor leaves behind.
fn text(found: &Found, part: Part, secret: &str, key: &str) -> Result<SecretString, Trouble> {
    let Some(bytes) = bytes(found, secret, key) else {
        let what =
            if found.secrets.contains_key(secret) { "has no key" } else { "is not there; it needs the key" };
        return Err(Trouble::invalid(part, "SecretMissing", format!("Secret {secret} {what} {key}")));
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(SecretString::from(text.trim_end_matches(['\r', '\n']))),
        Err(_) => {
            Err(Trouble::invalid(part, "SecretUnreadable", format!("Secret {secret}: {key} is no text")))
        }
    }
}

fn store(valid: &Valid, found: &Found) -> Result<config_file::Store, Trouble> {
    match &valid.store {
        Store::EmptyDir { .. } | Store::Claim { .. } => {
            Ok(config_file::Store::FileSystem { root: STORE_ROOT.to_owned() })
        }
        Store::S3(s3) => named_bucket(s3, found).map(config_file::Store::S3),
        Store::Bucket { version, .. } => {
            claimed_bucket(*version, &valid.names, found).map(config_file::Store::S3)
        }
    }
}

fn named_bucket(s3: &S3, found: &Found) -> Result<config_file::S3, Trouble> {
    let secret = s3.credentials_secret_ref.as_ref().map_or(S3_CREDENTIALS, |named| &named.name);
    Ok(config_file::S3 {
        bucket: s3.bucket.clone(),
        region: s3.region.clone(),
        endpoint: s3.region_endpoint.clone(),
        path_style: s3.region_endpoint.is_some() && s3.virtual_hosted_style != Some(true),
        encrypt: s3.encrypt.unwrap_or_default(),
        chunk_bytes: s3.chunk_size_mib.and_then(|mib| u64::try_from(mib).ok()).map(|mib| mib << 20),
        access_key: text(found, Part::Storage, secret, ACCESS_KEY)?,
        secret_key: text(found, Part::Storage, secret, SECRET_KEY)?,
    })
}

/// The bucket that COSI made, once it says that it is ready.
fn claimed_bucket(version: CosiVersion, names: &Names, found: &Found) -> Result<config_file::S3, Trouble> {
    let FoundBucket { claim, access, bucket, .. } = &found.bucket;
    let (claim_ready, access_ready) = match version {
        CosiVersion::V1alpha1 => ("/status/bucketReady", "/status/accessGranted"),
        CosiVersion::V1alpha2 => ("/status/readyToUse", "/status/readyToUse"),
    };
    for (what, name, object, path) in [
        ("BucketClaim", names.bucket_claim(), claim, claim_ready),
        ("BucketAccess", names.bucket_access(), access, access_ready),
    ] {
        if !object.as_ref().is_some_and(|object| is_true_at(object, path)) {
            let why = object.as_ref().and_then(|object| text_at(object, "/status/error/message"));
            let words = format!(
                "{what} {name} is not ready{}",
                why.map(|why| format!(": {why}")).unwrap_or_default()
            );
            return Err(Trouble::waiting(Part::Storage, "BucketNotReady", words));
        }
    }
    let secret = names.bucket_credentials();
    match version {
        CosiVersion::V1alpha1 => {
            let told = found.secrets.get(&secret).and_then(bucket_info);
            let Some((told, keys)) = told.and_then(|told| told.s3.map(|keys| (told.bucket_name, keys)))
            else {
                let words = format!("Secret {secret} does not hold the BucketInfo of an S3 bucket yet");
                return Err(Trouble::waiting(Part::Storage, "BucketNotReady", words));
            };
            let name = bucket.as_ref().and_then(|bucket| text_at(bucket, "/status/bucketID"));
            // The object's own name is another one, and may be somebody else's bucket.
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                let words = format!("Bucket {told} does not tell its bucketID yet");
                return Err(Trouble::waiting(Part::Storage, "BucketNotReady", words));
            };
            Ok(cosi_bucket(
                name,
                &keys.region,
                &keys.endpoint,
                true,
                keys.access_key.into(),
                keys.secret_key.into(),
            ))
        }
        CosiVersion::V1alpha2 => {
            let text = |key: &str| text(found, Part::Storage, &secret, key);
            let plain = |key: &str| text(key).map(|text| text.expose_secret().to_owned());
            let path_style = plain("COSI_S3_ADDRESSING_STYLE").map_or(true, |style| style != "virtual");
            Ok(cosi_bucket(
                &plain("COSI_S3_BUCKET_ID")?,
                &plain("COSI_S3_REGION").unwrap_or_default(),
                &plain("COSI_S3_ENDPOINT").unwrap_or_default(),
                path_style,
                text("COSI_S3_ACCESS_KEY_ID")?,
                text("COSI_S3_ACCESS_SECRET_KEY")?,
            ))
        }
    }
}

fn cosi_bucket(
    bucket: &str,
    region: &str,
    endpoint: &str,
    path_style: bool,
    access_key: SecretString,
    secret_key: SecretString,
) -> config_file::S3 {
    let has_endpoint = !endpoint.is_empty();
    config_file::S3 {
        bucket: bucket.to_owned(),
        // Stores of one's own have no regions, and the field may not be empty.
        region: if region.is_empty() { "us-east-1".to_owned() } else { region.to_owned() },
        endpoint: has_endpoint.then(|| endpoint.to_owned()),
        path_style: path_style && has_endpoint,
        encrypt: false,
        chunk_bytes: None,
        access_key,
        secret_key,
    }
}

fn trusted_ca(store: &Store, found: &Found) -> Result<Option<String>, Trouble> {
    let name = match store {
        Store::S3(s3) => s3.trusted_ca.as_ref().map(|named| named.name.clone()),
        Store::Bucket { .. } => return Ok(bucket_ca(found)),
        Store::EmptyDir { .. } | Store::Claim { .. } => None,
    };
    let Some(name) = name else { return Ok(None) };
    let Some(map) = &found.trusted_ca else {
        return Err(Trouble::invalid(
            Part::Storage,
            "TrustedCaMissing",
            format!("ConfigMap {name} is not there"),
        ));
    };
    let Some(pem) = certificates(map) else {
        let words = format!("ConfigMap {name} needs PEM certificates under the key ca-bundle.crt");
        return Err(Trouble::invalid(Part::Storage, "TrustedCaMissing", words));
    };
    Ok(Some(pem))
}

/// v1alpha2 may give the endpoint's CA with the keys.
fn bucket_ca(found: &Found) -> Option<String> {
    let pem = found.secrets.values().find_map(|secret| value(secret, "COSI_CERTIFICATE_AUTHORITY"))?;
    String::from_utf8(pem.to_vec()).ok().filter(|pem| pem.contains("BEGIN CERTIFICATE"))
}

fn certificates(map: &ConfigMap) -> Option<String> {
    let data = map.data.as_ref()?;
    let pem = ["ca-bundle.crt", "ca.crt"].iter().find_map(|key| data.get(*key));
    pem.or_else(|| data.values().next().filter(|_| data.len() == 1))
        .filter(|pem| pem.contains("BEGIN CERTIFICATE"))
        .cloned()
}

fn cache(spec: &RegistrySpec, found: &Found) -> Result<DescriptorCache, Trouble> {
    let Some(cache) = &spec.metadata_cache else { return Ok(DescriptorCache::None) };
    let redis = match (cache.type_, &cache.redis) {
        (MetadataCacheType::None, _) | (MetadataCacheType::Redis, None) => return Ok(DescriptorCache::None),
        (MetadataCacheType::InMemory, _) => return Ok(DescriptorCache::InMemory),
        (MetadataCacheType::Redis, Some(redis)) => redis,
    };
    let password = redis.password_secret_ref.as_ref();
    Ok(DescriptorCache::Redis {
        addresses: redis.addrs.clone(),
        password: password.map(|named| text(found, Part::Spec, &named.name, &named.key)).transpose()?,
        database: redis.db.and_then(|db| u32::try_from(db).ok()).unwrap_or_default(),
    })
}

fn tls_secret(valid: &Valid, found: &Found) -> Result<Option<String>, Trouble> {
    let (name, why) = match &valid.certificate {
        Certificate::None => return Ok(None),
        Certificate::Given(name) => (name.clone(), None),
        Certificate::Issued { .. } => (valid.names.certificate(), Some(not_issued(found))),
    };
    let has_pair = ["tls.crt", "tls.key"].iter().all(|key| bytes(found, &name, key).is_some());
    match (has_pair, why) {
        (true, _) => Ok(Some(name)),
        (false, Some(why)) => Err(Trouble::waiting(Part::Certificate, "CertificateNotIssued", why)),
        (false, None) => {
            let words = format!("Secret {name} needs tls.crt and tls.key");
            Err(Trouble::invalid(Part::Certificate, "SecretMissing", words))
        }
    }
}

/// What cert-manager says of it.
fn not_issued(found: &Found) -> String {
    let conditions = found.certificate.live.as_ref().and_then(|live| at(live, "/status/conditions"));
    let ready = conditions
        .and_then(Value::as_array)
        .and_then(|list| list.iter().find(|it| it.get("type").and_then(Value::as_str) == Some("Ready")));
    let said = ready.and_then(|ready| ready.get("message")).and_then(Value::as_str);
    said.map_or_else(
        || "cert-manager has not issued it yet".to_owned(),
        |said| format!("cert-manager: {said}"),
    )
}

fn htpasswd_secret(spec: &RegistrySpec, found: &Found) -> Result<Option<String>, Trouble> {
    let Some(auth) = spec.auth.as_ref().filter(|auth| auth.type_ == AuthType::Htpasswd) else {
        return Ok(None);
    };
    let name = auth.secret_ref.as_ref().map(|named| named.name.clone()).unwrap_or_default();
    // Without the file Distribution 3 makes up a user of its own.
    text(found, Part::Spec, &name, HTPASSWD)?;
    Ok(Some(name))
}

fn token_roots(spec: &RegistrySpec, found: &Found) -> Result<Option<TokenRoots>, Trouble> {
    let token =
        spec.auth.as_ref().filter(|auth| auth.type_ == AuthType::Token).and_then(|auth| auth.token.as_ref());
    let Some(token) = token else { return Ok(None) };
    let secret = token.root_cert_secret_ref.name.clone();
    match ["ca.crt", "tls.crt"].into_iter().find(|key| bytes(found, &secret, key).is_some()) {
        Some(key) => Ok(Some(TokenRoots { secret, key: key.to_owned() })),
        None => {
            let words =
                format!("Secret {secret} needs the token service's certificate under ca.crt or tls.crt");
            Err(Trouble::invalid(Part::Spec, "SecretMissing", words))
        }
    }
}

#[cfg(test)]
mod tests;
