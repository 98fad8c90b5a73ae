//! What cannot be in an image, and what is no dump.

use crate::judges::ours;
use crate::same::{V0, V1, V2};
use imagegen::erofs::composefs::Format;

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
        (
            "/b 0 @100644 1 0 0 0 0.0 /a - -",
            "which is not in the dump",
        ),
        (
            "/a 0 @100644 1 0 0 0 0.0 /b - -\n/b 0 @100644 1 0 0 0 0.0 /a - -",
            "leads back to itself",
        ),
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
        (file(100, "-", "-", DIGEST), V2, "without payload"),
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
