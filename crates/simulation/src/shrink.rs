//! Cuts a plan that fails down to what it needs to fail.

use std::time::Duration;

use crate::plan::{Ending, Manner, Plan};
use crate::run::{Options, run_plan};

/// The calmest network that is drawn.
const LATENCY_LEAST: Duration = Duration::from_millis(20);

/// The smallest plan found that fails as well, if `plan` does. A smaller plan takes a course of its own, so that it may
/// fail in another way; every plan must keep the promises, whatever it leaves out.
///
/// At most `tries_max` plans are played.
pub fn shrink(plan: &Plan, options: Options, tries_max: usize) -> Plan {
    let mut tries = 0;
    smallest(plan.clone(), |plan| {
        tries += 1;
        tries <= tries_max && !run_plan(plan.clone(), options).failures.is_empty()
    })
}

fn smallest(mut plan: Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    loop {
        let before = plan.clone();
        plan = without_steps(plan, &mut fails);
        for calmer in [calm_network, right_clocks, honest_relays, nobody_leaves] {
            let mut candidate = plan.clone();
            calmer(&mut candidate);
            if candidate != plan && fails(&candidate) {
                plan = candidate;
            }
        }
        if plan == before {
            return plan;
        }
    }
}

/// Leaves out runs of steps that it can do without, long ones first and from the end: what came late matters least.
fn without_steps(mut plan: Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let mut length = plan.steps.len();
    while length > 0 {
        let mut end = plan.steps.len();
        while end > 0 {
            let start = end.saturating_sub(length);
            let mut shorter = plan.clone();
            shorter.steps.drain(start..end);
            if fails(&shorter) {
                plan = shorter;
            }
            end = start;
        }
        length /= 2;
    }
    plan
}

fn calm_network(plan: &mut Plan) {
    plan.loss_permille = 0;
    plan.latency_max = LATENCY_LEAST;
}

fn right_clocks(plan: &mut Plan) {
    plan.servers.iter_mut().for_each(|server| server.clock_error_ms = 0);
    plan.relays.iter_mut().for_each(|relay| relay.clock_error_ms = 0);
}

fn honest_relays(plan: &mut Plan) {
    plan.relays.iter_mut().for_each(|relay| relay.manner = Manner::Honest);
}

fn nobody_leaves(plan: &mut Plan) {
    plan.ending = Ending::Everybody;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Step;

    #[test]
    fn what_is_not_needed_is_left_out_and_the_rest_stays_in_its_order() {
        let mut plan = (0..)
            .map(Plan::draw)
            .find(|plan| plan.steps.len() > 40 && plan.loss_permille > 0)
            .expect("some plans are long and lossy");
        let (first, last) = (Step::ServerOff(0), Step::NodeRestart(1));
        plan.steps.insert(7, (Duration::ZERO, first.clone()));
        plan.steps.insert(33, (Duration::ZERO, last.clone()));
        let place = |plan: &Plan, step: &Step| plan.steps.iter().position(|(_, it)| it == step);
        let small = smallest(plan, |plan| {
            matches!((place(plan, &first), place(plan, &last)), (Some(one), Some(other)) if one < other)
                && plan.loss_permille > 0
        });
        let steps: Vec<&Step> = small.steps.iter().map(|(_, step)| step).collect();
        assert_eq!(steps, [&first, &last]);
        assert!(small.loss_permille > 0, "it is needed");
        assert_eq!(small.ending, Ending::Everybody);
        assert!(small.relays.iter().all(|relay| relay.manner == Manner::Honest));
    }

    #[test]
    fn a_plan_that_may_not_be_tried_again_stays_as_it_is() {
        let plan = Plan::draw(3);
        assert_eq!(shrink(&plan, Options::default(), 0), plan);
    }
}
