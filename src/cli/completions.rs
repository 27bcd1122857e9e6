//! `purser completions`: a script that teaches a shell the commands.

use clap::CommandFactory;

use super::{Cli, CliError, Exit, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  purser completions bash > /etc/bash_completion.d/purser\n  purser completions zsh > \"${fpath[1]}/_purser\"")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "purser", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
