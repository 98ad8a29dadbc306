//! Bodies: packed, too large, slow, and no report at all.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use http_body_util::{Full, StreamBody};

use super::*;
use crate::reports::tests::report;

fn gzip() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("GZIP"))])
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn unreadable(body: &[u8]) -> String {
    match read(&HeaderMap::new(), body) {
        Err(Refusal::Unreadable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_report_reads_plain_and_packed_and_with_words_of_tomorrow() {
    let report = report("n1");
    let mut json = serde_json::to_value(&report).unwrap();
    json["cluster"] = "one".into();
    json["registries"][0]["colour"] = "red".into();
    let json = json.to_string();
    assert_eq!(read(&HeaderMap::new(), json.as_bytes()).unwrap(), report);
    assert_eq!(read(&gzip(), &packed(json.as_bytes())).unwrap(), report);
}

#[test]
fn what_is_no_report_says_why() {
    let mut json = serde_json::to_value(report("n1")).unwrap();
    json["schema"] = 2.into();
    assert!(unreadable(json.to_string().as_bytes()).contains("schema 2"));
    json["schema"] = 1.into();
    json["generation"] = (-1).into();
    assert!(unreadable(json.to_string().as_bytes()).contains("-1"));
    for body in ["", "{}", "[1]", "{\"schema\":1}", "\u{0}", &"[".repeat(200_000)] {
        unreadable(body.as_bytes());
    }
    let mut br = gzip();
    br.insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
    assert!(matches!(read(&br, b"{}"), Err(Refusal::Unreadable(_))));
    assert!(matches!(read(&gzip(), b"{}"), Err(Refusal::Unreadable(_))));
    let whole = packed(&serde_json::to_vec(&report("n1")).unwrap());
    assert!(matches!(read(&gzip(), &whole[..whole.len() - 9]), Err(Refusal::Unreadable(_))));
}

#[test]
fn a_bomb_is_unpacked_no_further_than_a_report_may_be() {
    let bomb = packed(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < LARGEST, "{}", bomb.len());
    assert_eq!(read(&gzip(), &bomb), Err(Refusal::TooLarge));
    assert_eq!(read(&gzip(), &bomb[..bomb.len() - 9]), Err(Refusal::TooLarge), "its end is never looked at");
    let two = [packed(&vec![b' '; UNPACKED]), packed(b" ")].concat();
    assert_eq!(read(&gzip(), &two), Err(Refusal::TooLarge));
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_size_and_a_time() {
    let within = Duration::from_secs(5);
    let body = |length| Full::<Bytes>::from(vec![1; length]);
    let whole = receive(body(LARGEST), within).await.unwrap();
    assert_eq!(whole.len(), LARGEST);
    assert_eq!(receive(body(LARGEST + 1), within).await, Err(Refusal::TooLarge));
    let endless = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from_static(&[1; 4096])))
    });
    assert_eq!(receive(StreamBody::new(endless), within).await, Err(Refusal::TooLarge));
    let stuck = futures_util::stream::pending::<Result<hyper::body::Frame<Bytes>, std::io::Error>>();
    assert_eq!(receive(StreamBody::new(stuck), within).await, Err(Refusal::Slow));
}
