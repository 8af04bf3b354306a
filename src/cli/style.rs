//! Colour on terminals only. Decides by the stream and by `NO_COLOR` (no-color.org); pipes and files get plain text.

use std::fmt;
use std::io::IsTerminal as _;

/// Whether standard output takes colour.
#[must_use]
pub(super) fn stdout_takes_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A colour of the terminal's palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// Bad.
    Red,
    /// Good.
    Green,
    /// Worth a look.
    Yellow,
    /// Of less weight.
    Dim,
}

/// Text in a colour, where `on`.
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
