//! What a survey finds in files that have parts in common.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{FilePlan, Survey};
use crate::erofs::compress::choice::Method;
use crate::erofs::compress::pool::Pool;
use crate::tree::{Bytes, Content};

fn content(bytes: &[u8]) -> Content {
    Content {
        size: bytes.len() as u64,
        data: vec![0..bytes.len() as u64; 1],
        bytes: Bytes::Read(bytes.to_vec()),
        digests: Vec::new(),
    }
}

fn plans(files: &[Vec<u8>]) -> (Vec<FilePlan>, usize) {
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, Some(2));
        let mut survey = Survey::new(&pool);
        for file in files {
            let how = (Method::Auto, 4096);
            survey.add(content(file), how).unwrap();
        }
        let found = survey.finish().unwrap();
        pool.finish();
        found
    })
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Bytes that have to be kept: those of each piece once.
fn kept(plans: &[FilePlan]) -> u64 {
    let mut pieces = BTreeMap::new();
    let mut own = 0;
    for step in plans.iter().flat_map(|plan| &plan.steps) {
        match step.piece {
            Some(piece) => assert_eq!(*pieces.entry(piece).or_insert(step.length), step.length),
            None => own += step.length,
        }
    }
    own + pieces.values().sum::<u64>()
}

#[test]
fn copies_are_one_piece() {
    let file = noise(1, 500_000);
    let (plans, pieces) = plans(&[file.clone(), noise(2, 9000), file.clone(), file]);
    assert_eq!(pieces, 1);
    assert_eq!((plans[0].steps.len(), plans[1].steps[0].piece), (1, None));
    assert_eq!(kept(&plans), 509_000);
}

#[test]
fn moved_parts_are_found() {
    let common = noise(3, 400_000);
    let files: Vec<Vec<u8>> = (0..20)
        .flat_map(|number: u64| {
            let begin = noise(10 + number, 1000 + 900 * number as usize);
            [[&begin[..], &common[..]].concat(), common.clone()]
        })
        .collect();
    let (plans, pieces) = plans(&files);
    for (plan, file) in plans.iter().zip(&files) {
        let length: u64 = plan.steps.iter().map(|step| step.length).sum();
        assert_eq!(length, file.len() as u64);
    }
    let kept = kept(&plans);
    assert!(kept < 2_000_000, "{kept} in {pieces} pieces");
}

#[test]
fn zeroes_are_pieces_too() {
    let (plans, pieces) = plans(&[vec![0; 5 << 20]]);
    assert!(pieces >= 1 && kept(&plans) < 1 << 20, "{plans:?}");
}
