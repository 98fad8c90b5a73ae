//! What cannot be in an image, and what is no dump.

use crate::judges::{Other, equal, offered, ours};
use crate::same::{V0, V1, V2};
use imagegen::erofs::composefs::{Format, read_dump};

const ROOT: &str = "/ 0 40755 2 0 0 0 0.0 - - -\n";
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The reason why a dump of a root and these lines is refused.
fn refused(lines: &str, format: Format) -> String {
    let dump = format!("{ROOT}{lines}");
    match ours(&dump, format) {
        Ok(_) => panic!("taken: {lines}"),
        Err(error) => error.to_string(),
    }
}

fn file(size: u64, payload: &str, content: &str, digest: &str) -> String {
    format!("/file {size} 100644 1 0 0 0 0.0 {payload} {content} {digest}")
}

#[test]
fn lines_that_describe_what_cannot_be() {
    let name = "n".repeat(256);
    let cases = [
        ("/a/b 0 100644 1 0 0 0 0.0 - - -", "has no line before it"),
        ("/ 0 40755 2 0 0 0 0.0 - - -", "there is a root before it"),
        (
            "/a 0 40755 2 0 0 0 0.0 - - -\n/a 0 40755 2 0 0 0 0.0 - - -",
            "of that path before it",
        ),
        (
            "/a 0 100644 1 0 0 0 0.0 - - -\n/a/b 0 100644 1 0 0 0 0.0 - - -",
            "no directory",
        ),
        ("/.. 0 100644 1 0 0 0 0.0 - - -", "leads upwards"),
        (
            "/a 0 40755 2 0 0 0 0.0 - - -\n/b 0 @100644 1 0 0 0 0.0 /a - -",
            "which is a directory",
        ),
        ("/b 0 @100644 1 0 0 0 0.0 / - -", "which is the root"),
        ("/a 0 @100644 1 0 0 0 0.0 - - -", "without payload"),
        ("/a 0 100644 4294967296 0 0 0 0.0 - - -", "number of links"),
        ("/a 0 100644 1 4294967296 0 0 0.0 - - -", "owner"),
        ("/a 0 20644 1 0 0 4294967296 0.0 - - -", "above 32 bits"),
        ("/a 0 644 1 0 0 0 0.0 - - -", "of no kind"),
        ("/a 0 120777 1 0 0 0 0.0 - - -", "target cannot be"),
        ("/a 0 100644 1 0 0 0 0.1000000000 - - -", "its time"),
        ("/a 0 100644 1 0 0 0 0.0 - - - user.a", "without `=`"),
        ("/a 0 100644 1 0 0 0 0.0 - - - =a", "without name"),
        (
            &format!("/{name} 0 100644 1 0 0 0 0.0 - - -"),
            "at most 255",
        ),
        (&file(3, "-", "ab", "-"), "2 bytes are inline"),
        (
            &file(5001, "-", &"c".repeat(5001), "-"),
            "at most 5000 may be",
        ),
        (&file(100, "x", "-", "abc"), "its digest is not one"),
        (
            &file(100, "x", "-", &DIGEST.replace('f', "g")),
            "its digest is not one",
        ),
        (
            &file(100, &"p".repeat(4096), "-", DIGEST),
            "no path of an object",
        ),
    ];
    for (lines, wanted) in cases {
        for format in [V0, V1, V2] {
            let reason = refused(lines, format);
            assert!(reason.starts_with("dump"), "{reason}");
            assert!(reason.contains(wanted), "{wanted}: {reason}");
        }
    }
    let reason = ours("/a 0 100644 1 0 0 0 0.0 - - -\n", V0).unwrap_err();
    assert!(reason.to_string().contains("the first line must be"));
    let reason = ours("", V0).unwrap_err().to_string();
    assert!(reason.contains("no line"), "{reason}");
}

#[test]
fn what_a_format_cannot_hold_is_named_with_its_path() {
    let large = |length: usize| {
        format!(
            "/file 0 100644 1 0 0 0 0.0 - - - user.a={}",
            "v".repeat(length)
        )
    };
    let cases = [
        (large(32_760), V0, "at most 32767"),
        (large(65_536), V2, "at most 65535"),
        (
            file((1 << 53) + 1, "x", "-", DIGEST),
            V1,
            "at most 9007199254740992",
        ),
        (
            file((1 << 43) + 1, "x", "-", DIGEST),
            V2,
            "at most 8796093022208",
        ),
        (file(100, "x", "-", "-"), V2, "no digest"),
        (file(513, "-", &"c".repeat(513), "-"), V2, "at most 512"),
        (
            format!("/file 0 120777 1 0 0 0 0.0 {} - -", "t".repeat(1025)),
            V2,
            "at most 1024",
        ),
        (
            "/file 0 20644 1 0 0 0 0.0 - - -\n/b 0 @20644 1 0 0 0 0.0 /file - -".into(),
            V2,
            "with several names",
        ),
    ];
    for (lines, format, wanted) in cases {
        let reason = refused(&lines, format);
        assert!(reason.starts_with("/file: "), "{reason}");
        assert!(reason.contains(wanted), "{wanted}: {reason}");
    }
    let many: String = (0..254).map(|n| format!(" user.{n}=")).collect();
    let reason = refused(&format!("/file 0 100644 1 0 0 0 0.0 - - -{many}"), V2);
    assert!(reason.contains("254 attributes, at most 253"), "{reason}");
}

