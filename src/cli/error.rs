//! How a command ends: an exit code, or an error that says what failed, why, and what to do next.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// What the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the world did not cooperate.
    Failed,
    /// 2: the command line or a file does not make sense.
    Usage,
    /// 3: done, and something was found that a person should look at (a job that cannot run, a total that differs).
    Found,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Found => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error for a person: `error: what: why` and `hint: what next`. The why is the chain of sources.
#[derive(Debug)]
pub struct CliError {
    what: String,
    hint: Option<String>,
    exit: Exit,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// Something outside failed (exit code 1).
    pub fn failed(what: impl Into<String>) -> CliError {
        CliError { what: what.into(), hint: None, exit: Exit::Failed, source: None }
    }

    /// What was asked for does not make sense (exit code 2).
    pub fn usage(what: impl Into<String>) -> CliError {
        CliError { exit: Exit::Usage, ..CliError::failed(what) }
    }

    /// What to do next.
    pub fn hint(self, hint: impl Into<String>) -> CliError {
        CliError { hint: Some(hint.into()), ..self }
    }

    /// Why it failed.
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> CliError {
        CliError { source: Some(source.into()), ..self }
    }

    pub const fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

/// What and why on one line, each cause once: many libraries repeat their source in their own text.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut said = self.what.clone();
        let mut cause = self.source.as_deref().map(|source| source as &(dyn Error + 'static));
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not read the file: {source}")]
    struct Outer {
        source: std::io::Error,
    }

    #[test]
    fn an_error_says_what_why_and_what_next_and_nothing_twice() {
        let error = CliError::failed("cannot plan").because(Outer { source: std::io::Error::other("no such file") }).hint("write it first");
        assert_eq!(error.to_string(), "cannot plan: could not read the file: no such file\nhint: write it first");
        assert_eq!(error.exit(), Exit::Failed);
    }
}
