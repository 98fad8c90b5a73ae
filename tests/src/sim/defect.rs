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
}

/// All of them, for the tests that prove the world.
pub const ALL: [Defect; 12] = [
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
