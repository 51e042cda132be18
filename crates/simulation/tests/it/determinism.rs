//! A seed decides everything.

use restante_simulation::{Options, run};

#[test]
fn the_same_seed_takes_the_same_course_again() {
    for seed in 1..=10 {
        let (one, other) = (run(seed, Options::default()), run(seed, Options::default()));
        if one.digest != other.digest {
            let mut pairs = one.story.iter().zip(&other.story);
            let first = pairs.position(|(one, other)| one != other).unwrap_or(0);
            panic!("seed {seed}, line {first}:\n{}\n{}", one.story[first], other.story[first]);
        }
    }
}
