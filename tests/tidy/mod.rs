//! The rules of this repository, as tests: what a reviewer would otherwise have to check in every change.

mod alerts;
mod comment_width;
mod dashboards;
mod dependencies;
mod file_size;
mod fixtures;
mod links;
mod metrics;
mod promql;
mod repository;
mod rules;
mod unit;
mod words;
