//! Reads `/.well-known/matrix/server`: the delegated name, how long it counts, and where a redirect leads.

use std::time::Duration;

use http::header::{CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderMap, StatusCode, Uri};
use restante_federation_proto::{ServerName, Timestamp};
use serde::Deserialize;

use super::name::{Host, Named};

/// Larger answers are no well-known files.
pub(crate) const WELL_KNOWN_BYTES_MAX: usize = 50 * 1024;
/// Redirects that are followed.
pub(crate) const REDIRECTS_MAX: usize = 5;
/// How long a delegation counts when the answer does not say.
const LIFETIME_DEFAULT: Duration = Duration::from_hours(24);
/// No answer counts for longer, so that a moved server is found.
const LIFETIME_MAX: Duration = Duration::from_hours(48);
/// No answer counts for less, so that a busy destination is not asked over and over.
const LIFETIME_MIN: Duration = Duration::from_mins(5);

const HTTPS_PORT: u16 = 443;

/// Where a host says to whom it delegates.
pub(crate) const SERVER_FILE: &str = "/.well-known/matrix/server";

/// Where to ask; always over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WellKnownUrl {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// What `Host` must say.
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
}

/// What a web server said.
#[derive(Debug, Clone)]
pub(crate) struct WebAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The server is reached by this name for so long.
    Delegated(Named, Duration),
    /// Ask there.
    Elsewhere(WellKnownUrl),
    /// Nothing is delegated; why.
    Nothing(String),
}

impl WellKnownUrl {
    /// Where the file `path` of `host` is.
    pub(crate) fn of(host: &str, path: &str) -> Self {
        Self {
            host: Host::Dns(host.to_owned()),
            port: HTTPS_PORT,
            authority: host.to_owned(),
            path_and_query: path.to_owned(),
        }
    }

