//! Long lists come in pages: `?after=…&limit=…`, answered with `{"items":[…],"next":…}`.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::answer::{Refusal, bad_request};

/// Items of a page unless the operator says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// Items that one page may hold: a thousand lines of a few hundred bytes.
const LIMIT_MAX: usize = 1000;

/// Which page is asked for.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before; absent for the first.
    after: Option<String>,
    /// Items at most; 100 unless given, and never more than 1000.
    limit: Option<usize>,
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; `null` at the end.
    pub next: Option<String>,
}

/// `after` is not of the list's form.
#[derive(Debug, thiserror::Error)]
#[error("after={0}: {1}; take next of the page before")]
pub struct PageQueryError(String, String);

impl PageQuery {
    /// The item to go on after.
    pub fn after<T: FromStr<Err: Display>>(&self) -> Result<Option<T>, PageQueryError> {
        let parse = |text: &String| {
            text.parse().map_err(|error: T::Err| PageQueryError(text.clone(), error.to_string()))
        };
        self.after.as_ref().map(parse).transpose()
    }

    /// Items at most.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
    }
}

impl<T> Page<T> {
    /// The page of at most `limit` of `items`, which holds one more than that if the list goes on.
    pub fn of(mut items: Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> Self {
        let goes_on = items.len() > limit;
        items.truncate(limit);
        let next = if goes_on { items.last().map(name) } else { None };
        Self { items, next }
    }
}

impl From<PageQueryError> for Refusal {
    fn from(error: PageQueryError) -> Self {
        bad_request(error.to_string())
    }
}
