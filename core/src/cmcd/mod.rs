//! FACE

mod decode;
mod report;
mod structured_field;

pub use self::report::{Cmcd, CmcdError, Event, List, MAX_SID, NEWEST_VERSION, ObjectType, State, records};
pub use self::structured_field::Text;
