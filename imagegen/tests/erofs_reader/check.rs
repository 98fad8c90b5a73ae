//! The checker is loud about each kind of damage, and says where.

use crate::damages::ALL;
use crate::images::Tree;
use crate::patient::Patient;
use imagegen::erofs::check::Kind;

#[test]
fn every_damage_is_found_and_named() {
    let tree = Tree::new(200_000);
    let mut missed = Vec::new();
    for (options, damages) in ALL {
        let Some(mut patient) = Patient::new(options, &tree) else {
            return;
        };
        let sound = patient.check();
        assert_eq!(sound.found, 0, "{options}: {:?}", sound.problems);
        for damage in *damages {
            (damage.act)(&mut patient);
            let report = patient.check();
            let what = format!("{options}: {}", damage.name);
            if !report
                .problems
                .iter()
                .any(|problem| problem.kind == damage.kind)
            {
                let (problems, failure) = (report.problems, report.failure);
                missed.push(format!("{what}: {problems:?} {failure:?}"));
            } else {
                for problem in &report.problems {
                    let located = problem.path.is_some() || problem.inode.is_none();
                    let alone = matches!(problem.kind, Kind::Superblock | Kind::Space);
                    if !located && !alone {
                        missed.push(format!("{what}: no path: {problem:?}"));
                    }
                }
            }
            patient.heal();
        }
    }
    assert!(
        missed.is_empty(),
        "{} missed:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

/// All of them, not only the first.
#[test]
fn several_damages_are_all_found() {
    let Some(mut patient) = Patient::new("-Eforce-inode-extended", &Tree::new(10_000)) else {
        return;
    };
    for path in ["noise", "mixed", "sizes/noise-4096"] {
        patient.inode(path, |inode| inode.nlink += 1);
    }
    patient.inode("fifo", |inode| inode.reserved[0] = 1);
    let report = patient.check();
    let paths: Vec<_> = report
        .problems
        .iter()
        .map(|p| p.path.clone().unwrap())
        .collect();
    assert_eq!(report.found, 4, "{:?}", report.problems);
    for path in ["/fifo", "/noise", "/mixed", "/sizes/noise-4096"] {
        assert!(
            paths.iter().any(|found| found == path),
            "{path} in {paths:?}"
        );
    }
}
