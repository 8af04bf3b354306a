//! All tests of the whole program in one binary: the rules of the repository, generated pages, and what runs against
//! the program.

mod e2e;
mod generated;
mod support;
mod tidy;
