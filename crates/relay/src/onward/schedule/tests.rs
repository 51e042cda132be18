//! When destinations are called, in virtual time.

use proptest::prelude::*;

use super::*;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(30), max: Duration::from_secs(3600) };

fn name(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn called(schedule: &mut Schedule, now: Instant) -> Option<String> {
    match schedule.next(now) {
        Next::Call(call) => Some(call.destination.to_string()),
        _ => None,
    }
}

/// The call that is due at `now`, and the end of it in vain.
fn call_in_vain(schedule: &mut Schedule, now: Instant) -> Option<String> {
    let destination = called(schedule, now)?;
    end_in_vain(schedule, &destination, now);
    Some(destination)
}

fn end_in_vain(schedule: &mut Schedule, destination: &str, now: Instant) {
    let ended = Ended::Unreachable(Some(name("a.example")));
    schedule.ended(&name(destination), ended, (now, BACKOFF, 1.0));
}

#[tokio::test(start_paused = true)]
async fn mail_is_delivered_at_once_and_one_visit_does_for_all_of_it() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    for _ in 0..100 {
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
    }
    assert_eq!(called(&mut schedule, now).as_deref(), Some("b.example"));
    assert_eq!(schedule.next(now + seconds(100)), Next::Nothing);
    schedule.ended(&name("b.example"), Ended::Drained, (now, BACKOFF, 0.0));
    assert_eq!((schedule.next(now), schedule.destinations()), (Next::Nothing, 0));
}

#[tokio::test(start_paused = true)]
async fn mail_that_comes_during_a_visit_has_another() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    called(&mut schedule, now).unwrap();
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    schedule.ended(&name("b.example"), Ended::Drained, (now, BACKOFF, 0.0));
    assert_eq!(called(&mut schedule, now + VISITS_APART).as_deref(), Some("b.example"));
}

#[tokio::test(start_paused = true)]
async fn a_dark_destination_is_called_some_thirty_times_a_day_whatever_is_left_for_it() {
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    let (mut now, mut calls) = (begun, 0);
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    while now < begun + seconds(24 * 3600) {
        match schedule.next(now) {
            Next::Call(_) => {
                calls += 1;
                end_in_vain(&mut schedule, "b.example", now + seconds(10));
            }
            Next::At(at) => now = at,
            Next::Nothing => unreachable!("mail waits"),
        }
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
    }
    assert!((25..=35).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_calls_at_once_but_not_again_and_again() {
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), begun, Duration::ZERO);
    called(&mut schedule, begun).unwrap();
    end_in_vain(&mut schedule, "b.example", begun);
    let later = begun + seconds(20);
    assert_eq!(called(&mut schedule, later), None);
    assert!(schedule.heard(&name("b.example"), later));
    assert_eq!(called(&mut schedule, later).as_deref(), Some("b.example"));
    end_in_vain(&mut schedule, "b.example", later);
    assert!(schedule.heard(&name("b.example"), later));
    assert_eq!(called(&mut schedule, later), None);
    assert_eq!(called(&mut schedule, later + 2 * SAME_APART).as_deref(), Some("b.example"));
    assert!(!schedule.heard(&name("c.example"), later), "nothing waits for it");
}