/// Lines after that of the root, and why mkcomposefs and the crate refuse them; none if they
/// take them.
const OPINIONS: [(&str, Option<&str>, Option<&str>); 44] = [
    (
        "//f 0 100644 1 0 0 0 0.0 - - -",
        None,
        Some("a slash too many"),
    ),
    (
        "/f 0 @100644 1 0 0 0 0.0 /g - -",
        Some("not in the dump"),
        Some("a line before it"),
    ),
    (
        "/f 0 @100644 1 0 0 0 0.0 /g - -\n/g 0 @100644 1 0 0 0 0.0 /f - -",
        Some("back to itself"),
        Some("a line before it"),
    ),
    (
        "/f 0 @100644 1 0 0 0 0.0 /g - -\n/g 0 100644 1 0 0 0 0.0 - - -",
        None,
        Some("a line before it"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @100644 1 0 0 0 0.0 //g - -",
        None,
        Some("a slash too many"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @100644 1 0 0 0 0.0 /g/ - -",
        None,
        Some("a slash too many"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @100644 1 0 0 0 0.0 g - -",
        None,
        Some("not begin with a slash"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f - @100644 1 0 0 0 0.0 /g - -",
        None,
        Some("its size"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @100644 - - - - - /g - -",
        None,
        None,
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @0 1 0 0 0 0.0 /g - -",
        Some("of no kind"),
        None,
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @40755 1 0 0 0 0.0 /g - -",
        Some("a directory's"),
        Some("a directory's"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @x 1 0 0 0 0.0 /g - -",
        Some("not an octal"),
        Some("not an octal"),
    ),
    (
        "/g 0 100644 1 0 0 0 0.0 - - -\n/f 0 @100644 1 0 0 0 0.0 /./g - -",
        Some("holds a `.`"),
        Some("holds a `.`"),
    ),
    (
        "/./f 0 100644 1 0 0 0 0.0 - - -",
        Some("holds a `.`"),
        Some("holds a `.`"),
    ),
    ("/f 0 40755 2 0 0 0 0.0 x - -", None, None),
    (
        "/f 0 40755 2 0 0 0 0.0 - x -",
        Some("1 bytes are inline"),
        Some("contents"),
    ),
    ("/f 1 40755 2 0 0 0 0.0 - x -", None, Some("contents")),
    ("/f 0 40755 2 0 0 0 0.0 - - DIGEST", None, Some("a digest")),
    (
        "/f 0 40755 2 0 0 5 0.0 - - -",
        None,
        Some("a device number"),
    ),
    ("/f 0 20644 1 0 0 5 0.0 x - -", None, None),
    (
        "/f 0 20644 1 0 0 5 0.0 - x -",
        Some("1 bytes are inline"),
        Some("contents"),
    ),
    ("/f 1 60644 1 0 0 5 0.0 - x -", None, Some("contents")),
    ("/f 0 20644 1 0 0 5 0.0 - - DIGEST", None, Some("a digest")),
    ("/f 1 10644 1 0 0 0 0.0 - x -", None, Some("contents")),
    ("/f 0 10644 1 0 0 0 0.0 x - -", None, None),
    (
        "/f 0 10644 1 0 0 7 0.0 - - -",
        None,
        Some("a device number"),
    ),
    ("/f 0 140644 1 0 0 0 0.0 - - DIGEST", None, Some("a digest")),
    (
        "/f 0 100644 1 0 0 7 0.0 - - -",
        None,
        Some("a device number"),
    ),
    (
        "/f 0 100644 1 0 0 0 0.0 - - DIGEST",
        None,
        Some("without payload"),
    ),
    (
        "/f 100 100644 1 0 0 0 0.0 - - DIGEST",
        None,
        Some("without payload"),
    ),
    (
        "/f 5 100644 1 0 0 0 0.0 - hello DIGEST",
        None,
        Some("without payload"),
    ),
    ("/f 0 100644 1 0 0 0 0.0 x - DIGEST", None, None),
    ("/f 5 100644 1 0 0 0 0.0 x hello DIGEST", None, None),
    ("/f 9 100644 1 0 0 0 0.0  - DIGEST", None, Some("is empty")),
    ("/f 1 120777 1 0 0 0 0.0 x y -", None, Some("contents")),
    ("/f 7 120777 1 0 0 0 0.0 x - -", None, None),
    ("/f 1 120777 1 0 0 0 0.0 x - DIGEST", None, Some("a digest")),
    ("/f 0 100644 1 0 0 0 -3.1 - - -", None, Some("before 1970")),
    (
        "/f 0 100644 1 0 0 0 18446744073709551613.0 - - -",
        None,
        None,
    ),
    (
        "/f 0 100644 1 0 0 0 5 - - -",
        Some("its time"),
        Some("its time"),
    ),
    (
        "/f 0 100644 1 0 0 0 0.0 - - - ",
        None,
        Some("ends with a space"),
    ),
    (
        "/f 0 100644 1 0 0 0 0.0 - - -  user.a=1",
        Some("without `=`"),
        Some("without `=`"),
    ),
    (
        "/f 0 100644 1 0 0 0 0.0 - - - user.a=1 user.a=2",
        None,
        None,
    ),
    (
        "/f 0 100644 1 0 0 0 0.0 - - - user.a=\0",
        Some("a zero byte"),
        None,
    ),
];

/// We refuse what others refuse, and make the same of the rest.
#[test]
fn each_version_takes_what_its_own_program_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    for (lines, by_c, by_crate) in OPINIONS {
        let dump = format!("{ROOT}{}\n", lines.replace("DIGEST", DIGEST));
        std::fs::write(&path, &dump).unwrap();
        for (other, format, wanted) in [
            (Other::C, V0, by_c),
            (Other::C, V1, by_c),
            (Other::Crate, V2, by_crate),
        ] {
            let image = match (ours(&dump, format), wanted) {
                (Ok(image), None) => Some(image),
                (Err(error), Some(wanted)) => {
                    let error = error.to_string();
                    assert!(error.starts_with("dump: "), "{error}");
                    assert!(error.contains(wanted), "{lines}: {wanted}: {error}");
                    None
                }
                (made, _) => panic!("{lines} {format:?}: {}", made.is_ok()),
            };
            let Some(theirs) = offered(other, &path, format) else {
                continue;
            };
            assert_eq!(theirs.is_some(), image.is_some(), "{lines} {format:?}");
            if let (Some(ours), Some(theirs)) = (image, theirs) {
                equal(&ours, &theirs, &format!("{lines} {format:?}"));
            }
        }
    }
}

#[test]
fn bytes_that_only_one_program_takes() {
    let dump = |line: &[u8]| [ROOT.as_bytes(), line, b"\n"].concat();
    let read = |line: &[u8], format| read_dump(&dump(line)[..], b"dump", format);
    let name = b"/\xff 0 100644 1 0 0 0 0.0 - - -";
    read(name, V1).unwrap();
    let reason = read(name, V2).unwrap_err().to_string();
    assert!(
        reason.contains("line 2") && reason.contains("UTF-8"),
        "{reason}"
    );
    let long = "a\\x00".repeat(15_000);
    let line = format!("/f 0 100644 1 0 0 0 0.0 - - - user.a={long}");
    let reason = refused(&line, V0);
    assert!(reason.contains("at most 65535"), "{reason}");
    read(line.as_bytes(), V2).unwrap();
    let deep: String = (1..=17)
        .map(|depth| {
            format!(
                "{} 0 40755 2 0 0 0 0.0 - - -\n",
                format!("/{}", "d".repeat(250)).repeat(depth)
            )
        })
        .collect();
    read(deep.trim_end().as_bytes(), V1).unwrap();
    let reason = refused(&deep, V2);
    assert!(
        reason.contains("at most 4096 may be in version 2"),
        "{reason}"
    );
}

/// What is at the edge of that is taken.
#[test]
fn the_largest_that_can_be_are_taken() {
    let attributes = format!("user.a={}", "v".repeat(32_767 - 12 - 7 - 6));
    let lines = [
        format!("/file 0 100644 1 0 0 0 0.0 - - - {attributes}"),
        file(1 << 53, "x", "-", DIGEST),
        file(5000, "-", &"c".repeat(5000), "-"),
        format!("/file 0 120777 1 0 0 0 0.0 {} - -", "t".repeat(4095)),
        format!(
            "/{} 0 100644 4294967295 4294967295 0 0 0.0 - - -",
            "n".repeat(255)
        ),
        "/file 0 20644 1 0 0 4294967295 0.0 - - -".into(),
    ];
    for line in lines {
        ours(&format!("{ROOT}{line}\n"), V1).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
