//! Makes the golden stores of the present format version: `golden [DIR]`, by default
//! into the tree (`tests/golden`). `golden --seeds DIR` takes those that there are apart
//! instead, for the fuzz targets.
#![allow(clippy::print_stdout)] // it is a program

use std::path::Path;
use std::process::ExitCode;

use csnap_tests::golden::recipe::RECIPES;
use csnap_tests::golden::{Golden, GoldenError, directory, seeds};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => make(&directory()),
        ["--seeds", dir] => seeds::write(Path::new(dir)),
        [dir] if !dir.starts_with('-') => make(Path::new(dir)),
        _ => {
            println!("usage: golden [DIR | --seeds DIR]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("golden: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(dir: &Path) -> Result<(), GoldenError> {
    for recipe in &RECIPES {
        let golden = Golden::make(recipe)?;
        golden.write(dir)?;
        println!("{}", dir.join(&golden.name).display());
    }
    Ok(())
}
