//! Decides which paths are passed on to the homeserver. Pure.

use std::borrow::Cow;

use serde::Deserialize;

/// A path that is passed on, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PassedPath(String);

/// Not such a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a path that begins with / and does not end with it, such as /_matrix")]
pub struct PassedPathError;

impl TryFrom<String> for PassedPath {
    type Error = PassedPathError;

    fn try_from(path: String) -> Result<Self, PassedPathError> {
        let fits = path.starts_with('/') && !path.ends_with('/');
        if fits { Ok(Self(path)) } else { Err(PassedPathError) }
    }
}

impl PassedPath {
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What other servers and clients need of a homeserver. Everything else that it serves beside that, above all its admin
/// API, is not for everybody.
pub(crate) fn default_paths() -> Vec<PassedPath> {
    ["/_matrix", "/.well-known/matrix"].map(|path| PassedPath(path.to_owned())).into()
}

/// Whether `path` is passed on: it is below one of `passed`, and stays there for whoever follows its dots.
pub(super) fn is_passed(path: &str, passed: &[PassedPath]) -> bool {
    let covers = |path: &str| passed.iter().any(|passed| passed.covers(path));
    covers(path) && covers(&followed(path))
}

/// The path as the most obliging server reads it.
fn followed(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let path = decoded(path);
    for segment in path.split(['/', '\\']).skip(1) {
        match segment {
            ".." => {
                kept.pop();
            }
            "" | "." => {}
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Dots and slashes are read as such, however they are written.
fn decoded(path: &str) -> Cow<'_, str> {
    const WRITTEN: [(&str, &str); 6] =
        [("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "/"), ("%5C", "/")];
    let mut path = Cow::Borrowed(path);
    for (written, read) in WRITTEN {
        if path.contains(written) {
            path = path.replace(written, read).into();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_paths_is_passed() {
        let passed = default_paths();
        for path in [
            "/_matrix/client/v3/sync",
            "/_matrix/federation/v1/version",
            "/_matrix",
            "/.well-known/matrix/server",
            "/_matrix/client/v3/directory/room/%23a%2F..%2Fb:c.test",
            "/_matrix/x%2Fy//z",
        ] {
            assert!(is_passed(path, &passed), "{path}");
        }
        for path in [
            "/",
            "*",
            "",
            "/_synapse/admin/v1/register",
            "/_matrixx/y",
            "/.well-known/other",
            "//_matrix/x",
            "/_matrix/../_synapse/admin",
            "/_matrix/%2e%2E/_synapse/admin",
            "/_matrix/x/..%2f..%5c_synapse/admin",
            "/_matrix/..\\_synapse",
        ] {
            assert!(!is_passed(path, &passed), "{path}");
        }
    }

    #[test]
    fn paths_of_the_configuration_begin_with_a_slash_and_do_not_end_with_one() {
        assert!(PassedPath::try_from("/_synapse/client".to_owned()).is_ok());
        for path in ["", "/", "_matrix", "/_matrix/"] {
            assert_eq!(PassedPath::try_from(path.to_owned()), Err(PassedPathError));
        }
    }
}
