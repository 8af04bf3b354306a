//! Colour on terminals only, decided by the stream and `NO_COLOR` (no-color.org); pipes and files get plain text.

use std::fmt;
use std::io::IsTerminal as _;

/// Whether standard output supports colour.
#[must_use]
pub(super) fn stdout_supports_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A colour of the terminal's palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// A failure.
    Red,
    /// Success.
    Green,
    /// A warning.
    Yellow,
    /// Secondary text.
    Dim,
}

/// `text` in `colour` if `on`.
#[must_use]
pub(super) fn paint(text: impl fmt::Display, colour: Colour, on: bool) -> String {
    let code = match colour {
        Colour::Red => 31,
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Dim => 2,
    };
    if on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
}
