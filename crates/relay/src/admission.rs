//! Decides whether a mailbox is served here, who may leave mail in it, and who may register.
//!
//! Pure. What is refused is refused alike on the wire, for whatever reason; the reason is for the operator's log.

use std::time::Duration;

use restante_federation_proto::{ServerGlob, ServerName};
use restante_mailbox::{AdmittedBy, Outgoing};
use restante_relay_api::Senders;

use crate::config::Serve;

/// Who gets a mailbox here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedRule {
    pub(crate) serve: Serve,
    pub(crate) listed: Vec<ServerGlob>,
}

/// What a registered server has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    pub(crate) senders: Senders,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) outgoing: Outgoing,
    pub(crate) admitted_by: AdmittedBy,
}

/// What becomes of mail, before quotas are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is taken, and kept no longer than the mailbox's owner wants.
    Admitted {
        time_to_live: Option<Duration>,
        mailbox: MailboxKind,
    },
    Refused(Unwelcome),
}

/// Whether a mailbox may be made for mail that has none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailboxKind {
    /// Its owner is registered or listed.
    Expected,
    /// Anybody can make up its name: there are only so many.
    MadeUp,
}

/// Whose mail is delivered onward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutgoingRule {
    Nobody,
    /// Those whom the operator let in, by an invite or the list, and these of the strangers that registered here.
    LetInAnd(Vec<ServerGlob>),
}

/// What becomes of mail that is to be delivered onward, before quotas are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnwardAdmission {
    /// Its recipient is registered here and collects it: it lies there as all mail does.
    ForItsOwner(Admission),
    /// It is delivered onward, and lies in a mailbox that may be made for it.
    Onward,
}

/// Why mail is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwelcome {
    /// The recipient has no mailbox here.
    NotServed,
    /// The recipient does not want mail from this origin.
    SenderRefused,
}

/// Whether a server needs an invite to register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InviteRule {
    Needed,
    NotNeeded,
}

impl ServedRule {
    /// What becomes of mail from `origin` for `recipient`, whose registration says `terms`.
    pub(crate) fn admit(
        &self,
        recipient: &ServerName,
        origin: &ServerName,
        terms: Option<&Terms>,
    ) -> Admission {
        let Some(terms) = terms else { return self.admit_unregistered(recipient) };
        if !terms.senders.permit(origin) {
            return Admission::Refused(Unwelcome::SenderRefused);
        }
        let time_to_live = terms.time_to_live;
        Admission::Admitted { time_to_live, mailbox: MailboxKind::Expected }
    }

    fn admit_unregistered(&self, recipient: &ServerName) -> Admission {
        let admitted = |mailbox| Admission::Admitted { time_to_live: None, mailbox };
        match self.serve {
            Serve::Open => admitted(MailboxKind::MadeUp),
            Serve::Listed if self.lists(recipient) => admitted(MailboxKind::Expected),
            Serve::Listed | Serve::Invited => Admission::Refused(Unwelcome::NotServed),
        }
    }

    /// Whether `server`, which is not registered, needs an invite to become so.
    pub(crate) fn invite_of(&self, server: &ServerName) -> InviteRule {
        match self.serve {
            Serve::Open => InviteRule::NotNeeded,
            Serve::Listed if self.lists(server) => InviteRule::NotNeeded,
            Serve::Listed | Serve::Invited => InviteRule::Needed,
        }
    }

    /// By whose word `server` would be registered without an invite. Whoever is listed stays, should the relay be open for a
    /// while.
    pub(crate) fn word_for(&self, server: &ServerName) -> AdmittedBy {
        if self.lists(server) { AdmittedBy::Operator } else { AdmittedBy::Nobody }
    }

    fn lists(&self, server: &ServerName) -> bool {
        self.listed.iter().any(|pattern| pattern.matches(server))
    }
}

impl OutgoingRule {
    /// Whether the mail of `origin`, whose registration says `terms`, is delivered onward. A relay for everybody would call others for
    /// whoever makes up a name, so that strangers need the operator's word.
    pub(crate) fn serves(&self, origin: &ServerName, terms: Option<&Terms>) -> bool {
        let Some(terms) = terms.filter(|terms| terms.outgoing == Outgoing::Yes) else {
            return false;
        };
        match self {
            Self::Nobody => false,
            Self::LetInAnd(strangers) => {
                terms.admitted_by == AdmittedBy::Operator
                    || strangers.iter().any(|pattern| pattern.matches(origin))
            }
        }
    }
}

impl ServedRule {
    /// What becomes of mail from `origin`, which may have it delivered onward, for `recipient`, whose registration says `terms`.
    pub(crate) fn admit_onward(
        &self,
        recipient: &ServerName,
        origin: &ServerName,
        terms: Option<&Terms>,
    ) -> OnwardAdmission {
        match terms {
            Some(_) => OnwardAdmission::ForItsOwner(self.admit(recipient, origin, terms)),
            None => OnwardAdmission::Onward,
        }
    }
}

