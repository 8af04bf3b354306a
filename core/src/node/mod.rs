//! FACE

pub mod load;
pub mod path_loss;
pub mod path_window;
pub mod ping;
