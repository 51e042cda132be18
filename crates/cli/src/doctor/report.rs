//! What a doctor saw: one line a step, as it goes, or all of it as JSON.

use std::process::ExitCode;

use serde::Serialize;

use crate::table::printable;

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warn,
    Failed,
    Skipped,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) seen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) what_to_do: Option<String>,
}

/// What came of a step, before it has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) seen: String,
    what_to_do: Option<String>,
}

impl Outcome {
    pub(super) fn ok(seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, seen: seen.into(), what_to_do: None }
    }

    pub(super) fn warn(seen: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, seen: seen.into(), what_to_do: Some(what_to_do.into()) }
    }

    pub(super) fn failed(seen: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, seen: seen.into(), what_to_do: Some(what_to_do.into()) }
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, seen: why.into(), what_to_do: None }
    }

    pub(super) fn is_failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

/// Where a report goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Each step as soon as it is done.
    Text,
    /// Everything at the end.
    Json,
}

impl Output {
    pub(super) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// The steps so far.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Whole<'a> {
    healthy: bool,
    steps: &'a [Step],
}

impl Report {
    pub(super) fn new(output: Output) -> Self {
        Self { output, steps: Vec::new() }
    }

    /// Notes a step, and shows it.
    pub(super) fn step(&mut self, name: impl Into<String>, outcome: Outcome) {
        let Outcome { verdict, seen, what_to_do } = outcome;
        let step = Step { name: name.into(), verdict, seen, what_to_do };
        if self.output == Output::Text {
            print!("{}", step.text());
        }
        self.steps.push(step);
    }

    /// Whether any step so far failed.
    pub(super) fn has_failed(&self) -> bool {
        self.steps.iter().any(|step| step.verdict == Verdict::Failed)
    }

    /// Shows the end.
    pub(super) fn finish(self) -> ExitCode {
        let failed = self.has_failed();
        match self.output {
            Output::Text => println!("\n{}", self.summary()),
            Output::Json => {
                let whole = Whole { healthy: !failed, steps: &self.steps };
                let json = serde_json::to_string_pretty(&whole);
                println!("{}", json.expect("structs of texts are JSON"));
            }
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn summary(&self) -> String {
        let count = |verdict| self.steps.iter().filter(|step| step.verdict == verdict).count();
        let (warnings, failures, skipped) =
            (count(Verdict::Warn), count(Verdict::Failed), count(Verdict::Skipped));
        if failures > 0 {
            return format!("{failures} failed, {warnings} with a warning, {skipped} skipped");
        }
        match (warnings, skipped) {
            (0, 0) => "everything is as it should be".to_owned(),
            _ => format!("nothing failed, {warnings} with a warning, {skipped} skipped"),
        }
    }

    #[cfg(test)]
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "WARNING",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        let mut text = format!("{verdict:<8} {}: {}\n", self.name, printable(&self.seen));
        if let Some(what_to_do) = &self.what_to_do {
            text.push_str(&format!("         what to do: {}\n", printable(what_to_do)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_says_what_to_do_and_fails_the_whole() {
        let mut report = Report::new(Output::Json);
        report.step("disk", Outcome::ok("9 GiB free"));
        report.step("tls", Outcome::failed("expired", "renew it"));
        assert!(report.has_failed());
        assert_eq!(report.summary(), "1 failed, 0 with a warning, 0 skipped");
        let text = report.steps()[1].text();
        assert_eq!(text, "FAILED   tls: expired\n         what to do: renew it\n");
    }

    #[test]
    fn warnings_and_skipped_steps_are_no_failure() {
        let mut report = Report::new(Output::Json);
        report.step("clock", Outcome::warn("3 s off", "set it"));
        report.step("dns", Outcome::skipped("the URL has an address"));
        assert!(!report.has_failed());
        assert_eq!(report.summary(), "nothing failed, 1 with a warning, 1 skipped");
    }
}
