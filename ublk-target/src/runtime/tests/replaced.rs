//! Origins that went away and are back: what their users are told.

use super::*;

#[test]
fn an_origin_is_replaced_below_its_clients() {
    let old = pattern(8, 1 << 20);
    let rig = Rig::new(&old);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut client = rig.connect(&export);
    assert_eq!(client.read(4096, 4096).unwrap(), old[4096..8192]);
    let open = |name: &str, contents: &[u8]| {
        let path = rig.origin.with_file_name(name);
        std::fs::write(&path, contents).unwrap();
        Arc::new(OriginDevice::open(&path, false).unwrap())
    };
    let small = rig
        .store
        .replace_origin(rig.volume, open("small", &old[..65536]));
    assert!(
        matches!(small, Err(AttachError::TooSmall { .. })),
        "{small:?}"
    );
    let new = pattern(9, 2 << 20);
    let device = open("new", &new);
    rig.store
        .replace_origin(rig.volume, device.clone())
        .unwrap();
    let free = || OriginDevice::open(&rig.origin, false).is_ok();
    let mut tries = (0..200).map(|_| std::thread::sleep(Duration::from_millis(10)));
    assert!(tries.any(|()| free()), "the old one is still held");
    assert_eq!(client.read(4096, 4096).unwrap(), new[4096..8192]);
    assert_eq!(client.write(0, &old[..4096]), 0);
    assert_eq!(std::fs::read(device.path()).unwrap()[..4096], old[..4096]);
    assert!(Arc::ptr_eq(&rig.store.origin(rig.volume).unwrap(), &device));
    // What the old one had not made durable may be missing: said once.
    assert_eq!([(); 3].map(|()| client.ask(0, FLUSH, 0, 0, &[])), [5, 0, 0]);
}

#[test]
fn a_flush_fails_after_a_replacement_only_if_something_may_be_missing() {
    let contents = pattern(8, 1 << 20);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    // On both threads.
    let mut clients = [(); 2].map(|()| rig.connect(&export));
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let replace = |name: &str| {
        let path = rig.origin.with_file_name(name);
        std::fs::write(&path, &contents).unwrap();
        let device = OriginDevice::open(&path, false).unwrap();
        let tally = Tally::create(&memory.path().join(name), 0).unwrap();
        device.count_in(Arc::new(tally));
        rig.store.replace_origin(rig.volume, device.into()).unwrap();
    };
    replace("counted");
    assert_eq!(clients[0].ask(0, FLUSH, 0, 0, &[]), 5, "nobody had counted");
    replace("untouched");
    assert_eq!(clients[0].ask(0, FLUSH, 0, 0, &[]), 0);
    assert_eq!(clients[0].write(0, &contents[..4096]), 0);
    assert_eq!(clients[1].ask(0, FLUSH, 0, 0, &[]), 0);
    replace("flushed");
    assert_eq!(clients[0].ask(0, FLUSH, 0, 0, &[]), 0);
    assert_eq!(clients[1].write(0, &contents[..4096]), 0);
    replace("written");
    replace("and away again");
    assert_eq!(
        [0, 1].map(|at| clients[at].ask(0, FLUSH, 0, 0, &[])),
        [5, 0]
    );
}

/// What a take flushes it flushes for the snapshot: who wrote learns nothing of it.
#[test]
fn a_take_does_not_use_up_what_users_are_to_be_told() {
    let contents = pattern(8, 1 << 20);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut client = rig.connect(&export);
    let path = rig.origin.with_file_name("back");
    std::fs::write(&path, &contents).unwrap();
    let device = OriginDevice::open(&path, false).unwrap();
    rig.store.replace_origin(rig.volume, device.into()).unwrap();
    rig.take("hourly");
    assert_eq!([(); 2].map(|()| client.ask(0, FLUSH, 0, 0, &[])), [5, 0]);
}

/// The csnapd before was killed before it had told.
#[test]
fn an_origin_in_doubt_when_it_is_attached_fails_one_flush() {
    let contents = pattern(8, 1 << 20);
    let rig = Rig::new(&contents);
    let path = rig.origin.with_file_name("back");
    std::fs::write(&path, &contents).unwrap();
    let device = Arc::new(OriginDevice::open(&path, false).unwrap());
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let page = memory.path().join("tally");
    device.count_in(Arc::new(Tally::create(&page, 0).unwrap()));
    device.doubt();
    let owed = || Tally::left_at(&page).unwrap().unsure;
    assert!(owed());
    rig.store.detach_origin(rig.volume).unwrap();
    rig.store.attach_origin(rig.volume, device).unwrap();
    rig.take("hourly");
    assert!(owed(), "a take is no user");
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut client = rig.connect(&export);
    assert_eq!([(); 2].map(|()| client.ask(0, FLUSH, 0, 0, &[])), [5, 0]);
    assert!(!owed());
}

#[test]
fn writes_that_may_be_missing_are_told_of_once_while_they_are_flushed() {
    let contents = pattern(8, 1 << 20);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut clients = [(); 4].map(|()| rig.connect(&export));
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = rig.origin.with_file_name("back");
    for round in 0..200 {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &contents).unwrap();
        let device = OriginDevice::open(&path, false).unwrap();
        let tally = Tally::create(&memory.path().join("tally"), 0).unwrap();
        device.count_in(Arc::new(tally));
        assert_eq!(clients[0].write(0, &contents[..4096]), 0);
        let over = AtomicBool::new(false);
        let failed: usize = std::thread::scope(|scope| {
            let flushing = clients.each_mut().map(|client| {
                scope.spawn(|| {
                    let flush = || client.ask(0, FLUSH, 0, 0, &[]) != 0;
                    let failed = std::iter::repeat_with(flush);
                    let until = failed.take_while(|_| !over.load(Ordering::Relaxed));
                    until.filter(|failed| *failed).count()
                })
            });
            rig.store.replace_origin(rig.volume, device.into()).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            over.store(true, Ordering::Relaxed);
            let joined = flushing.map(|thread| thread.join().unwrap());
            joined.into_iter().sum()
        });
        // What was flushed before the device was replaced is not missing.
        assert!(failed <= 1, "{failed} flushes failed in round {round}");
    }
}
