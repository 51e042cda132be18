//! What may turn out to have taken effect of calls that failed. Pure.

/// The calls that may be found to have taken effect at the next start, of those that `failed` since the last one, in
/// their order; the likeliest first.
///
/// Nothing; or the first ones, if they shared a commit that was cut short; or one, since each commit takes the place in
/// the log of the one that failed before it.
pub fn possible_effects<T: Clone>(failed: &[T]) -> Vec<Vec<T>> {
    let first = (0..=failed.len()).map(|count| failed[..count].to_vec());
    let single = failed.iter().skip(1).map(|call| vec![call.clone()]);
    first.chain(single).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_the_first_ones_or_any_one_took_effect() {
        assert_eq!(possible_effects::<u8>(&[]), [[0; 0]]);
        let expected = [vec![], vec![1], vec![1, 2], vec![1, 2, 3], vec![2], vec![3]];
        assert_eq!(possible_effects(&[1, 2, 3]), expected);
    }
}
