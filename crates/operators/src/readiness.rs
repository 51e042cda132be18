//! `GET /ready`: 200, or 503 with each condition that is not met and what to do about it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::answer::json;

/// A look costs a durable write; whoever asks, and however often, it is at most one a second.
const FRESH: Duration = Duration::from_secs(1);

/// A check that takes longer says by this that something is wrong; monitors wait ten seconds or so.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// One thing that must be so for a program to do its work.
#[async_trait]
pub trait Condition: Send + Sync + 'static {
    /// What operators call it, such as `storage`.
    fn name(&self) -> &'static str;

    /// Whether it is so now.
    async fn check(&self) -> Result<(), Unmet>;
}

/// Why a condition is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// What is wrong.
    pub problem: String,
    /// What the operator does about it.
    pub what_to_do: String,
}

/// Whether a program is ready, as the door answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ReadyReport {
    /// Whether every condition is met.
    pub ready: bool,
    /// Those that are not.
    pub not_met: Vec<UnmetCondition>,
}

/// One condition that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct UnmetCondition {
    /// Its name.
    #[schema(value_type = String)]
    pub condition: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub what_to_do: String,
}

/// All conditions of a program.
pub struct Readiness {
    conditions: Vec<Arc<dyn Condition>>,
    last: Mutex<Option<(Instant, ReadyReport)>>,
}

impl Readiness {
    /// A program that is ready when all of `conditions` are met.
    pub fn of(conditions: Vec<Arc<dyn Condition>>) -> Self {
        Self { conditions, last: Mutex::default() }
    }

    /// What is so now, or was a second ago.
    pub async fn look(&self) -> ReadyReport {
        // Held over the look, so that many who ask at once cause one.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let mut not_met = Vec::new();
        for condition in &self.conditions {
            if let Err(unmet) = check(condition.as_ref()).await {
                not_met.push(unmet);
            }
        }
        let report = ReadyReport { ready: not_met.is_empty(), not_met };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

async fn check(condition: &dyn Condition) -> Result<(), UnmetCondition> {
    let late = || Unmet {
        problem: format!("no answer within {} s", CHECK_TIMEOUT.as_secs()),
        what_to_do: "see the log; if it stays so, look at the disk's load, and restart".to_owned(),
    };
    let outcome = timeout(CHECK_TIMEOUT, condition.check()).await;
    outcome.unwrap_or_else(|_| Err(late())).map_err(|unmet| UnmetCondition {
        condition: condition.name(),
        problem: unmet.problem,
        what_to_do: unmet.what_to_do,
    })
}

pub(crate) async fn handle(State(readiness): State<Arc<Readiness>>) -> Response {
    let report = readiness.look().await;
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, serde_json::to_vec(&report).expect("a struct of texts is JSON"))
}