#[tokio::test(start_paused = true)]
async fn whoever_calls_all_the_time_and_takes_nothing_is_called_less_and_less() {
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), begun, Duration::ZERO);
    let mut calls = 0;
    for second in 0..24 * 3600 {
        let now = begun + seconds(second);
        schedule.heard(&name("b.example"), now);
        calls += usize::from(call_in_vain(&mut schedule, now).is_some());
    }
    assert!((20..60).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn names_that_lead_nowhere_leave_room_for_those_that_answer() {
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    let mut now = begun;
    for number in 0..100 {
        schedule.wanted(&name(&format!("dark{number}.example")), begun, Duration::ZERO);
        assert!(call_in_vain(&mut schedule, now).is_some());
        now += VISITS_APART;
    }
    now += seconds(3600);
    for _ in 0..VISITS_IN_VAIN_MAX {
        assert!(called(&mut schedule, now).is_some());
        now += VISITS_APART;
    }
    assert_eq!(schedule.next(now), Next::Nothing);
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    assert_eq!(called(&mut schedule, now).as_deref(), Some("b.example"));
    // One that shows life is one of those.
    assert!(schedule.heard(&name("dark99.example"), now));
    let next = called(&mut schedule, now + VISITS_APART);
    assert_eq!(next.as_deref(), Some("dark99.example"));
}

#[tokio::test(start_paused = true)]
async fn what_rests_does_not_hold_up_what_comes_meanwhile() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    called(&mut schedule, now).unwrap();
    let later = Ended::Later(now + seconds(3600), Some(name("z.example")));
    schedule.ended(&name("b.example"), later, (now, BACKOFF, 1.0));
    assert_eq!(called(&mut schedule, now + seconds(60)), None);
    schedule.wanted(&name("b.example"), now + seconds(60), Duration::ZERO);
    let Next::Call(call) = schedule.next(now + seconds(60)) else { panic!("it is due") };
    assert_eq!(call.begin_after, Some(name("z.example")), "others have their turn first");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_delivered_from_now_on_is_looked_for_once_more_after_a_visit_under_way() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    called(&mut schedule, now).unwrap();
    schedule.look_anew(now);
    let later = Ended::Later(now + seconds(3600), None);
    schedule.ended(&name("b.example"), later, (now, BACKOFF, 1.0));
    assert_eq!(called(&mut schedule, now + SAME_APART), Some("b.example".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_turn_at_the_target_goes_on_behind_the_same_origin() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    let (b, a) = (name("b.example"), Some(name("a.example")));
    schedule.wanted(&b, now, Duration::ZERO);
    called(&mut schedule, now).unwrap();
    schedule.ended(&b, Ended::Later(now + seconds(60), a.clone()), (now, BACKOFF, 1.0));
    let Next::Call(call) = schedule.next(now + seconds(60)) else { panic!("it is due") };
    let postponed = Ended::Postponed(now + seconds(90), Admitted::Yes, call.begin_after);
    schedule.ended(&b, postponed, (now + seconds(60), BACKOFF, 1.0));
    let Next::Call(call) = schedule.next(now + seconds(90)) else { panic!("it is due") };
    assert_eq!((call.begin_after, call.admitted), (a, Admitted::Yes));
}

#[tokio::test(start_paused = true)]
async fn life_during_a_visit_in_vain_calls_soon_again() {
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), begun, Duration::ZERO);
    called(&mut schedule, begun).unwrap();
    assert!(schedule.heard(&name("b.example"), begun));
    end_in_vain(&mut schedule, "b.example", begun + seconds(1));
    assert_eq!(schedule.next(begun + seconds(1)), Next::At(begun + SAME_APART));
}

#[tokio::test(start_paused = true)]
async fn servers_at_one_host_are_called_one_after_the_other() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    for port in 1..=50 {
        let host = if port % 2 == 0 { "victim.example" } else { "Victim.Example" };
        schedule.wanted(&name(&format!("{host}:{port}")), now, Duration::ZERO);
    }
    let first = called(&mut schedule, now).unwrap();
    assert_eq!(called(&mut schedule, now + seconds(1)), None);
    end_in_vain(&mut schedule, &first, now);
    assert!(called(&mut schedule, now + seconds(1)).is_some());
}

#[tokio::test(start_paused = true)]
async fn visits_at_once_are_bounded_and_begin_apart() {
    let (mut schedule, begun) = (Schedule::default(), Instant::now());
    for number in 0..100 {
        schedule.wanted(&name(&format!("b{number}.example")), begun, Duration::ZERO);
    }
    assert!(called(&mut schedule, begun).is_some());
    assert_eq!(schedule.next(begun), Next::At(begun + VISITS_APART));
    let mut now = begun;
    for _ in 1..VISITS_MAX {
        now += VISITS_APART;
        assert!(called(&mut schedule, now).is_some());
    }
    assert_eq!(schedule.next(now + seconds(1)), Next::Nothing);
}

#[tokio::test(start_paused = true)]
async fn the_visit_after_one_in_vain_begins_with_another_origin() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    schedule.wanted(&name("b.example"), now, Duration::ZERO);
    called(&mut schedule, now).unwrap();
    end_in_vain(&mut schedule, "b.example", now);
    let Next::Call(call) = schedule.next(now + seconds(40)) else { panic!("it is due") };
    assert_eq!(call.begin_after, Some(name("a.example")));
}

proptest! {
    #[test]
    fn whatever_happens_each_destination_is_called_by_one_visit_at_a_time(
        steps in prop::collection::vec((0..4_u8, 0..5_u8, 0..100_u64), 1..200)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let mut under_way = BTreeSet::new();
        for (what, number, wait) in steps {
            let destination = name(&format!("b{number}.example"));
            now += seconds(wait);
            match what {
                0 => schedule.wanted(&destination, now, Duration::ZERO),
                1 => drop(schedule.heard(&destination, now)),
                2 => if let Next::Call(call) = schedule.next(now) {
                    prop_assert!(under_way.insert(call.destination));
                },
                _ => if under_way.remove(&destination) {
                    end_in_vain(&mut schedule, destination.as_str(), now);
                },
            }
        }
        // Nothing is lost: whatever waits is called in the end.
        for destination in std::mem::take(&mut under_way) {
            end_in_vain(&mut schedule, destination.as_str(), now);
        }
        let waiting = schedule.destinations();
        now += BACKOFF.max;
        let mut calls = 0;
        while calls < waiting {
            now += VISITS_APART;
            let destination = called(&mut schedule, now);
            prop_assert!(destination.is_some());
            let drained = (now, BACKOFF, 1.0);
            schedule.ended(&name(&destination.unwrap()), Ended::Drained, drained);
            calls += 1;
        }
    }
}
