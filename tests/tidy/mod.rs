//! The rules of this repository, as tests: what a reviewer would otherwise have to look for in every change.

mod alerts;
mod dashboards;
mod dependencies;
mod fixtures;
mod links;
mod metrics;
mod promql;
mod repository;
mod rules;
mod sizes;
mod unit;
mod words;
