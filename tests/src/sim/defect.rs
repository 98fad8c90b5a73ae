//! Defects planted in the runtime on purpose. A world that does not see them
//! proves nothing about the engine.

/// A way in which the runtime breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A store flush is answered without making anything durable.
    SkipStoreFlush,
    /// A flush of an origin is answered without making anything durable.
    SkipOriginFlush,
    /// A write granted under an old epoch is issued all the same.
    IgnoreEpoch,
    /// A snapshot read is reported done while it is still reading.
    EarlyReadDone,
    /// A pause is acknowledged with writes still in flight.
    EarlyPause,
    /// Writes go on during a pause.
    IgnorePause,
    /// A checksum of a copyout is wrong.
    WrongCrc,
    /// A bit of a copied chunk flips on its way to the store.
    FlipBit,
    /// Writes to the store are reported before they complete.
    EarlyWritten,
    /// FUA is forgotten on metadata writes.
    ForgetFua,
    /// The fast path looks at one chunk of several.
    FirstChunkOnly,
    /// Snapshot data from the store is not verified, and sometimes wrong.
    Unverified,
    /// The unique bit of a chunk is set when its copy is asked for.
    EarlyBit,
    /// A copyout is checksummed before all of it was read.
    EarlyChecksum,
    /// Two copyouts use one buffer.
    SharedBuffer,
    /// What lies behind the end of a volume is not zeroed in its last chunk's copy.
    ForgetZeroes,
    /// What the engine has for another lane is lost on the way.
    LostLetter,
    /// Later events of lanes reach the engine before earlier ones.
    Overtaking,
}

/// Those of the stand-in, for the tests that prove the world.
pub const STAND_IN: [Defect; 12] = [
    Defect::SkipStoreFlush,
    Defect::SkipOriginFlush,
    Defect::IgnoreEpoch,
    Defect::EarlyReadDone,
    Defect::EarlyPause,
    Defect::IgnorePause,
    Defect::WrongCrc,
    Defect::FlipBit,
    Defect::EarlyWritten,
    Defect::ForgetFua,
    Defect::FirstChunkOnly,
    Defect::Unverified,
];

/// Those planted around the real lanes.
pub const LANES: [Defect; 14] = [
    Defect::SkipStoreFlush,
    Defect::SkipOriginFlush,
    Defect::IgnoreEpoch,
    Defect::EarlyReadDone,
    Defect::EarlyPause,
    Defect::IgnorePause,
    Defect::FlipBit,
    Defect::ForgetFua,
    Defect::EarlyBit,
    Defect::EarlyChecksum,
    Defect::SharedBuffer,
    Defect::ForgetZeroes,
    Defect::LostLetter,
    Defect::Overtaking,
];
