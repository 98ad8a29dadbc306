//! Headers that belong to one connection, and addresses that are only right on one side. Must not touch
//! anything else: `Docker-Content-Digest`, `Range`, `OCI-*` and what nobody has thought of yet pass as they
//! come.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, LINK, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};
use larder_wire::settings::UpstreamUrl;
use url::Url;

use crate::serve::Asked;

/// Headers of a connection by their nature, whatever `Connection` says.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Takes out what was meant for the connection that it came by. `Expect` is answered by this server, which
/// asks for a body only when somebody reads it.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().filter(|name| !matches!(**name, HOST | CONTENT_LENGTH)) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Tells the registry how the client came, so that the addresses it makes lead back here. A proxy in front
/// knows better than this server and is believed.
pub(crate) fn forwarded(asked: &mut Asked) {
    let (remote, scheme) = (asked.caller.remote.to_string(), asked.origin.scheme);
    let headers = asked.request.headers_mut();
    let before: Vec<_> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let all = before.into_iter().chain([remote.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(all) = HeaderValue::try_from(all) {
        headers.insert(FORWARDED_FOR, all);
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
}

/// An answer's headers as the client may see them: none of the connection's, and no address of the registry's
/// own.
pub(crate) fn answered(headers: &mut HeaderMap, home: &UpstreamUrl) {
    strip(headers);
    if let Some(here) = headers.get(LOCATION).and_then(|value| relative(value.to_str().ok()?, home)) {
        headers.insert(LOCATION, here);
    }
    let links: Vec<HeaderValue> = headers.get_all(LINK).iter().map(|link| relink(link, home)).collect();
    if !links.is_empty() {
        headers.remove(LINK);
        for link in links {
            headers.append(LINK, link);
        }
    }
}

/// An address at the registry as one that is right wherever the client found us; `None` for any other.
fn relative(address: &str, home: &UpstreamUrl) -> Option<HeaderValue> {
    path_at(address, home).and_then(|path| HeaderValue::try_from(path).ok())
}

fn path_at<'a>(address: &'a str, home: &UpstreamUrl) -> Option<&'a str> {
    let url = Url::parse(address).ok()?;
    let same_host = url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(&home.host));
    if !same_host || url.port_or_known_default() != Some(home.port_or_default()) {
        return None;
    }
    let (_, rest) = address.split_once("://")?;
    Some(rest.find('/').map_or("/", |slash| &rest[slash..]))
}

/// `<http://registry/v2/…>; rel="next"` without the registry.
fn relink(link: &HeaderValue, home: &UpstreamUrl) -> HeaderValue {
    let Ok(text) = link.to_str() else { return link.clone() };
    let mut here = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, target)) = rest.split_once('<') {
        let Some((address, after)) = target.split_once('>') else { break };
        here.push_str(before);
        here.push('<');
        here.push_str(path_at(address, home).unwrap_or(address));
        here.push('>');
        rest = after;
    }
    here.push_str(rest);
    HeaderValue::try_from(here).unwrap_or_else(|_| link.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> UpstreamUrl {
        "http://Registry.internal:5000".to_lowercase().parse().unwrap()
    }

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_stays_and_the_rest_passes() {
        let mut headers = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("docker-content-digest", "sha256:x"),
            ("range", "bytes=0-1"),
            ("oci-chunk-min-length", "1"),
            ("content-length", "3"),
            ("x-new", "2"),
        ]);
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["content-length", "docker-content-digest", "oci-chunk-min-length", "range", "x-new"]
        );
    }

    #[test]
    fn connection_cannot_name_what_frames_a_request() {
        let mut headers =
            headers(&[("connection", "content-length, host"), ("content-length", "3"), ("host", "a")]);
        strip(&mut headers);
        assert_eq!(
            (headers.len(), &headers[CONTENT_LENGTH], &headers[HOST]),
            (2, &"3".parse().unwrap(), &"a".parse().unwrap())
        );
    }

    #[test]
    fn only_the_registrys_own_addresses_are_rewritten() {
        for (address, here) in [
            (
                "http://registry.internal:5000/v2/a/blobs/uploads/1?_state=x%3D",
                "/v2/a/blobs/uploads/1?_state=x%3D",
            ),
            ("http://REGISTRY.internal:5000", "/"),
            ("/v2/a", "/v2/a"),
            ("http://registry.internal/v2/a", "http://registry.internal/v2/a"),
            ("https://storage.example/key?sig=1", "https://storage.example/key?sig=1"),
            ("http://registry.internal:5000@evil.example/", "http://registry.internal:5000@evil.example/"),
        ] {
            let mut answer = headers(&[("location", address)]);
            answered(&mut answer, &home());
            assert_eq!(answer[LOCATION], here, "{address}");
        }
        let mut answer = headers(&[
            (
                "link",
                "<http://registry.internal:5000/v2/a/tags/list?last=b>; rel=\"next\", \
                 <https://x/>; rel=\"y\"",
            ),
            ("link", "</v2/c>; rel=\"next\""),
        ]);
        answered(&mut answer, &home());
        let links: Vec<_> = answer.get_all(LINK).iter().map(|link| link.to_str().unwrap()).collect();
        let expected =
            ["</v2/a/tags/list?last=b>; rel=\"next\", <https://x/>; rel=\"y\"", "</v2/c>; rel=\"next\""];
        assert_eq!(links, expected);
    }
}
