//! Clients that take more than their share of a thread, and clients that want theirs.

use super::*;

const MIB: usize = 1 << 20;

/// Writes of which the payload never comes take all the room there is for large requests.
#[test]
fn clients_that_keep_buffers_and_do_nothing_are_cut_off_when_others_wait() {
    let contents = pattern(17, 40 * MIB);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut silent: Vec<_> = (0..4).map(|_| rig.connect(&export)).collect();
    for client in &mut silent {
        client.send(0, WRITE, 0, 32 * MIB, &[]);
        // It is there, and the next waits behind it on the same thread.
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut good: Vec<_> = (0..2).map(|_| rig.connect(&export)).collect();
    for client in &mut good {
        let begin = Instant::now();
        assert!(client.read(0, 64 << 10).unwrap() == contents[..64 << 10]);
        assert!(begin.elapsed() < Duration::from_secs(5), "small ones pass");
    }
    // Nobody waits for what they hold: they may take their time.
    assert_eq!(export.connections(), 6);
    for client in &mut good {
        assert!(client.read(0, 2 * MIB).unwrap() == contents[..2 * MIB]);
    }
    for mut client in silent {
        assert_eq!(client.socket.read(&mut [0; 16]).unwrap(), 0, "it is served");
    }
    assert_eq!(export.connections(), 2);
}

/// Those who read a lot, and promptly, leave the others their turn.
#[test]
fn a_large_request_has_its_turn_among_many() {
    let contents = pattern(18, 40 * MIB);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let stop = AtomicBool::new(false);
    let greedy: Vec<_> = (0..10).map(|_| rig.connect(&export)).collect();
    let mut good: Vec<_> = (0..2).map(|_| rig.connect(&export)).collect();
    std::thread::scope(|scope| {
        for client in greedy {
            scope.spawn(|| {
                let mut client = { client };
                let mut data = vec![0; 32 * MIB];
                for _ in 0..4 {
                    client.send(0, READ, 0, 32 * MIB, &[]);
                }
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.reply().1, 0);
                    client.socket.read_exact(&mut data).unwrap();
                    client.send(0, READ, 0, 32 * MIB, &[]);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let fair = good.iter_mut().all(|client| {
            (0..2).all(|_| {
                client.send(0, READ, 0, 2 * MIB, &[]);
                let mut reply = vec![0; 16 + 2 * MIB];
                client.socket.read_exact(&mut reply).is_ok()
            })
        });
        stop.store(true, Ordering::Relaxed);
        assert!(fair, "it waited too long");
    });
}

/// Only one is answered at a time, and all are.
#[test]
fn block_statuses_asked_at_once_are_all_answered() {
    const BLOCK_STATUS: u16 = 7;
    let rig = Rig::new(&pattern(19, 4 * MIB));
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let options = nbd::Options {
        structured: true,
        base_allocation: true,
        ..nbd::Options::NONE
    };
    let mut client = rig.connect_with(&export, options);
    let all = 200;
    (0..all).for_each(|n| {
        client.send(0, BLOCK_STATUS, n * 4096, 4096, &[]);
    });
    for n in 0..all {
        let mut header = [0; 20];
        client.socket.read_exact(&mut header).unwrap();
        assert_eq!(header[..4], 0x668e_33ef_u32.to_be_bytes());
        assert_eq!(header[4..8], [0, 1, 0, 5], "done, block status");
        assert_eq!(header[8..16], (n + 1).to_be_bytes(), "in order");
        let len = u32::from_be_bytes(header[16..].try_into().unwrap());
        let mut body = vec![0; len as usize];
        client.socket.read_exact(&mut body).unwrap();
        assert_eq!(body[4..8], 4096_u32.to_be_bytes());
    }
}

/// Who has many connections that wait does not keep others waiting behind all of them.
#[test]
fn who_comes_from_elsewhere_is_served_before_many_of_one_address() {
    let contents = pattern(20, 40 * MIB);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let one = Some(IpAddr::from([192, 0, 2, 1]));
    let mut many: Vec<_> = (0..12)
        .map(|_| rig.connect_from(one, &export, nbd::Options::default()))
        .collect();
    for client in &mut many {
        client.send(0, READ, 0, 32 * MIB, &[]);
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut good: Vec<_> = (0..2).map(|_| rig.connect(&export)).collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = good
            .iter_mut()
            .map(|client| scope.spawn(|| client.read(0, 2 * MIB).unwrap() == contents[..2 * MIB]))
            .collect();
        // Before anybody is too slow; the next of the many is waiting for the room as well.
        std::thread::sleep(Duration::from_secs(1));
        drop(many.drain(..2));
        std::thread::sleep(Duration::from_secs(4));
        assert!(readers.iter().all(|reader| reader.is_finished()));
        assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
    });
    assert_eq!(export.connections(), 12);
}

/// Who takes a long reply slowly, but fast enough, gets all of it.
#[test]
fn slow_clients_that_go_on_are_served_to_the_end() {
    let contents = pattern(21, 40 * MIB);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut slow: Vec<_> = (0..4).map(|_| rig.connect(&export)).collect();
    for client in &mut slow {
        client.send(0, READ, 0, 32 * MIB, &[]);
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut waiting: Vec<_> = (0..2).map(|_| rig.connect(&export)).collect();
    std::thread::scope(|scope| {
        for client in &mut slow {
            scope.spawn(|| {
                assert_eq!(client.reply().1, 0);
                let mut data = vec![0; 32 * MIB];
                // More than a third in ten seconds, and less than all.
                for piece in data[..24 * MIB].chunks_mut(MIB / 2) {
                    client.socket.read_exact(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(250));
                }
                client.socket.read_exact(&mut data[24 * MIB..]).unwrap();
                assert!(data == contents[..32 * MIB]);
            });
        }
        for client in &mut waiting {
            scope.spawn(|| {
                client.send(0, READ, 0, 2 * MIB, &[]);
                assert_eq!(client.reply().1, 0);
                client.socket.read_exact(&mut vec![0; 2 * MIB]).unwrap();
            });
        }
    });
}

/// Of who has only left answers unread nothing is under way.
#[test]
fn who_does_not_read_leaves_nothing_unfinished() {
    let rig = Rig::new(&pattern(22, 40 * MIB));
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut silent = rig.connect(&export);
    silent.send(0, READ, 0, 32 * MIB, &[]);
    assert_eq!(silent.reply().1, 0);
    let cut_off = export.close(Duration::from_millis(200)).unwrap_err();
    assert_eq!((cut_off.connections, cut_off.unfinished), (1, 0));
}
