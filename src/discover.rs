//! temp
use crate::intake::source::SourceSettings;
/// a
pub async fn sources() -> Vec<SourceSettings> { Vec::new() }
/// b
pub async fn report() -> String { String::new() }
