#!/bin/bash
# Runs the guest's program with its output on the host's ports, then sends back
# what it left in /results and its exit status.
# shellcheck source=/dev/null # comes with the payload
source /.guest/conf

port() {
    local entry
    for entry in /sys/class/virtio-ports/*; do
        if [[ -e $entry/name && $(< "$entry/name") == "$1" ]]; then
            echo "/dev/${entry##*/}"
        fi
    done
}

disk() {
    local block
    for block in /sys/block/vd*; do
        if [[ $(< "$block/serial") == "$1" ]]; then
            echo "/dev/${block##*/}"
        fi
    done
}

control=$(port csnap.control)
say() {
    # A port is opened by one process at a time.
    local _
    for _ in {1..50}; do
        { echo "$*" > "$control"; } 2> /dev/null && return
        sleep 0.1
    done
}

# Relays outlive the program by a moment only: a daemon it left behind may hold
# their pipes for ever.
drain() {
    local _
    for _ in {1..20}; do
        kill -0 "$@" 2> /dev/null || return
        sleep 0.1
    done
}

mkdir -p /results /dev/guest
for ((index = 0; index < GUEST_DISKS; index++)); do
    ln -snf "$(disk "disk$index")" "/dev/guest/disk$index"
done
cd /root || exit
say ready
if [[ $GUEST_TTY == 1 ]]; then
    tty=/dev/hvc0
    # Held open: the terminal forgets its size at the last close.
    exec 5<> "$tty"
    stty sane rows "$GUEST_ROWS" columns "$GUEST_COLUMNS" <&5
    setsid --ctty --wait /.guest/program <&5 >&5 2>&5 5>&-
    status=$?
else
    exec 3> >(exec cat > "$(port csnap.stdout)")
    relays=("$!")
    exec 4> >(exec cat > "$(port csnap.stderr)")
    relays+=("$!")
    /.guest/program < /dev/null >&3 2>&4 3>&- 4>&-
    status=$?
    exec 3>&- 4>&-
    drain "${relays[0]}"
    drain "${relays[1]}"
fi
if [[ $GUEST_GET == 1 ]]; then
    tar -C /results -cf - . | dd of="$(disk results)" bs=1M conv=fsync status=none
fi
sync
say "exit $status"
