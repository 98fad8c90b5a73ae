//! Makes the golden stores of the present format version: `golden [DIR]`, by default
//! into the tree (`tests/golden`). `golden --seeds DIR` takes those that there are apart
//! instead, for the fuzz targets.
#![allow(clippy::print_stdout)] // it is a program

use std::path::PathBuf;
use std::process::ExitCode;

use csnap_tests::golden::recipe::RECIPES;
use csnap_tests::golden::{Golden, GoldenError, directory, seeds};

fn main() -> ExitCode {
    match make() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("golden: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make() -> Result<(), GoldenError> {
    let mut args = std::env::args_os().skip(1);
    let dir = match args.next() {
        Some(arg) if arg == "--seeds" => {
            return seeds::write(&args.next().map_or_else(PathBuf::new, PathBuf::from));
        }
        Some(dir) => PathBuf::from(dir),
        None => directory(),
    };
    for recipe in &RECIPES {
        let golden = Golden::make(recipe)?;
        golden.write(&dir)?;
        println!("{}", dir.join(&golden.name).display());
    }
    Ok(())
}
