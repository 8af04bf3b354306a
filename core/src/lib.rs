//! The rules of liveqos: what a class is, what its figures mean, and when an alert fires. Pure functions of state and
//! time, without clock, socket, file, task or log.
//!
//! Data flows in one direction. Sources are read in [`cmcd`], [`viewer`], [`connection`] and [`access_log`] (players
//! and their requests), [`media`] (RTP and playout) and [`node`] (load and paths); what they find is an
//! [`Observation`](model::Observation) or part of the [`Environment`](model::Environment). The [`pipeline`] folds it:
//!
//! 1. [`session`]: the registry folds observations into live classes and cuts one [`Sample`](model::Sample) per class
//!    every 5 s, on the wall-clock grid that all nodes share;
//! 2. [`alert`]: every 250 ms the evaluator judges the folded totals and gives [`Notice`](model::Notice)s;
//! 3. [`metrics`]: samples add to the node's running sums, exported under the names of the catalogue;
//! 4. [`trace`]: samples and notices become the spans of the class's trace.
//!
//! A [`recording`] contains what the pipeline received, so that a replay gives the same output. [`model`] holds the
//! types of all stages, [`base`] their data structures. Each folder's page says what it decides and what it may import.
pub mod access_log;
pub mod alert;
pub mod base;
pub mod cmcd;
pub mod connection;
pub mod media;
pub mod metrics;
pub mod model;
pub mod node;
pub mod pipeline;
pub mod recording;
pub mod session;
pub mod trace;
pub mod viewer;
