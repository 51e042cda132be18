//! One wrong bit in a file at rest.

use std::io;
use std::path::Path;

use rand::RngExt as _;

use crate::loss;

/// Changes one bit among the bytes `range` of `file`; the same seed changes the same. Tells which byte.
pub fn flip_bit(file: &Path, range: std::ops::Range<usize>, seed: u64) -> io::Result<usize> {
    let mut bytes = std::fs::read(file)?;
    let range = range.start.min(bytes.len())..range.end.min(bytes.len());
    if range.is_empty() {
        return Err(io::Error::other("the file has no such bytes"));
    }
    let mut rng = loss::rng(seed);
    let at = rng.random_range(range);
    bytes[at] ^= 1 << rng.random_range(0..8);
    std::fs::write(file, bytes)?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_the_range_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for seed in 0..50 {
            std::fs::write(&file, [0; 100]).unwrap();

            let at = flip_bit(&file, 40..60, seed).unwrap();

            let bytes = std::fs::read(&file).unwrap();
            assert!((40..60).contains(&at));
            assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
            assert_ne!(bytes[at], 0);
        }
        assert!(flip_bit(&file, 100..200, 1).is_err());
    }
}