impl Unwelcome {
    /// The word in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotServed => "not_served",
            Self::SenderRefused => "sender_refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn rule(serve: Serve) -> ServedRule {
        let listed = ["b.example", "*.c.example"].map(|pattern| pattern.parse().unwrap());
        ServedRule { serve, listed: listed.into() }
    }

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn admit(serve: Serve, recipient: &str, terms: Option<&Terms>) -> Admission {
        rule(serve).admit(&name(recipient), &name("a.example"), terms)
    }

    fn admitted(mailbox: MailboxKind) -> Admission {
        Admission::Admitted { time_to_live: None, mailbox }
    }

    const NOT_SERVED: Admission = Admission::Refused(Unwelcome::NotServed);

    #[test]
    fn an_open_relay_takes_mail_for_everybody_and_counts_the_mailboxes_of_strangers() {
        assert_eq!(admit(Serve::Open, "x.example", None), admitted(MailboxKind::MadeUp));
        let terms = Terms::default();
        let registered = admit(Serve::Open, "x.example", Some(&terms));
        assert_eq!(registered, admitted(MailboxKind::Expected));
    }

    #[test]
    fn a_relay_for_invited_servers_takes_mail_for_the_registered_alone() {
        let terms = Terms::default();
        assert_eq!(admit(Serve::Invited, "b.example", None), NOT_SERVED, "the list is not in use");
        let registered = admit(Serve::Invited, "x.example", Some(&terms));
        assert_eq!(registered, admitted(MailboxKind::Expected));
    }

    #[test]
    fn a_relay_for_listed_servers_takes_mail_for_them_and_for_the_registered() {
        let terms = Terms::default();
        for listed in ["b.example", "b.example:8448", "x.c.example"] {
            assert_eq!(admit(Serve::Listed, listed, None), admitted(MailboxKind::Expected));
        }
        for other in ["c.example", "x.example", "bb.example"] {
            assert_eq!(admit(Serve::Listed, other, None), NOT_SERVED);
            let registered = admit(Serve::Listed, other, Some(&terms));
            assert_eq!(registered, admitted(MailboxKind::Expected));
        }
    }

    #[test]
    fn the_owner_says_who_may_leave_mail_and_how_long_it_is_kept() {
        let senders = |json: &str| serde_json::from_str::<Senders>(json).unwrap();
        let open = Terms { time_to_live: Some(DAY), ..Terms::default() };
        for serve in [Serve::Open, Serve::Invited, Serve::Listed] {
            let kept =
                Admission::Admitted { time_to_live: Some(DAY), mailbox: MailboxKind::Expected };
            assert_eq!(admit(serve, "b.example", Some(&open)), kept);
            for closed in [r#"{"allow":["d.example"]}"#, r#"{"block":["a.*"]}"#, r#"{"allow":[]}"#]
            {
                let terms = Terms { senders: senders(closed), ..Terms::default() };
                let refused = Admission::Refused(Unwelcome::SenderRefused);
                assert_eq!(admit(serve, "b.example", Some(&terms)), refused, "{closed}");
            }
        }
    }

    #[test]
    fn mail_goes_onward_unless_its_recipient_is_registered_and_then_the_recipient_decides() {
        let onward = |serve, recipient: &str, terms: Option<&Terms>| {
            rule(serve).admit_onward(&name(recipient), &name("a.example"), terms)
        };
        for serve in [Serve::Open, Serve::Invited, Serve::Listed] {
            assert_eq!(onward(serve, "x.example", None), OnwardAdmission::Onward);
            assert_eq!(onward(serve, "b.example", None), OnwardAdmission::Onward);
            let owner = OnwardAdmission::ForItsOwner(admitted(MailboxKind::Expected));
            assert_eq!(onward(serve, "x.example", Some(&Terms::default())), owner);
            let senders = serde_json::from_str(r#"{"block":["a.*"]}"#).unwrap();
            let closed = Terms { senders, ..Terms::default() };
            let refused =
                OnwardAdmission::ForItsOwner(Admission::Refused(Unwelcome::SenderRefused));
            assert_eq!(onward(serve, "x.example", Some(&closed)), refused);
        }
    }

    #[test]
    fn only_listed_origins_have_mail_delivered_onward() {
        let asked = Terms { outgoing: Outgoing::Yes, ..Terms::default() };
        let rule = OutgoingRule::LetInAnd(vec!["*.a.example".parse().unwrap()]);
        let (a, b) = (name("x.a.example"), name("b.example"));
        assert!(rule.serves(&a, Some(&asked)) && !rule.serves(&b, Some(&asked)));
        assert!(!rule.serves(&a, Some(&Terms::default())) && !rule.serves(&a, None));
        assert!(!OutgoingRule::Nobody.serves(&a, Some(&asked)));
        assert!(!OutgoingRule::LetInAnd(Vec::new()).serves(&a, Some(&asked)));
        let let_in = Terms { admitted_by: AdmittedBy::Operator, ..asked };
        assert!(rule.serves(&b, Some(&let_in)) && !OutgoingRule::Nobody.serves(&b, Some(&let_in)));
    }

    #[test]
    fn an_invite_is_needed_where_a_stranger_would_not_be_served() {
        let needs = |serve, server| rule(serve).invite_of(&name(server));
        assert_eq!(needs(Serve::Open, "x.example"), InviteRule::NotNeeded);
        assert_eq!(needs(Serve::Invited, "b.example"), InviteRule::Needed);
        assert_eq!(needs(Serve::Listed, "b.example"), InviteRule::NotNeeded);
        assert_eq!(needs(Serve::Listed, "x.example"), InviteRule::Needed);
    }
}
