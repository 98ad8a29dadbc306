//! Asks containerd the way the kubelet does: CRI over gRPC on its socket, two calls of it, encoded by hand. So a pull
//! reads `config_path` and certs.d as on a node. Must not decide anything about images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// A containerd's socket.
#[derive(Clone)]
pub(super) struct Cri {
    socket: PathBuf,
}

impl Cri {
    #[must_use]
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// `ImageService.PullImage`: returns when the image is there and unpacked.
    ///
    /// # Errors
    /// Containerd's own words when the pull failed.
    pub(super) async fn pull(&self, image: &str) -> Result<()> {
        self.call("PullImage", &field(1, &field(1, image.as_bytes()))).await
    }

    /// `ImageService.RemoveImage`: the image, its snapshots and its blobs are gone when this returns.
    ///
    /// # Errors
    /// Containerd's own words.
    pub(super) async fn remove(&self, image: &str) -> Result<()> {
        self.call("RemoveImage", &field(1, &field(1, image.as_bytes()))).await
    }

    /// Whether the CRI plugin answers yet.
    pub(super) async fn is_up(&self) -> bool {
        self.call("ListImages", &[]).await.is_ok()
    }

    /// One unary call whose reply nobody needs.
    async fn call(&self, method: &str, message: &[u8]) -> Result<()> {
        let stream = UnixStream::connect(&self.socket).await.context("containerd's socket")?;
        let (client, connection) = h2::client::handshake(stream).await.context("HTTP/2 with containerd")?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut client = client.ready().await.context("HTTP/2 with containerd")?;
        let request = Request::post(format!("http://localhost/runtime.v1.ImageService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .context("a gRPC request")?;
        let (reply, mut body) = client.send_request(request, false).context("a gRPC request")?;
        body.send_data(framed(message), true).context("a gRPC request")?;
        let (head, mut body) = reply.await.context("containerd's reply")?.into_parts();
        while let Some(chunk) = body.data().await {
            let length = chunk.context("containerd's reply")?.len();
            body.flow_control().release_capacity(length).context("containerd's reply")?;
        }
        // A call that fails at once has its status in the head.
        let trailers = body.trailers().await.context("containerd's reply")?.unwrap_or(head.headers);
        verdict(method, &trailers)
    }
}

/// Uncompressed, with its length in front.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("our messages are an image's name long");
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

/// A length-delimited field of a protocol buffer.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut rest = value.len();
    while rest > 0x7f {
        encoded.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    encoded.push(rest as u8);
    encoded.extend_from_slice(value);
    encoded
}

fn verdict(method: &str, trailers: &HeaderMap) -> Result<()> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => Ok(()),
        code => bail!("{method}: gRPC status {code}: {}", text("grpc-message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protocol_buffers() {
        assert_eq!(field(1, b"ab"), [0x0a, 2, b'a', b'b']);
        let long = field(1, &[7; 300]);
        assert_eq!((&long[..3], long.len()), (&[0x0a, 0xac, 0x02][..], 303));
        assert_eq!(framed(b"abc")[..], [0, 0, 0, 0, 3, b'a', b'b', b'c']);
    }
}
