//! Whether a room's `m.room.server_acl` lets a server take part. Only the pattern `*` stands for more than itself.

use serde_json::Value;

/// Whether the content of an ACL event permits `server`.
pub(crate) fn permits(content: &Value, server: &str) -> bool {
    let is_in = |list: &str| {
        let patterns = content[list].as_array().map(Vec::as_slice).unwrap_or_default();
        patterns.iter().filter_map(Value::as_str).any(|pattern| pattern == "*" || pattern == server)
    };
    is_in("allow") && !is_in("deny")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_denied_or_not_allowed_stays_out() {
        let acl = json!({"allow": ["*"], "deny": ["b.test"]});
        assert!(permits(&acl, "a.test"));
        assert!(!permits(&acl, "b.test"));
        assert!(!permits(&json!({"allow": []}), "a.test"));
    }
}
