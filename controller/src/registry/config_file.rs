//! The configuration file of Distribution, for the two formats there are. Pure: values in, YAML out. The file holds
//! secrets and belongs in a Secret, never in a log.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::version::Major;

/// Everything that the file says. Paths and addresses are those inside the container.
#[derive(Debug)]
pub struct Settings {
    pub major: Major,
    pub store: Store,
    /// Serve blobs through the registry, and never send clients to the store itself.
    pub disable_redirect: bool,
    /// Pulls go on, pushes and deletes are refused.
    pub read_only: bool,
    pub auth: Auth,
    pub cache: DescriptorCache,
    pub listen: Listen,
    pub notifications: Option<Notifications>,
}

#[derive(Clone, Debug)]
pub enum Store {
    FileSystem { root: String },
    S3(S3),
}

#[derive(Clone, Debug)]
pub struct S3 {
    pub bucket: String,
    pub region: String,
    /// A URL; none is Amazon's own.
    pub endpoint: Option<String>,
    /// The bucket in the path instead of the host's name. 2.8 does so for every endpoint.
    pub path_style: bool,
    pub encrypt: bool,
    pub chunk_bytes: Option<u64>,
    pub access_key: SecretString,
    pub secret_key: SecretString,
}

#[derive(Debug)]
pub enum Auth {
    None,
    Htpasswd { realm: String, path: String },
    Token { realm: String, service: String, issuer: String, root_certificates: String },
}

/// Where the registry remembers what it knows of blobs.
#[derive(Clone, Debug)]
pub enum DescriptorCache {
    None,
    InMemory,
    Redis { addresses: Vec<String>, password: Option<SecretString>, database: u32 },
}

#[derive(Debug)]
pub struct Listen {
    /// `:5000`
    pub address: String,
    /// `:5001`: metrics and health, without TLS and without a password.
    pub debug_address: String,
    /// The same in every replica: it signs where an upload stands.
    pub secret: SecretString,
    pub tls: Option<KeyPair>,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
}

/// Paths of PEM files.
#[derive(Debug)]
pub struct KeyPair {
    pub certificate: String,
    pub key: String,
}

/// Who is told of pushes and deletes.
#[derive(Debug)]
pub struct Notifications {
    pub url: String,
    /// The whole value of the header, `Bearer ...`.
    pub authorization: SecretString,
}

/// The file's text. Every string is quoted: Distribution reads YAML 1.1, to which `on` and `1:30` are no text.
///
/// # Panics
/// Never: what goes in is a tree of text, numbers and truth values.
#[must_use]
pub fn render(settings: &Settings) -> String {
    let mut file = json!({
        "version": "0.1",
        "log": {
            "level": "info", "formatter": "json", "accesslog": {"disabled": false}, "fields": {"service": "registry"},
        },
        "storage": storage(settings),
        "http": http(&settings.listen),
        // While the store is away every request is answered 503, and the pod is not ready.
        "health": {"storagedriver": {"enabled": true, "interval": "10s", "threshold": 3}},
    });
    if let Some(auth) = auth(&settings.auth) {
        file["auth"] = auth;
    }
    if let Some(redis) = redis(settings.major, &settings.cache) {
        file["redis"] = redis;
    }
    if let Some(notifications) = &settings.notifications {
        file["notifications"] = tell(notifications);
    }
    let options = serde_saphyr::ser_options! { quote_all: true };
    serde_saphyr::to_string_with_options(&file, options).expect("a tree of plain values is YAML")
}

