//! Joining, leaving and keeping registrations up, over scripted relays.
