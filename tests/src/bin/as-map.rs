//! Makes an AS map file: `as-map V4.csv V6.csv OUT`. proto/data/README.md says of what.

#![expect(clippy::disallowed_methods, reason = "reads and writes files")]

use std::error::Error;
use std::{env, fs};

use umbel_tests::as_map;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<_> = env::args_os().skip(1).collect();
    let [v4, v6, out] = &paths[..] else {
        return Err("usage: as-map V4.csv V6.csv OUT".into());
    };
    let map = as_map::make(&fs::read_to_string(v4)?, &fs::read_to_string(v6)?)?;
    fs::write(out, map)?;
    Ok(())
}
