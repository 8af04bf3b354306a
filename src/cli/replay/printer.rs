//! Prints samples and notices of a replay as they occur, as text or as lines of JSON.

use std::io::Write;

use anyhow::Result;
use liveqos_core::model::Sample;
use liveqos_core::pipeline::Tick;
use serde_json::json;

use crate::cli::top;
use crate::engine::{notice_json, sample_json};
use crate::platform::rfc3339;

/// The output and its form.
pub(super) struct Printer<W> {
    pub(super) out: W,
    pub(super) json: bool,
}

impl<W: Write> Printer<W> {
    /// Prints the samples and notices of a tick.
    pub(super) fn show(&mut self, tick: &Tick) -> Result<()> {
        for notice in &tick.notices {
            if self.json {
                serde_json::to_writer(&mut self.out, &json!({ "notice": notice_json(notice) }))
                    .map_err(std::io::Error::from)?;
                writeln!(self.out)?;
            } else {
                let cause = notice.cause.as_str();
                let why = if notice.why.is_empty() { String::new() } else { format!(": {}", notice.why.join("; ")) };
                let (at, summary) = (rfc3339::text(notice.at), notice.summary());
                writeln!(self.out, "{at}  {:?} {} {summary}; cause {cause}{why}", notice.state, notice.alert.as_str())?;
            }
        }
        for sample in &tick.batch.samples {
            self.sample(sample)?;
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample) -> Result<()> {
        let session = &sample.session;
        if self.json {
            let mut value = sample_json(sample);
            value["session_id"] = json!(session.id);
            value["stream"] = json!(session.stream);
            serde_json::to_writer(&mut self.out, &value).map_err(std::io::Error::from)?;
            return Ok(writeln!(self.out)?);
        }
        Ok(writeln!(self.out, "{}  {:24} {}", rfc3339::text(sample.window.end), session.id, top::line(sample))?)
    }
}
