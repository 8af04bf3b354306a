//! CMCD: what a player reports in a request, a header or an event, decoded and typed.
//!
//! - **Decides**: what each key of CMCD v1 and v2 means, which values are malformed, and which versions are read.
//! - **In**: payload bytes: the `CMCD` query value, the four request headers, records of an event body.
//! - **Out**: a [`Cmcd`] per request or event, borrowed from the payload, to `access_log` and `viewer`.
//! - **May import**: `base`, `model`.

mod decode;
mod report;
mod structured_field;

pub use self::report::{Cmcd, CmcdError, Event, List, MAX_SID, NEWEST_VERSION, ObjectType, State, records};
pub use self::structured_field::Text;
