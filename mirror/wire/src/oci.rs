//! The error body of the OCI distribution specification and the codes that Larder uses in it.
//! Must not choose HTTP statuses: each server has one `refuse.rs` for that.

use serde::{Deserialize, Serialize};

/// A code of the distribution specification, and the two that docker adds (`UNAVAILABLE`, `UNKNOWN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    Toomanyrequests,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
}

/// `{"errors":[{"code":…,"message":…}]}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub errors: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub code: Code,
    pub message: String,
}

impl ErrorBody {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { errors: vec![Entry { code, message: message.into() }] }
    }

    /// The body's bytes: JSON and a line end, for people at a terminal.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("codes and strings always have a JSON form");
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_the_specification_spells_them() {
        let body = ErrorBody::new(Code::Toomanyrequests, "wait");
        let text = String::from_utf8(body.to_bytes()).unwrap();
        assert_eq!(text, "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"wait\"}]}\n");
        assert_eq!(serde_json::to_string(&Code::ManifestUnknown).unwrap(), "\"MANIFEST_UNKNOWN\"");
        assert_eq!(serde_json::to_string(&Code::NameInvalid).unwrap(), "\"NAME_INVALID\"");
    }
}
