//! Runs an experiment and writes its page and its plot: `experiment NAME`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a command that writes files"
)]

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use umbel_tests::experiments::{ALL, Scale};

/// Measures what Umbel's promises come to, in virtual time.
#[derive(Parser)]
struct Args {
    /// Which; without it, all are listed.
    name: Option<String>,
    /// The small form, which tests run.
    #[arg(long)]
    small: bool,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where NAME.md and NAME.svg are written.
    #[arg(long, default_value = "docs/experiments")]
    out: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let Some(name) = args.name else {
        for experiment in ALL {
            println!("{:16} {}", experiment.name, experiment.question);
        }
        return Ok(());
    };
    let known = ALL.iter().find(|experiment| experiment.name == name);
    let experiment = known.ok_or("no such experiment; without a name, all are listed")?;
    let scale = match args.small {
        true => Scale::Small,
        false => Scale::Whole,
    };
    let page = (experiment.run)(scale, args.seed);
    let text = page.to_markdown(experiment, scale, args.seed);
    fs::create_dir_all(&args.out)?;
    fs::write(args.out.join(format!("{name}.md")), &text)?;
    fs::write(args.out.join(format!("{name}.svg")), page.plot.to_svg()?)?;
    println!("{text}");
    Ok(())
}