fn storage(settings: &Settings) -> Value {
    let mut storage = Map::new();
    match &settings.store {
        Store::FileSystem { root } => storage.insert("filesystem".into(), json!({"rootdirectory": root})),
        Store::S3(s3) => storage.insert("s3".into(), bucket(settings.major, s3)),
    };
    storage.insert("delete".into(), json!({"enabled": true}));
    storage.insert("redirect".into(), json!({"disable": settings.disable_redirect}));
    let maintenance = json!({
        "uploadpurging": {"enabled": true, "age": "168h", "interval": "24h", "dryrun": false},
        "readonly": {"enabled": settings.read_only},
    });
    storage.insert("maintenance".into(), maintenance);
    match settings.cache {
        DescriptorCache::None => {}
        DescriptorCache::InMemory => {
            storage.insert("cache".into(), json!({"blobdescriptor": "inmemory"}));
        }
        DescriptorCache::Redis { .. } => {
            storage.insert("cache".into(), json!({"blobdescriptor": "redis"}));
        }
    }
    // 2.8 would take an unknown key here for a second store, and refuse it.
    if settings.major == Major::Three {
        storage.insert("tag".into(), json!({"concurrencylimit": 8}));
    }
    Value::Object(storage)
}

fn bucket(major: Major, s3: &S3) -> Value {
    let mut options = json!({
        "bucket": s3.bucket,
        "region": s3.region,
        "encrypt": s3.encrypt,
        "accesskey": s3.access_key.expose_secret(),
        "secretkey": s3.secret_key.expose_secret(),
    });
    if let Some(endpoint) = &s3.endpoint {
        options["regionendpoint"] = json!(endpoint);
    }
    if let Some(bytes) = s3.chunk_bytes {
        options["chunksize"] = json!(bytes);
    }
    if major == Major::Three {
        options["forcepathstyle"] = json!(s3.path_style);
    }
    options
}

fn auth(auth: &Auth) -> Option<Value> {
    match auth {
        Auth::None => None,
        Auth::Htpasswd { realm, path } => Some(json!({"htpasswd": {"realm": realm, "path": path}})),
        Auth::Token { realm, service, issuer, root_certificates } => Some(json!({"token": {
            "realm": realm, "service": service, "issuer": issuer, "rootcertbundle": root_certificates,
        }})),
    }
}

fn http(listen: &Listen) -> Value {
    let mut http = json!({
        "addr": listen.address,
        "secret": listen.secret.expose_secret(),
        // A Location without a host is right behind every Service, Ingress and gateway.
        "relativeurls": true,
        // Without it SIGTERM cuts pushes off.
        "draintimeout": format!("{}s", listen.drain.as_secs()),
        "headers": {"X-Content-Type-Options": ["nosniff"]},
        "debug": {"addr": listen.debug_address, "prometheus": {"enabled": true, "path": "/metrics"}},
    });
    if let Some(pair) = &listen.tls {
        http["tls"] = json!({"certificate": pair.certificate, "key": pair.key, "minimumtls": "tls1.2"});
    }
    http
}

/// The names of the two majors differ, and neither complains about the other's.
fn redis(major: Major, cache: &DescriptorCache) -> Option<Value> {
    let DescriptorCache::Redis { addresses, password, database } = cache else { return None };
    let mut redis = json!({
        "db": database, "dialtimeout": "100ms", "readtimeout": "100ms", "writetimeout": "100ms",
    });
    match major {
        Major::Two => {
            redis["addr"] = json!(addresses.first());
            redis["pool"] = json!({"maxidle": 16, "maxactive": 64, "idletimeout": "300s"});
        }
        Major::Three => {
            redis["addrs"] = json!(addresses);
            redis["maxidleconns"] = json!(16);
            redis["poolsize"] = json!(64);
            redis["connmaxidletime"] = json!("300s");
        }
    }
    if let Some(password) = password {
        redis["password"] = json!(password.expose_secret());
    }
    Some(redis)
}

fn tell(notifications: &Notifications) -> Value {
    json!({
        "events": {"includereferences": true},
        "endpoints": [{
            "name": "gateway",
            "url": notifications.url,
            "headers": {"Authorization": [notifications.authorization.expose_secret()]},
            "timeout": "1s", "threshold": 5, "backoff": "1s",
            "ignore": {"actions": ["pull"], "mediatypes": ["application/octet-stream"]},
        }],
    })
}
