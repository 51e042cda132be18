//! What can't be meant by `[log]`.

use restante_operators::LogSection;

use super::finding::Remark;
use crate::logging;

pub(super) fn remark(section: &LogSection) -> Option<Remark> {
    let error = logging::parsed(&section.filter).err()?;
    let text = format!("{error:#}; write info, or info,restante_relay=debug");
    Some(Remark::wrong("log.filter", text))
}