    /// Where `location` leads from here; only HTTPS is followed.
    fn redirected(&self, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Self { path_and_query: location.to_owned(), ..self.clone() });
        }
        let absolute = match location.strip_prefix("//") {
            Some(rest) => format!("https://{rest}"),
            None => location.to_owned(),
        };
        let uri: Uri = absolute.parse().ok()?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        if uri.scheme_str() != Some("https") {
            return None;
        }
        Some(Self {
            host: Host::parse(authority.host())?,
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            authority: authority.as_str().to_owned(),
            path_and_query: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// Where `answer` to `url` leads, if it is no file; `None` if it is one. The error says what it is else.
pub(crate) fn elsewhere(
    url: &WellKnownUrl,
    answer: &WebAnswer,
) -> Result<Option<WellKnownUrl>, String> {
    if answer.status.is_redirection() {
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let there = location.and_then(|location| url.redirected(location));
        return there.map(Some).ok_or_else(|| "it redirects to what is no HTTPS URL".into());
    }
    if answer.status != StatusCode::OK {
        return Err(format!("it answered {}", answer.status));
    }
    Ok(None)
}

/// What `answer` to `url` means at `now`.
pub(crate) fn meaning(url: &WellKnownUrl, answer: &WebAnswer, now: Timestamp) -> Meaning {
    match elsewhere(url, answer) {
        Err(reason) => return Meaning::Nothing(reason),
        Ok(Some(there)) => return Meaning::Elsewhere(there),
        Ok(None) => {}
    }
    match delegated(&answer.body) {
        Some(named) => Meaning::Delegated(named, lifetime(&answer.headers, now)),
        None => Meaning::Nothing("it is not a well-known file with m.server".into()),
    }
}

fn delegated(body: &[u8]) -> Option<Named> {
    #[derive(Deserialize)]
    struct WellKnown {
        #[serde(rename = "m.server")]
        server: ServerName,
    }
    let known: WellKnown = serde_json::from_slice(body).ok()?;
    Named::parse(known.server.as_str())
}

fn lifetime(headers: &HeaderMap, now: Timestamp) -> Duration {
    let said = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(cache_control)
        .or_else(|| expires(headers, now));
    said.unwrap_or(LIFETIME_DEFAULT).clamp(LIFETIME_MIN, LIFETIME_MAX)
}

fn cache_control(value: &str) -> Option<Duration> {
    let directives = || value.split(',').map(str::trim);
    let forbids = |directive: &str| {
        directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
    };
    if directives().any(forbids) {
        return Some(Duration::ZERO);
    }
    directives().find_map(|directive| {
        let (name, seconds) = directive.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
}

fn expires(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(EXPIRES)?.to_str().ok()?;
    // Anything that is not a date, `0` above all, means "already expired" (RFC 9111, section 5.3).
    let Ok(date) = jiff::fmt::rfc2822::parse(text) else { return Some(Duration::ZERO) };
    let at = u64::try_from(date.timestamp().as_millisecond()).unwrap_or(0);
    Some(Timestamp::from_millis(at).since(now))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> WebAnswer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        WebAnswer { status, headers: map, body: body.into() }
    }

    fn read(answer: &WebAnswer) -> Meaning {
        meaning(&WellKnownUrl::of("b.example", SERVER_FILE), answer, NOW)
    }

    fn lifetime_with(headers: &[(&'static str, &'static str)]) -> Duration {
        match read(&answer(200, headers, r#"{"m.server":"fed.b.example:443"}"#)) {
            Meaning::Delegated(named, lifetime) => {
                assert_eq!(named.text, "fed.b.example:443");
                lifetime
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_delegation_counts_as_long_as_its_headers_say_within_bounds() {
        let hours = Duration::from_hours;
        assert_eq!(lifetime_with(&[]), hours(24));
        assert_eq!(lifetime_with(&[("cache-control", "public, Max-Age=7200")]), hours(2));
        assert_eq!(lifetime_with(&[("cache-control", "max-age=99999999")]), hours(48));
        assert_eq!(lifetime_with(&[("cache-control", "no-store")]), Duration::from_mins(5));
        assert_eq!(lifetime_with(&[("expires", "Sun, 06 Nov 1994 11:49:37 GMT")]), hours(3));
        assert_eq!(lifetime_with(&[("expires", "0")]), Duration::from_mins(5));
        assert_eq!(lifetime_with(&[("cache-control", "max-age=3600"), ("expires", "0")]), hours(1));
    }

    #[test]
    fn redirects_lead_to_https_alone() {
        let to = |location| read(&answer(302, &[("location", location)], ""));
        let Meaning::Elsewhere(url) = to("https://www.b.example:444/x?y") else { panic!() };
        assert_eq!((url.port, url.authority.as_str()), (444, "www.b.example:444"));
        assert_eq!(url.path_and_query, "/x?y");
        let Meaning::Elsewhere(url) = to("/else/where") else { panic!() };
        assert_eq!(url.authority, "b.example");
        assert_eq!(url.path_and_query, "/else/where");
        let Meaning::Elsewhere(url) = to("//10.0.0.1/") else { panic!() };
        assert_eq!(url.host, Host::Ip("10.0.0.1".parse().unwrap()));
        for location in
            ["http://b.example/", "ftp://b.example/", "nonsense", "https://u@b.example/"]
        {
            assert!(matches!(to(location), Meaning::Nothing(_)), "{location}");
        }
    }

    #[test]
    fn anything_else_delegates_nothing() {
        for (status, body) in [
            (404, r#"{"m.server":"x.example"}"#),
            (200, ""),
            (200, "<html>"),
            (200, "{}"),
            (200, r#"{"m.server":1}"#),
            (200, r#"{"m.server":"not a name"}"#),
            (200, r#"{"m.server":"x.example:0"}"#),
        ] {
            assert!(matches!(read(&answer(status, &[], body)), Meaning::Nothing(_)), "{body}");
        }
    }

    /// Header values of any bytes, and some that look like what is read.
    fn header() -> impl Strategy<Value = Vec<u8>> {
        let words =
            "(https?:)?(//)?([a-z@.:\\[\\]0-9]{0,12}|b\\.example)(:[0-9]{0,6})?(/[a-z?#% ]{0,6})?";
        let caching = "((max-age|MAX-AGE|no-store|x)=? ?\"?[0-9]{0,25}\"?,? ?){0,3}";
        let date = "(Sun, )?[0-9]{1,2} (Nov|Feb|x) [0-9]{1,5} [0-9]{2}:49:37 (GMT|-9999)";
        let text = prop_oneof![words, caching, date].prop_map(String::into_bytes);
        prop_oneof![any::<Vec<u8>>(), text]
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let server =
            "[a-z.\\[\\]:0-9]{0,12}".prop_map(|name| format!(r#"{{"m.server":"{name}"}}"#));
        prop_oneof![any::<Vec<u8>>(), server.prop_map(String::into_bytes)]
    }

    proptest! {
        /// Whatever a web server answers: a delegation is to a name and counts within bounds, a redirect leads to
        /// where an HTTPS request can be sent.
        #[test]
        fn any_answer_means_something_within_bounds(
            status in prop_oneof![Just(200), Just(302), 100_u16..1000],
            headers in prop::collection::vec((0_usize..3, header()), 0..4),
            body in body(),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                map.append([CACHE_CONTROL, EXPIRES, LOCATION][name].clone(), value);
            }
            let status = StatusCode::from_u16(status).unwrap();
            match read(&WebAnswer { status, headers: map, body }) {
                Meaning::Delegated(named, lifetime) => {
                    prop_assert_eq!(status, StatusCode::OK);
                    prop_assert!((LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime));
                    prop_assert!(named.text.parse::<ServerName>().is_ok() && named.port != Some(0));
                }
                Meaning::Elsewhere(url) => {
                    prop_assert!(status.is_redirection() && !url.authority.contains(['@', '/']));
                    prop_assert!(url.path_and_query.starts_with('/') || url.path_and_query.starts_with('?'));
                    prop_assert!(HeaderValue::from_str(&url.authority).is_ok());
                }
                Meaning::Nothing(reason) => prop_assert!(!reason.is_empty()),
            }
        }
    }
}
