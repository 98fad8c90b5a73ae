//! scratch
use snapstore::create::*;
use snapstore::engine::*;
use snapstore::*;
use std::sync::Arc;
use ublk_target::{device::*, export::*, nbd, runtime::*};
struct Q;
impl ublk_target::core::StoreHandlers for Q {
    fn notice(&self, n: Notice) {
        eprintln!("{n:?}");
    }
    fn record_invalid(&self, _: &[VolumeId]) -> Result<(), IoError> {
        Ok(())
    }
}
struct X(Arc<Export>);
impl nbd::Exports for X {
    type Export = Arc<Export>;
    fn list(&self) -> Vec<nbd::ExportEntry> {
        vec![]
    }
    fn open(&self, _: &str) -> Result<(Arc<Export>, nbd::ExportInfo), nbd::Refusal> {
        Ok((self.0.clone(), *self.0.info()))
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (origin, store, sock, lanes, snaps) = (
        &a[1],
        &a[2],
        &a[3],
        a[4].parse::<usize>().unwrap(),
        a[5].parse::<u32>().unwrap(),
    );
    let o = OriginDevice::open(origin, false).unwrap();
    let size = o.size();
    let mut d = StoreDevice::open(store, false).unwrap();
    create(
        &mut d,
        &CreateOptions {
            uuid: [1; 16],
            chunk_size: 16384,
            created_ms: 1,
            journal_blocks: None,
        },
    )
    .unwrap();
    let l = recover::load(&mut d).unwrap();
    let (e, _) = l
        .recover(&mut d, &mut OriginSet::new(16384), Config::default())
        .unwrap();
    let rt = Runtime::start(RuntimeConfig {
        lanes,
        ..Default::default()
    })
    .unwrap();
    let h = rt.attach_store(e, d, Arc::new(Q)).unwrap();
    let Reply::Volume(v) = h
        .command(Command::CreateVolume {
            name: "v".into(),
            uuid: [2; 16],
            size,
            origin: origin.clone(),
            policy: Policy::OriginFirst,
            created_ms: 1,
        })
        .unwrap()
    else {
        panic!()
    };
    h.attach_origin(v, o).unwrap();
    for i in 0..snaps {
        h.command(Command::Take {
            targets: vec![(v, format!("s{i}"))],
            priority: 0,
            created_ms: 1,
        })
        .unwrap();
    }
    let ex = rt.open_export(&h, ExportTarget::Origin(v)).unwrap();
    let _ = std::fs::remove_file(sock);
    let li = std::os::unix::net::UnixListener::bind(sock).unwrap();
    for s in li.incoming() {
        let s = s.unwrap();
        match nbd::negotiate(&s, &X(ex.clone()), std::time::Duration::from_secs(5)) {
            Ok(n) => {
                rt.serve(s.into(), n.export, n.options).unwrap();
            }
            Err(e) => eprintln!("{e}"),
        }
    }
}
