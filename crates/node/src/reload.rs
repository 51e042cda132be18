//! Which parts of the node's configuration a reload puts in force, and how.

use async_trait::async_trait;
use restante_operators::{Adjustable, Apply};
use tokio::sync::watch;

use crate::config::{MailboxSection, NodeConfig};
use crate::delivery::preference::Preferences;
use crate::delivery::schedule::Schedule;
use crate::destinations::OfflinePolicy;
use crate::inbox::InboxSettings;
use crate::outbox::OutboxSettings;
use crate::relay_book::{RelayBook, configured};
use crate::retriever::CollectSettings;

/// Keys and sections whose changes take effect without a restart.
pub const RELOADED_KEYS: &[&str] =
    &["delivery", "collect", "mailbox", "inbox", "outbox", "relays", "log"];

/// What a reload may change; whoever goes by it shares it.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) schedule: Adjustable<Schedule>,
    pub(crate) preferences: Adjustable<Preferences>,
    pub(crate) offline: Adjustable<OfflinePolicy>,
    pub(crate) collect: Adjustable<CollectSettings>,
    pub(crate) inbox: Adjustable<InboxSettings>,
    pub(crate) wakes: Adjustable<bool>,
    pub(crate) outbox: Adjustable<OutboxSettings>,
}

/// Applies a changed configuration to a node.
pub(crate) struct Changes {
    pub(crate) settings: Settings,
    pub(crate) relays: RelayBook,
    pub(crate) mailbox: watch::Sender<MailboxSection>,
}

impl Settings {
    pub(crate) fn of(config: &NodeConfig) -> Self {
        Self {
            schedule: Schedule::from(&config.delivery).into(),
            preferences: Preferences::from(&config.delivery).into(),
            offline: OfflinePolicy::from(&config.delivery).into(),
            collect: CollectSettings::from(config.collect.clone()).into(),
            inbox: InboxSettings::from(config.inbox.clone()).into(),
            wakes: config.collect.wake.into(),
            outbox: OutboxSettings::from(&config.outbox).into(),
        }
    }
}

#[async_trait]
impl Apply<NodeConfig> for Changes {
    async fn apply(&self, config: &NodeConfig) -> Result<(), String> {
        // The one step that can fail comes first, so that a failure changes nothing.
        let relays = self.relays.configure(configured(config)).await;
        relays.map_err(|error| format!("the relays can't be changed: {error}"))?;
        let Settings { schedule, preferences, offline, collect, inbox, wakes, outbox } =
            &self.settings;
        schedule.set(Schedule::from(&config.delivery));
        preferences.set(Preferences::from(&config.delivery));
        offline.set(OfflinePolicy::from(&config.delivery));
        collect.set(config.collect.clone().into());
        inbox.set(config.inbox.clone().into());
        wakes.set(config.collect.wake);
        outbox.set(OutboxSettings::from(&config.outbox));
        self.mailbox.send_if_modified(|mailbox| {
            let is_changed = *mailbox != config.mailbox;
            mailbox.clone_from(&config.mailbox);
            is_changed
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Preference;
    use crate::store;

    fn config(rest: &str) -> NodeConfig {
        let required = "server_name = \"a.test\"\nsigning_key = \"key\"\nhomeserver = \"http://127.0.0.1:1\"\n\
                        [outbound]\nsecret = \"s\"\n";
        toml::from_str(&format!("{required}{rest}")).unwrap()
    }

    #[tokio::test]
    async fn a_changed_file_is_in_force_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let before = config("");
        let database = store::open(folder.path()).unwrap();
        let relays =
            RelayBook::open(database, before.server_name.clone(), configured(&before)).await;
        let relays = relays.unwrap();
        let mailbox = watch::Sender::new(before.mailbox.clone());
        let (settings, relays) = (Settings::of(&before), relays.clone());
        let changes = Changes { settings, relays: relays.clone(), mailbox: mailbox.clone() };
        let after = config(
            "[delivery]\nattempts_until_offline = 7\nrelay_deadline = \"4s\"\nprefer = \"both\"\n\
             prefer_for = { \"b.test\" = \"sender\" }\n[collect]\nwait = \"9s\"\nwake = false\n\
             [mailbox]\nblock = [\"*.evil.test\"]\n[inbox]\ngap_wait = \"1m\"\n[outbox]\nconfirm_wait = \"3m\"\n[relays]\n\"b.test\" = [{ server_name = \"r.test\" }]\n",
        );
        changes.apply(&after).await.unwrap();
        let Settings { schedule, preferences, offline, collect, inbox, wakes, outbox } =
            &changes.settings;
        let of = |name: &str| preferences.current().of(&name.parse().unwrap());
        assert_eq!((of("b.test"), of("c.test")), (Preference::Sender, Preference::Both));
        assert_eq!(schedule.current().relay_deadline(), Duration::from_secs(4));
        assert_eq!(offline.current().attempts_until_offline, 7);
        assert_eq!(collect.current().wait, Duration::from_secs(9));
        assert!(!wakes.current());
        assert_eq!(inbox.current().gap_wait, Duration::from_secs(60));
        assert_eq!(outbox.current().confirm_wait, Duration::from_secs(180));
        assert_eq!(relays.of(&"b.test".parse().unwrap()).len(), 1);
        let spam = "x.evil.test".parse().unwrap();
        assert!(!mailbox.borrow().senders().permit(&spam));
    }
}
