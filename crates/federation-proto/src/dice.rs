//! The seam through which shells draw random numbers.

/// Draws random numbers. Rules take a number; only shells hold dice.
pub trait Dice: Send + Sync + 'static {
    /// A number, each as likely as any other.
    fn number(&self) -> u64;

    /// A fraction in `0.0..1.0`.
    fn fraction(&self) -> f64 {
        // 53 bits are what the fraction of an f64 holds.
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDice;

impl Dice for SystemDice {
    fn number(&self) -> u64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Loaded(u64);

    impl Dice for Loaded {
        fn number(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn fractions_lie_between_nought_and_one() {
        assert_eq!(Loaded(0).fraction(), 0.0);
        assert_eq!(Loaded(1 << 63).fraction(), 0.5);
        assert!(Loaded(u64::MAX).fraction() < 1.0);
    }
}
