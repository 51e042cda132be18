//! `restante doctor`: tries everything that a relay or a node needs, step by step, and says what to do where one fails.

mod caller;
mod certificate;
mod door;
mod files;
mod node;
mod outside;
mod relay;
mod report;
mod throwaway;

use std::process::ExitCode;

use crate::args::DoctorSubject;
use report::{Output, Report};

/// Examines one program; the exit code tells whether a step failed.
pub(crate) async fn run(subject: DoctorSubject) -> anyhow::Result<ExitCode> {
    let report = match subject {
        DoctorSubject::Relay { config, long_poll, json } => {
            let mut report = Report::new(Output::of(json));
            relay::examine(&mut report, &config, relay::LongPoll::of(long_poll)).await;
            report
        }
        DoctorSubject::Node { config, json } => {
            let mut report = Report::new(Output::of(json));
            node::examine(&mut report, &config).await;
            report
        }
    };
    Ok(report.finish())
}
