//! All tests of the whole program in one binary: the rules of the repository, generated pages, and what runs against
//! the program. The harness is the crate `liveqos-testkit` (`tests/support`).

mod e2e;
mod generated;
mod tidy;
