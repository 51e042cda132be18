//! Reads lists that come in pages: `{"items":[…],"next":"…"|null}`.

use anyhow::Context as _;
use restante_federation_proto::escape_path_segment;
use serde_json::Value;

use crate::admin_client::AdminClient;

/// Items that are asked for at once.
const PAGE_ITEMS: usize = 500;

/// The first items of a list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) items: Vec<Value>,
    /// Whether there are more than were asked for.
    pub(super) goes_on: bool,
}

/// At most `limit` items of the list at `target`, from its beginning.
pub(super) async fn first(
    client: &AdminClient,
    target: &str,
    limit: usize,
) -> anyhow::Result<Listed> {
    let mut items = Vec::new();
    let mut after = None::<String>;
    while items.len() < limit {
        let count = PAGE_ITEMS.min(limit - items.len());
        let after_text =
            after.as_ref().map(|after| format!("&after={}", escape_path_segment(after)));
        let page = client
            .get(&format!("{target}?limit={count}{}", after_text.unwrap_or_default()))
            .await?;
        let found = page["items"].as_array().context("the relay's answer is not a list")?;
        items.extend(found.iter().cloned());
        match page["next"].as_str() {
            Some(next) if !found.is_empty() => after = Some(next.to_owned()),
            _ => return Ok(Listed { items, goes_on: false }),
        }
    }
    items.truncate(limit);
    Ok(Listed { items, goes_on: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    #[tokio::test]
    async fn a_list_is_read_page_by_page_up_to_its_end_or_the_limit() {
        let door = ScriptedDoor::open().await;
        let base = "/_restante/admin/v1/mailboxes";
        door.answer("GET", &format!("{base}?limit=3"), 200, r#"{"items":[1,2],"next":"b:1"}"#);
        door.answer(
            "GET",
            &format!("{base}?limit=1&after=b:1"),
            200,
            r#"{"items":[3],"next":"c"}"#,
        );
        let listed = first(&door.client(), "/mailboxes", 3).await.unwrap();
        assert_eq!((listed.items.len(), listed.goes_on), (3, true));
        door.answer("GET", &format!("{base}?limit=9"), 200, r#"{"items":[1,2],"next":null}"#);
        let listed = first(&door.client(), "/mailboxes", 9).await.unwrap();
        assert_eq!((listed.items.len(), listed.goes_on), (2, false));
    }
}
