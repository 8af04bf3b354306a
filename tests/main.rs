//! All tests of the whole in one binary: the rules of the repository, and what runs against the program.

mod beacon;
mod cli;
mod generated;
mod hostile;
mod notify;
mod paths;
mod players;
mod support;
mod tidy;
