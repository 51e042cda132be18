//! The simulation: many seeds, and proof that it can fail and that it repeats itself.

mod determinism;
mod sabotage;
mod seeds;
