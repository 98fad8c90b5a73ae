//! A journal block and its records: what is decoded encodes to what decodes to the
//! same.
#![no_main]

use csnap_fuzz::blocks::sealed;
use libfuzzer_sys::fuzz_target;
use snapstore::format::journal::{JOURNAL_ROOM, JournalBlock, Record};

fuzz_target!(|data: &[u8]| {
    let (block, header) = sealed(data);
    let (at, store) = (header.block.get(), header.store.get());
    let Ok((journal, crc)) = JournalBlock::decode(&block, at, store) else {
        return;
    };
    assert_eq!(crc, header.crc.get());
    assert!(journal.records.len() <= JOURNAL_ROOM);
    let (again, crc) = journal.encode(at, store);
    assert_eq!(
        JournalBlock::decode(&again, at, store),
        Ok((journal.clone(), crc))
    );
    for crcs in [1, 16] {
        let Ok(records) = journal.decode_records(crcs) else {
            continue;
        };
        assert_eq!(records.len(), usize::from(journal.count));
        for record in records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes, crcs), Ok((record, bytes.len())));
        }
    }
});
