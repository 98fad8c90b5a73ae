//! Which columns each kind of row has.

use ublk_target::control::views::{
    EventView, FeatureView, FeaturesView, RangeView, SnapshotView, StatusView, StoreView,
    VolumeView, WaitingView,
};

use super::table::{Column, Kind, Row};

pub(crate) const fn listed(field: &'static str, heading: &'static str, kind: Kind) -> Column {
    Column {
        field,
        heading,
        kind,
        listed: true,
    }
}

pub(crate) const fn hidden(field: &'static str, heading: &'static str, kind: Kind) -> Column {
    Column {
        field,
        heading,
        kind,
        listed: false,
    }
}

impl Row for StoreView {
    const NAME: &'static str = "stores";
    const COLUMNS: &'static [Column] = &[
        listed("path", "STORE", Kind::Text),
        listed("state", "STATE", Kind::Text),
        listed("size", "SIZE", Kind::Bytes),
        listed("used", "USED", Kind::Bytes),
        listed("metadata", "METADATA", Kind::Bytes),
        listed("full_in_s", "FULL IN", Kind::Span),
        hidden("unused", "NOT USED", Kind::Bytes),
        listed("volumes", "VOLUMES", Kind::Number),
        listed("snapshots", "SNAPSHOTS", Kind::Number),
        hidden("purging", "PURGING", Kind::Number),
        listed("purging_bytes", "COMING BACK", Kind::Bytes),
        hidden("chunk_size", "CHUNK", Kind::Bytes),
        hidden("checksum", "CHECKSUM", Kind::Text),
        hidden("generation", "GENERATION", Kind::Number),
        hidden("journal_used", "JOURNAL USED", Kind::Number),
        hidden("journal_blocks", "JOURNAL BLOCKS", Kind::Number),
        hidden("uuid", "UUID", Kind::Text),
        listed("problem", "PROBLEM", Kind::Problem),
        hidden("counters", "COUNTERS", Kind::Text),
    ];
}

impl Row for VolumeView {
    const NAME: &'static str = "volumes";
    const COLUMNS: &'static [Column] = &[
        listed("name", "VOLUME", Kind::Text),
        listed("state", "STATE", Kind::Text),
        listed("size", "SIZE", Kind::Bytes),
        listed("device", "DEVICE", Kind::Text),
        listed("snapshots", "SNAPSHOTS", Kind::Number),
        listed("held_bytes", "HELD", Kind::Bytes),
        listed("origin", "ORIGIN", Kind::Text),
        hidden("store", "STORE", Kind::Text),
        hidden("policy", "POLICY", Kind::Text),
        hidden("full_wait_s", "FULL-WAIT", Kind::Number),
        hidden("link", "LINK", Kind::Text),
        hidden("agreed", "AGREED", Kind::Text),
        hidden("clients", "CLIENTS", Kind::Number),
        hidden("uses", "USES", Kind::Number),
        hidden("created_ms", "CREATED", Kind::Time),
        hidden("uuid", "UUID", Kind::Text),
        listed("problem", "PROBLEM", Kind::Problem),
    ];
}

impl Row for SnapshotView {
    const NAME: &'static str = "snapshots";
    const COLUMNS: &'static [Column] = &[
        listed("volume", "VOLUME", Kind::Text),
        listed("name", "NAME", Kind::Text),
        listed("created_ms", "TAKEN (UTC)", Kind::Time),
        listed("size", "SIZE", Kind::Bytes),
        listed("exclusive_bytes", "ONLY HERE", Kind::Bytes),
        listed("shared_bytes", "SHARED", Kind::Bytes),
        listed("priority", "PRIORITY", Kind::Number),
        listed("state", "STATE", Kind::Text),
        listed("held", "HELD", Kind::Text),
        listed("mapped", "MAPPED", Kind::Text),
        listed("uses", "USES", Kind::Number),
        listed("device", "DEVICE", Kind::Text),
        hidden("link", "LINK", Kind::Text),
        hidden("agreed", "AGREED", Kind::Text),
        hidden("tag", "TAG", Kind::Number),
        hidden("dropped", "DROPPED BECAUSE", Kind::Text),
        hidden("export", "EXPORT", Kind::Text),
        hidden("clients", "CLIENTS", Kind::Number),
    ];
}

impl Row for RangeView {
    const NAME: &'static str = "changes";
    const COLUMNS: &'static [Column] = &[
        listed("start", "FIRST BYTE", Kind::Number),
        listed("length", "LENGTH", Kind::Bytes),
    ];
}

impl Row for EventView {
    const NAME: &'static str = "events";
    const COLUMNS: &'static [Column] = &[
        listed("seq", "SEQ", Kind::Number),
        listed("time_ms", "TIME (UTC)", Kind::Time),
        listed("level", "LEVEL", Kind::Text),
        listed("kind", "KIND", Kind::Text),
        hidden("store", "STORE", Kind::Text),
        hidden("volume", "VOLUME", Kind::Text),
        hidden("snapshot", "SNAPSHOT", Kind::Text),
        listed("message", "MESSAGE", Kind::Text),
    ];
}

impl Row for StatusView {
    const NAME: &'static str = "status";
    const COLUMNS: &'static [Column] = &[
        listed("version", "VERSION", Kind::Text),
        listed("pid", "PID", Kind::Number),
        listed("started_ms", "STARTED (UTC)", Kind::Time),
        listed("threads", "THREADS", Kind::Number),
        listed("protections", "PROTECTIONS", Kind::Text),
        listed("frontend", "FRONT END", Kind::Text),
        listed("frontend_why", "BECAUSE", Kind::Text),
        listed("ublk_features", "UBLK FEATURES", Kind::Text),
        listed("nbd_socket", "NBD SOCKET", Kind::Text),
        listed("volumes_served", "VOLUMES SERVED", Kind::Number),
        listed("volumes_not_served", "NOT SERVED", Kind::Number),
        listed("mapped", "SNAPSHOTS MAPPED", Kind::Number),
        listed("devices", "BLOCK DEVICES", Kind::Number),
        listed("clients", "CLIENTS", Kind::Number),
        listed("newest_event", "NEWEST EVENT", Kind::Number),
        hidden("stores", "STORES", Kind::Text),
        hidden("waiting", "WAITING", Kind::Text),
    ];
}

impl Row for WaitingView {
    const NAME: &'static str = "waiting";
    const COLUMNS: &'static [Column] = &[
        listed("device", "WAITING DEVICE", Kind::Text),
        listed("name", "OF", Kind::Text),
        listed("store", "STORE", Kind::Text),
        listed("problem", "PROBLEM", Kind::Problem),
    ];
}

impl Row for FeaturesView {
    const NAME: &'static str = "ublk";
    const COLUMNS: &'static [Column] = &[
        listed("asked", "ASKED", Kind::Text),
        listed("kernel", "KERNEL", Kind::Text),
        listed("driver", "UBLK", Kind::Text),
        listed("problem", "PROBLEM", Kind::Problem),
        listed("frontend", "FRONT END", Kind::Text),
        listed("frontend_why", "BECAUSE", Kind::Text),
        hidden("features", "FEATURES", Kind::Text),
    ];
}

impl Row for FeatureView {
    const NAME: &'static str = "features";
    const COLUMNS: &'static [Column] = &[
        listed("name", "FEATURE", Kind::Text),
        listed("since", "SINCE LINUX", Kind::Text),
        listed("offered", "OFFERED", Kind::Text),
        listed("used", "USED", Kind::Text),
        listed("consequence", "MISSING MEANS", Kind::Text),
    ];
}
