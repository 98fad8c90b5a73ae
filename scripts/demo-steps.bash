# Sourced by scripts/demo: the steps it tells of. Uses its variables.
# shellcheck shell=bash disable=SC2154

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
tell() { printf '   %s\n' "$*"; }

# Shows a csnapctl command as a person would type it, and its result.
show() {
    printf '   $ %s\n' "${*//"$demo/"/}"
    csnapctl "${@:2}" 2>&1 | sed "s|$demo/||g" | column -t -s $'\t' | sed 's/^/     /'
}
csnapctl() { "$bin/csnapctl" --run-dir "$run" "$@"; }

prepare() {
    if [[ $(id -u) -ne 0 ]]; then
        echo "demo: loop mounts need root: run it with sudo" >&2
        exit 1
    fi
    export PATH="$PATH:/usr/sbin:/sbin"
    local old
    for old in live side fuse; do # of a run that was killed
        umount "$demo/$old" 2> /dev/null || true
    done
    rm -rf "$demo"
    mkdir -p "$demo"/{live,side,fuse}
}

# However it ends: nothing stays mounted, attached or running.
clean_up() {
    local status=$?
    set +e
    trap - ERR
    fsfreeze --unfreeze "$demo/live" 2> /dev/null
    umount "$demo/live" "$demo/side" 2> /dev/null
    [[ -z $fuse_loop ]] || losetup -d "$fuse_loop" 2> /dev/null
    [[ -z $side_loop ]] || losetup -d "$side_loop" 2> /dev/null
    fusermount3 -u "$demo/fuse" 2> /dev/null
    [[ -z $daemon ]] || kill "$daemon" 2> /dev/null
    if ((status != 0)); then
        echo "--- end of $demo/csnapd.log" >&2
        tail -n 20 "$demo/csnapd.log" >&2
    else
        rm -f "$demo"/*.img "$demo"/*.qcow2
    fi
    exit "$status"
}

make_origin() {
    truncate -s 640M "$origin"
    mkfs.xfs -q "$origin"
}

# The origin without csnap, as any machine would use it. No cache may outlive
# this: csnapd reads and writes the file directly.
mount_origin_alone() { mount -o loop "$origin" "$demo/live"; }
unmount_origin_alone() {
    umount "$demo/live"
    sync "$origin"
}

# fill DIR FROM MB: copies whole directories until about MB megabytes are there.
fill() {
    local room=$(($3 * 1024)) dir size
    while read -r size dir; do
        ((size <= room)) || continue
        cp -a "$dir" "$demo/$1/"
        room=$((room - size))
    done < <(du -sk "$2"/*/ | sort -rn)
    mkdir "$demo/$1/kept"
    cp -a /usr/sbin/. "$demo/$1/kept/"
    sync -f "$demo/$1"
}

# sums DIR: a line for every file. Read from the medium, not from the page cache.
sums() {
    sync -f "$demo/$1"
    echo 2 > /proc/sys/vm/drop_caches || true
    (cd "$demo/$1" && find . -type f ! -path './unfinished/*' -print0 | LC_ALL=C sort -z |
        xargs -0 sha256sum --)
}

# verify_sums DIR SUMS: every file of the list is there with its contents.
verify_sums() { (cd "$demo/$1" && sha256sum --check --quiet --strict "$2"); }

# verify_tree DIR SUMS: exactly the files of the list are there.
verify_tree() {
    sums "$1" > "$demo/seen.sums"
    cmp "$demo/seen.sums" "$2" || {
        diff "$demo/seen.sums" "$2" > "$demo/difference.txt" || true
        sed -n '1,10p' "$demo/difference.txt" >&2
        return 1
    }
    tell "$(wc -l < "$2") files compared by checksum: all equal."
}

start_daemon() {
    "$bin/csnapd" --run-dir "$run" --state-dir "$demo/state" 2>> "$demo/csnapd.log" &
    daemon=$!
    disown "$daemon" # or bash would tell of its end in the middle of the story
    local try
    for try in {1..300}; do
        if csnapctl status > /dev/null 2>&1; then
            tell "csnapd runs (process $daemon, ready at try $try)."
            return
        fi
        kill -0 "$daemon" || return 1
        sleep 0.05
    done
    return 1
}

stop_daemon() {
    kill "$daemon"
    await_end "$daemon"
    daemon=''
    tell "csnapd was stopped."
}

await_end() {
    local _
    for _ in {1..600}; do
        kill -0 "$1" 2> /dev/null || return 0
        sleep 0.05
    done
    return 1
}

# The export as a device: nbdfuse makes a file of it, a loop device a disk.
mount_export() {
    nbdfuse "$demo/fuse/nbd" "nbd+unix:///vol?socket=$socket" 2>> "$demo/nbdfuse.log" &
    disown $!
    local _
    for _ in {1..100}; do
        [[ -f $demo/fuse/nbd ]] && break
        sleep 0.05
    done
    fuse_loop=$(losetup --find --show "$demo/fuse/nbd")
    mount "$fuse_loop" "$demo/live"
}

unmount_export() {
    umount "$demo/live"
    drop_mount
}

# Also after the daemon died: then everything below the mount fails, by design.
drop_mount() {
    umount "$demo/live" 2> /dev/null || true
    losetup -d "$fuse_loop"
    fuse_loop=''
    local _
    for _ in {1..100}; do
        fusermount3 -u "$demo/fuse" 2> /dev/null && break
        mountpoint -q "$demo/fuse" || break
        sleep 0.05
    done
}

# Deletes, rewrites in place, renames, makes anew.
change_files() {
    local live=$demo/live largest
    largest=$(du -sk "$live"/*/ | sort -rn | awk -F '\t' 'NR == 1 { print $2 }')
    mv "$largest" "$live/renamed"
    find "$live/renamed" -type f | awk 'NR % 3 == 0' | tr '\n' '\0' | xargs -0 rm -f --
    find "$live/renamed" -type f -size +8k | awk 'NR <= 400' | while read -r file; do
        # In place: the very blocks the snapshot needs.
        dd if=/dev/urandom of="$file" bs=4k count=2 conv=notrunc status=none
    done
    mkdir "$live/new"
    dd if=/dev/urandom of="$live/new/noise" bs=1M count=32 status=none
    sync -f "$live"
}

# Runs until the volume goes away under it.
keep_changing() {
    mkdir -p "$demo/live/unfinished"
    local number
    for number in {1..1000}; do
        dd if=/dev/urandom of="$demo/live/unfinished/$number" bs=64k count=16 \
            conv=fsync status=none || break
    done
} 2> /dev/null

# copy_out NAME TOOL: snapshot NAME into $demo/NAME.img.
copy_out() {
    local uri="nbd+unix:///vol@$1?socket=$socket" image=$demo/$1.img
    if [[ $2 == nbdcopy ]]; then
        tell "$ nbdcopy '${uri//"$demo/"/}' $1.img"
        nbdcopy "$uri" "$image"
    else
        tell "$ qemu-img convert '${uri//"$demo/"/}' $1.img"
        qemu-img convert -f raw -O raw "$uri" "$image"
    fi
}

# nouuid: the same file system may be mounted live beside it. Writable, so that
# XFS may replay the log of a snapshot taken while it was mounted.
mount_side() {
    side_loop=$(losetup --find --show "$demo/$1.img")
    mount -o nouuid "$side_loop" "$demo/side"
}
unmount_side() {
    umount "$demo/side"
    losetup -d "$side_loop"
    side_loop=''
}
