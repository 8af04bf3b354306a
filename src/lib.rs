<<<<<<< HEAD
<<<<<<< HEAD
//! The shell of liveqos: all input, output, tasks and wiring around the rules in `liveqos-core`.

pub mod intake;
=======
//! The shell of liveqos: all input and output around the rules of `liveqos-core`.

pub mod otlp;
>>>>>>> otlp
=======
//! The shell of liveqos: all input, output, tasks and wiring.

pub mod demo;
>>>>>>> demo
