//! What a path of the distribution API asks for. Works on the raw path, from the right, so that repositories may hold
//! words like `blobs`. Must not decode: a percent sign fits no grammar here and is refused with the name it stands in.

use crate::digest::{Digest, DigestError};
use crate::name::{NameError, Repository, Tag};

/// What a manifest is asked by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

/// One route of the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/` and `/v2`
    Base,
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    /// `/v2/NAME/tags/list`
    Tags(Repository),
    Referrers(Repository, Digest),
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/NAME/blobs/uploads/…`, which only a push uses: the path after `/v2/`
    Uploads(Repository),
}

/// Why a path is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("not a path of the distribution API")]
    Unknown,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Route {
    /// Reads a raw path, without its query.
    ///
    /// # Errors
    /// [`RouteError::Unknown`] when the path has no such shape, the others when a part breaks its grammar.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let rest = match path {
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            _ => path.strip_prefix("/v2/").ok_or(RouteError::Unknown)?,
        };
        if let Some(at) = rest
            .rfind("/blobs/uploads")
            .filter(|at| matches!(rest.as_bytes().get(at + "/blobs/uploads".len()), None | Some(b'/')))
        {
            return Ok(Self::Uploads(rest[..at].parse()?));
        }
        let (head, last) = rest.rsplit_once('/').ok_or(RouteError::Unknown)?;
        let (name, word) = head.rsplit_once('/').ok_or(RouteError::Unknown)?;
        match (word, last) {
            ("manifests", reference) => Ok(Self::Manifest(name.parse()?, Reference::parse(reference)?)),
            ("blobs", digest) => Ok(Self::Blob(name.parse()?, digest.parse()?)),
            ("tags", "list") => Ok(Self::Tags(name.parse()?)),
            ("referrers", digest) => Ok(Self::Referrers(name.parse()?, digest.parse()?)),
            _ => Err(RouteError::Unknown),
        }
    }
}

impl Reference {
    /// A tag, or a digest when there is a colon (no tag holds one).
    ///
    /// # Errors
    /// [`RouteError`] when the text fits neither grammar.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex64() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn routes_are_read_from_the_right() {
        let digest: Digest = format!("sha256:{}", hex64()).parse().unwrap();
        let repository = |name: &str| name.parse::<Repository>().unwrap();
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            (
                "/v2/a/manifests/manifests/b".to_owned(),
                Route::Manifest(repository("a/manifests"), Reference::Tag("b".parse().unwrap())),
            ),
            (format!("/v2/blobs/blobs/blobs/{digest}"), Route::Blob(repository("blobs/blobs"), digest)),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(repository("a"), digest)),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(repository("a/b"))),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(repository("a"))),
            ("/v2/a/blobs/uploads/1-2".to_owned(), Route::Uploads(repository("a"))),
        ] {
            assert_eq!(Route::parse(&path), Ok(route), "{path}");
        }
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for path in [
            "",
            "/",
            "/v1/",
            "/v2/a",
            "/v2//manifests/x",
            "/v2/a/manifests/",
            "/v2/a/manifests/..",
            "/v2/../manifests/x",
            "/v2/a/../b/manifests/x",
            "/v2/a%2fb/manifests/x",
            "/v2/a/manifests/x%00",
            "/v2/A/manifests/x",
            "//v2/",
            "/v2/a/blobs/sha256:zz",
            "/v2/a/tags/",
            "/v2/a/tags/list/",
            "/v2/a/manifests/x/",
            "/v2/a\\b/manifests/x",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic(path in "(/v2/)?\\PC{0,60}(/manifests/|/blobs/|/blobs/uploads)?\\PC{0,80}") {
            let _ = Route::parse(&path);
        }

        #[test]
        fn a_route_names_what_the_path_says(name in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}") {
            let route = Route::parse(&format!("/v2/{name}/manifests/{tag}")).unwrap();
            prop_assert_eq!(route, Route::Manifest(name.parse().unwrap(), Reference::Tag(tag.parse().unwrap())));
        }
    }
}
