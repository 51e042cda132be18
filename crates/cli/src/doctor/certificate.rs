//! Reads what a certificate says of itself: for whom it is and until when.

use std::time::Duration;

use restante_federation_proto::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::report::Outcome;
use crate::amounts_text::length;

/// Common certificate authorities renew a month before the end; with less than this something has gone wrong.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Names that one line shows.
const NAMES_SHOWN_MAX: usize = 5;

/// A certificate that was believed, at `now`.
pub(super) fn outcome(der: &[u8], now: Timestamp) -> Outcome {
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return Outcome::warn(
            "the certificate is believed, but can't be read here",
            "look at it with openssl",
        );
    };
    let seconds = certificate.validity().not_after.timestamp();
    let ends = Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    let left = ends.since(now);
    let names = certificate.subject_alternative_name().ok().flatten();
    let names =
        names.map(|names| names.value.general_names.iter().filter_map(name).collect::<Vec<_>>());
    let names = names.unwrap_or_default();
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
    let seen = format!("certificate for {shown}, good for {}", length(left));
    if left < RENEWED_BEFORE {
        return Outcome::warn(
            seen,
            "see why it was not renewed: the log of certbot, Caddy or whatever renews it",
        );
    }
    Outcome::ok(seen)
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// At this many days since 1970.
    fn on_day(day: u64) -> Outcome {
        let names = vec!["relay.example".to_owned(), "192.0.2.7".to_owned()];
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_after = date_time_ymd(1971, 1, 1);
        let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        outcome(certificate.der(), Timestamp::from_millis(day * 24 * 3600 * 1000))
    }

    #[test]
    fn a_certificate_says_for_whom_and_for_how_long_it_is() {
        let seen = "certificate for relay.example, 192.0.2.7, good for 65 d";
        assert_eq!(on_day(300), Outcome::ok(seen));
    }

    #[test]
    fn one_that_ends_soon_should_have_been_renewed() {
        assert_ne!(
            on_day(352),
            Outcome::ok("certificate for relay.example, 192.0.2.7, good for 13 d")
        );
        assert!(!on_day(352).is_failed());
    }
}
