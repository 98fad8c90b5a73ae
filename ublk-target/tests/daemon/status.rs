//! What `status` tells of the daemon itself.

use ublk_target::control::views::ProtectionsView;
use ublk_target::daemon::safety::Safety;

use super::World;

/// As if a start had got these.
pub(super) const SAFETY: Safety = Safety {
    memory_locked: true,
    oom_protected: false,
    io_flusher: true,
    own_mounts: false,
};

#[test]
fn the_protections_the_daemon_got_are_told() {
    let world = World::new();
    let got = ProtectionsView {
        memory_locked: true,
        oom_protected: false,
        io_flusher: true,
        own_mounts: false,
    };
    assert_eq!(world.status().protections, Some(got));
}
