//! Manifests as clients send them, and as somebody would who wants past a limit.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn read(media_type: &'static str, body: &str) -> Result<Manifest, ManifestError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Manifest::pushed(&headers, body.as_bytes())
}

fn image(layers: &str) -> String {
    format!(r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":7}},"layers":[{layers}]}}"#, digest('c'))
}

fn layer(letter: char, size: u64) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{size}}}"#,
        digest(letter)
    )
}

#[test]
fn an_image_is_its_config_and_its_distinct_layers() {
    let body = image(&[layer('a', 1), layer('b', 2), layer('a', 1), layer('c', 7)].join(","));
    for media_type in
        [OCI_MANIFEST, DOCKER_MANIFEST, "application/vnd.oci.image.manifest.v1+json; charset=utf-8"]
    {
        let Manifest::Image(blobs) = read(media_type, &body).unwrap() else { panic!("an index") };
        let sizes: Vec<u64> = blobs.iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [7, 1, 2]);
        assert!(blobs.iter().all(|blob| blob.kind == Kind::Blob));
    }
}

#[test]
fn an_index_names_manifests_and_sometimes_blobs() {
    let entry = |media_type: &str, letter| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":3}}"#, digest(letter))
    };
    let children = [entry(OCI_MANIFEST, 'a'), entry(DOCKER_LIST, 'b'), entry("application/x", 'd')].join(",");
    let body = format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[{children}]}}"#);
    let Manifest::Index(children) = read(OCI_INDEX, &body).unwrap() else { panic!("an image") };
    let kinds: Vec<Kind> = children.iter().map(|child| child.kind).collect();
    assert_eq!(kinds, [Kind::Manifest(Type::Image), Kind::Manifest(Type::Index), Kind::Blob]);
    assert_eq!(read(OCI_INDEX, r#"{"manifests":null}"#).unwrap(), Manifest::Index(vec![]));
}

#[test]
fn only_foreign_types_with_urls_may_lie_elsewhere() {
    let with = |media_type: &str, urls: &str| {
        let layer =
            format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":3,"urls":{urls}}}"#, digest('a'));
        let Manifest::Image(blobs) = read(OCI_MANIFEST, &image(&layer)).unwrap() else { panic!("an index") };
        blobs[1].kind
    };
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    assert_eq!(with(foreign, r#"["http://a"]"#), Kind::Foreign);
    assert_eq!(
        with("application/vnd.oci.image.layer.nondistributable.v1.tar", r#"["http://a"]"#),
        Kind::Foreign
    );
    assert_eq!(with(foreign, "[]"), Kind::Blob);
    assert_eq!(with(foreign, "null"), Kind::Blob);
    assert_eq!(with("application/vnd.oci.image.layer.v1.tar", r#"["http://a"]"#), Kind::Blob);
}

#[test]
fn what_the_registry_might_read_otherwise_is_refused() {
    let plain = image(&layer('a', 1));
    for (body, words) in [
        (plain.replace("\"layers\"", "\"Layers\""), "layers is spelled another way"),
        (plain.replace("\"layers\"", "\"layer\u{17f}\""), "layers is spelled another way"),
        (plain.replace("\"size\":1", "\"SIZE\":1"), "size is spelled another way"),
        (plain.replace("\"layers\"", "\"layers\":[],\"layers\""), "duplicate field `layers`"),
        (plain.replace("\"size\":1", "\"size\":9,\"size\":1"), "duplicate field `size`"),
        (plain.replace("\"size\":1", "\"size\":-1"), "-1"),
        (plain.replace("\"size\":1", "\"size\":1.0"), "1.0"),
        (plain.replace(",\"size\":1", ""), "missing field `size`"),
        (plain.replace(&digest('a'), "sha256:zz"), "sha256:zz"),
        (plain.replace("\"layers\"", "\"manifests\":[],\"layers\""), "none has both"),
        (image(&[layer('a', 1), layer('a', 2)].join(",")), "two sizes"),
        (format!("{plain}{plain}"), "trailing"),
        ("{}".to_owned(), "none has both"),
        ("[]".to_owned(), "a manifest"),
        (String::new(), "EOF"),
        (format!("{{\"mediaType\":\"{OCI_INDEX}\",{}", &plain[1..]), "calls itself"),
    ] {
        let refusal = Refusal::from(read(OCI_MANIFEST, &body).unwrap_err());
        assert_eq!(refusal.status, 400);
        assert!(refusal.message.contains(words), "{body}: {}", refusal.message);
    }
}

#[test]
fn other_types_are_refused() {
    let body = image(&layer('a', 1));
    for media_type in
        ["", "application/json", "application/vnd.docker.distribution.manifest.v1+prettyjws", "text/html"]
    {
        assert!(matches!(read(media_type, &body), Err(ManifestError::Type(_))), "{media_type}");
    }
    assert!(matches!(Manifest::pushed(&HeaderMap::new(), body.as_bytes()), Err(ManifestError::Type(_))));
    let mut two = HeaderMap::new();
    two.append(CONTENT_TYPE, HeaderValue::from_static(OCI_MANIFEST));
    two.append(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    assert!(matches!(Manifest::pushed(&two, body.as_bytes()), Err(ManifestError::Type(_))));
}

#[test]
fn too_many_things_are_refused() {
    let named = |count: usize| {
        let layers = (0..count).map(|n| format!(r#"{{"digest":"sha256:{n:064x}","size":1}}"#));
        read(OCI_MANIFEST, &image(&layers.collect::<Vec<_>>().join(",")))
    };
    assert!(named(MOST_NAMED - 1).is_ok());
    assert!(matches!(named(MOST_NAMED), Err(ManifestError::TooMany)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(body in "(\\{|\\[)?\\PC{0,200}") {
        let _ = read(OCI_MANIFEST, &body);
    }
}
