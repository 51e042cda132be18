//! The sections that both configuration files share: any text is a section or an error, and a length of time is
//! written as it is read.

use restante_federation::Notary;
use restante_federation::config::{FederationSection, KeysSection, PeerSection, Period};
use serde::Deserialize;

use crate::text;

/// Everything that is written in a form of its own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    federation: FederationSection,
    keys: KeysSection,
    period: Option<Period>,
}

pub(crate) fn config(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(file) = toml::from_str::<File>(text) else { return };
    let client = file.federation.client_config();
    assert_eq!(client.routes, file.federation.routes);
    assert_eq!(client.addresses.allow_networks, file.federation.allow_networks);
    file.keys.notaries.iter().zip(file.keys.notaries()).for_each(assert_notary);
    file.period.into_iter().for_each(assert_period);
}

fn assert_notary((section, notary): (&PeerSection, Notary)) {
    assert_eq!((&notary.peer.name, &notary.peer.url), (&section.server_name, &section.url));
    let written = toml::to_string(section).unwrap_or_default();
    assert_eq!(toml::from_str(&written).as_ref(), Ok(section), "{written}");
}

fn assert_period(period: Period) {
    let written = format!("period = \"{period}\"");
    let read = toml::from_str::<File>(&written).map(|file| file.period);
    assert_eq!(read, Ok(Some(period)), "{written}");
}
