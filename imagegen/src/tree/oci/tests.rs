//! Layouts made here, against what their layers should add up to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Oci, OciOptions};
use crate::tree::testing::{What, at, check, have, list, paths};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(
            dir.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digits: String = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(self.path().join("blobs/sha256").join(&digits), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{digits}"), "size": bytes.len()})
    }

    fn json(&self, kind: &str, value: &Value) -> Value {
        self.blob(kind, value.to_string().as_bytes())
    }

    /// A layer of these paths: `dir/`, `file=text`, `link->target`.
    fn layer(&self, paths: &[&str], compress: Option<&str>) -> Value {
        let (tree, list) = (
            tempfile::tempdir().unwrap(),
            tempfile::NamedTempFile::new().unwrap(),
        );
        let mut order = Vec::new();
        for path in paths {
            let (name, text) = path.split_once('=').unwrap_or((path, ""));
            let (name, target) = name
                .split_once("->")
                .map_or((name, None), |(a, b)| (a, Some(b)));
            let place = tree.path().join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            match target {
                Some(target) => fs::hard_link(tree.path().join(target), &place).unwrap(),
                None if name.ends_with('/') => fs::create_dir_all(&place).unwrap(),
                None => fs::write(&place, text).unwrap(),
            }
            order.push(name);
        }
        fs::write(list.path(), order.join("\n")).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--no-recursion", "--format=pax", "-cf", "-"])
            .args(compress)
            .arg("-C");
        let made = tar
            .arg(tree.path())
            .arg("-T")
            .arg(list.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        self.blob(LAYER, &made.stdout)
    }

    fn image(&self, layers: &[Value]) -> Value {
        self.image_of(&json!({}), layers)
    }

    fn image_of(&self, config: &Value, layers: &[Value]) -> Value {
        let config = self.json("application/vnd.oci.image.config.v1+json", config);
        self.json(
            MANIFEST,
            &json!({"schemaVersion": 2, "config": config, "layers": layers}),
        )
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        fs::write(self.path().join("index.json"), index).unwrap();
    }

    fn blob_path(&self, of: &Value) -> PathBuf {
        let digest = of["digest"].as_str().unwrap();
        self.path().join("blobs/sha256").join(&digest[7..])
    }

    fn open(&self, reference: Option<&str>, platform: Option<&str>) -> Result<Oci, String> {
        let options = OciOptions {
            reference: reference.map(str::to_owned),
            platform: platform.map(str::to_owned),
        };
        Oci::open(self.path(), &options).map_err(|error| error.to_string())
    }
}

fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

fn named(descriptor: Value, name: &str) -> Value {
    with(
        descriptor,
        "annotations",
        json!({"org.opencontainers.image.ref.name": name}),
    )
}

fn on(descriptor: Value, os: &str, architecture: &str, variant: &str) -> Value {
    let platform = json!({"os": os, "architecture": architecture, "variant": variant});
    with(descriptor, "platform", platform)
}

#[test]
fn layers_and_what_they_take_away() {
    let made = Made::new();
    let zstd = have("zstd").then_some("--zstd");
    let layers = [
        made.layer(
            &[
                "a/", "a/one=1", "a/two=2", "b/", "b/x=x", "c=c", "d/", "d/e/", "d/e/f=f",
                "l=link", "l2->l",
            ],
            Some("-z"),
        ),
        // Whiteouts behind what they must not touch.
        made.layer(
            &[
                "a/new=n",
                "a/.wh.one",
                "b/y=y",
                "b/.wh..wh..opq",
                ".wh.c",
                ".wh..wh.plnk/",
                ".wh..wh.plnk/q=q",
            ],
            zstd,
        ),
        made.layer(&["c/", "c/again=2", "d/e=now a file", ".wh.l"], None),
    ];
    made.index(&[made.image(&layers)]);
    let seen = check(&made.open(None, None).unwrap());
    let wanted = [
        "", "/a", "/a/new", "/a/two", "/b", "/b/y", "/c", "/c/again", "/d", "/d/e", "/l2",
    ];
    assert_eq!(paths(&seen), wanted);
    let body = |path| match at(&seen, path) {
        What::Object { body, .. } => String::from_utf8(body.clone()).unwrap(),
        link => panic!("{link:?}"),
    };
    assert_eq!(
        (body("/l2"), body("/d/e"), body("/a/two")),
        ("link".into(), "now a file".into(), "2".into())
    );
}

#[test]
fn an_opaque_root_hides_all_below() {
    let made = Made::new();
    let layers = [
        made.layer(&["a/", "a/x=x", "b=b"], None),
        made.layer(&["c=c", ".wh..wh..opq"], None),
    ];
    made.index(&[made.image(&layers)]);
    assert_eq!(paths(&check(&made.open(None, None).unwrap())), ["", "/c"]);
}

#[test]
fn an_image_is_found_by_name_and_platform() {
    let made = Made::new();
    let image = |text: &str| made.image(&[made.layer(&[&format!("{text}=")], None)]);
    let nested = json!({"manifests": [
        on(image("amd"), "linux", "amd64", ""),
        on(image("arm6"), "linux", "arm", "v6"),
        on(image("arm7"), "linux", "arm", "v7"),
        on(image("attest"), "unknown", "unknown", ""),
    ]});
    made.index(&[
        named(made.json(INDEX, &nested), "multi"),
        named(image("single"), "single"),
    ]);
    let found = |reference, platform| {
        let oci = made.open(reference, platform)?;
        Ok::<_, String>(paths(&list(&oci).unwrap())[1].clone())
    };
    assert_eq!(found(Some("single"), None).unwrap(), "/single");
    assert_eq!(found(Some("multi"), Some("linux/amd64")).unwrap(), "/amd");
    assert_eq!(found(Some("multi"), Some("linux/arm/v7")).unwrap(), "/arm7");
    for (reference, platform) in [
        (Some("multi"), Some("linux/arm")),
        (Some("none"), None),
        (Some("multi"), Some("plan9/386")),
    ] {
        let error = found(reference, platform).unwrap_err();
        assert!(
            error.contains("multi (linux/arm/v6), multi (linux/arm/v7)"),
            "{error}"
        );
    }
}

#[test]
fn an_image_without_platform_is_held_against_its_configuration() {
    let made = Made::new();
    let layers = [made.layer(&["file="], None)];
    let arm = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
    made.index(&[made.image_of(&arm, &layers)]);
    for platform in [None, Some("linux/arm"), Some("linux/arm/v7")] {
        made.open(None, platform).unwrap();
    }
    for platform in ["linux/arm/v6", "linux/amd64", "plan9/arm", "linux"] {
        let error = made.open(None, Some(platform)).unwrap_err();
        let wanted =
            format!("is for linux/arm/v7, as its configuration says, and not for {platform};");
        assert!(error.contains(&wanted), "{error}");
    }
    // What says nothing of it is no other, and a variant left out is any.
    let bare = json!({"os": "linux", "architecture": "arm64"});
    for config in [json!({}), bare] {
        made.index(&[made.image_of(&config, &layers)]);
        made.open(None, Some("linux/arm64/v8")).unwrap();
    }
    // The index has the word where it says something.
    made.index(&[on(made.image_of(&arm, &layers), "linux", "amd64", "")]);
    made.open(None, Some("linux/amd64")).unwrap();
}

#[test]
fn what_is_not_as_its_digest_says_is_refused() {
    let layer = |made: &Made| made.layer(&["file=text"], None);
    let refused = |change: &dyn Fn(&Made, &Value), wanted: &str| {
        let made = Made::new();
        let layer = layer(&made);
        made.index(&[made.image(std::slice::from_ref(&layer))]);
        change(&made, &layer);
        let error = made.open(None, None).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    };
    refused(
        &|made, layer| {
            let mut bytes = fs::read(made.blob_path(layer)).unwrap();
            bytes[600] ^= 1;
            fs::write(made.blob_path(layer), bytes).unwrap();
        },
        "do not match its digest",
    );
    refused(
        &|made, layer| fs::write(made.blob_path(layer), "short").unwrap(),
        "this has 5",
    );
    refused(
        &|made, layer| fs::remove_file(made.blob_path(layer)).unwrap(),
        "cannot open",
    );
    refused(
        &|made, _| fs::remove_file(made.path().join("index.json")).unwrap(),
        "index.json: cannot open",
    );
    refused(
        &|made, _| fs::write(made.path().join("index.json"), "{").unwrap(),
        "index.json: not as it should be",
    );
    refused(&|made, _| made.index(&[]), "0 images are meant");
    for digest in ["sha256:../../../etc/passwd", "md5:00", "sha256:ABCD", ""] {
        let evil = json!({"mediaType": MANIFEST, "digest": digest, "size": 1});
        refused(
            &|made, _| made.index(std::slice::from_ref(&evil)),
            "is not a digest",
        );
    }
}

#[test]
fn an_index_in_itself_ends() {
    let made = Made::new();
    // It cannot hold its own digest, so each holds another.
    let mut inner = made.json(INDEX, &json!({"manifests": []}));
    for _ in 0..20 {
        inner = made.json(INDEX, &json!({"manifests": [inner]}));
    }
    made.index(&[inner]);
    assert!(made.open(None, None).unwrap_err().contains("too deep"));
}
