//! The tree alone: probes a second from the cache, merge inserts a second, and
//! nodes written per insert for random batches.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use snapstore::format::Kind;
use snapstore::tree::{Cache, Changes, Key, Merge, Node, Progress, Root, Shape, Space, neighbours};

/// Records of the tree that is probed and inserted into.
const RECORDS: u64 = 1_000_000;
const SHAPE: Shape = Shape {
    kind: Kind::ExceptionNode,
    value_len: 32,
    store: 1,
};

/// Hands out ever new blocks.
struct Endless(u64);

impl Space for Endless {
    fn alloc(&mut self) -> Option<u64> {
        self.0 += 1;
        Some(self.0)
    }

    fn free(&mut self, _: u64) {}
}

/// xorshift64*: the same keys in every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

fn changes(keys: &[u64], tag: u64) -> Changes {
    let mut changes = Changes::new(&SHAPE);
    for &chunk in keys {
        changes
            .push(Key::new(1, chunk, tag), Some(&[tag as u8; 32]))
            .unwrap();
    }
    changes
}

fn random_keys(rng: &mut Rng, count: usize) -> Vec<u64> {
    let mut keys: Vec<_> = (0..count).map(|_| rng.below(RECORDS * 4)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Merges everything from the cache; returns the new tree and its new nodes.
fn merge(
    root: Root,
    changes: Changes,
    space: &mut Endless,
    cache: &mut Cache,
) -> (Root, Vec<Arc<Node>>) {
    let generation = space.0 + 1;
    let mut merge = Merge::new(SHAPE, root, changes, generation);
    let mut out = Vec::new();
    let Ok(Progress::Done(root)) = merge.advance(cache, space, &mut out, usize::MAX) else {
        panic!("a merge from a cache large enough neither misses nor fails");
    };
    (root, out)
}

fn loaded() -> (Root, Endless, Cache) {
    let (mut space, mut cache) = (Endless(0), Cache::new(20_000));
    let keys: Vec<_> = (0..RECORDS).map(|i| i * 4).collect();
    let (root, nodes) = merge(Root::EMPTY, changes(&keys, 1), &mut space, &mut cache);
    for node in nodes {
        cache.insert(node);
    }
    (root, space, cache)
}

fn probes(criterion: &mut Criterion) {
    let (root, _, mut cache) = loaded();
    let mut rng = Rng(7);
    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Elements(1));
    group.bench_function("neighbours, cached, random", |bench| {
        bench.iter(|| {
            let key = Key::new(1, rng.below(RECORDS * 4), 1);
            black_box(neighbours(&root, key, &mut cache).unwrap());
        });
    });
    group.finish();
}

fn inserts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    group.sample_size(20);
    for count in [100usize, 10_000, 100_000] {
        let (root, mut space, mut cache) = loaded();
        let mut rng = Rng(11);
        let keys = random_keys(&mut rng, count);
        let (_, nodes) = merge(root, changes(&keys, 2), &mut space, &mut cache);
        let per = nodes.len() as f64 / keys.len() as f64;
        println!(
            "merge of {} random inserts: {per:.3} nodes written per insert",
            keys.len()
        );
        group.throughput(Throughput::Elements(keys.len() as u64));
        group.bench_function(format!("merge inserts, random batch of {count}"), |bench| {
            bench.iter_batched(
                || changes(&keys, 2),
                |changes| merge(root, changes, &mut space, &mut cache),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, probes, inserts);
criterion_main!(benches);
