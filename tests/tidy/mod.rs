//! The rules of this repository, as tests: what a reviewer would otherwise have to check in every change.

mod alerts;
mod comment_width;
mod dashboards;
mod dependencies;
pub(crate) mod directions;
mod file_size;
mod fixtures;
mod links;
mod metrics;
pub(crate) mod modules;
mod private_language;
mod promql;
pub(crate) mod repository;
mod rules;
mod unit;
mod words;
