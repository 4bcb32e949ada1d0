//! What a command line says of the cases that a benchmark has, for its reports.

use clap::ValueEnum;

/// A case as the command line knows it.
pub trait Words: ValueEnum {
    /// As it is given there.
    fn name(&self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// One line that says what it is.
    fn title(&self) -> String {
        let help = self
            .to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }
}
