//! The judge against a labelled corpus: classes of five to fifty thousand viewers, healthy and faulty, made from seeds.

#![expect(clippy::print_stdout, reason = "the long runs print their tables")]

mod causes;
mod choice;
mod crowd;
mod dice;
mod disturbed;
mod faults;
mod life;
mod rivals;
mod table;
mod world;
