#!/bin/busybox sh
# shellcheck shell=dash
# /init of the guest's initramfs: finds the disks by their serial numbers, mounts
# the root and the kernel's modules, unpacks the payload and hands over.
export PATH=/bin
mkdir -p /proc /sys /dev /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

fail() {
    echo "guest: the initramfs could not $1" > /dev/kmsg
    poweroff -f
    sleep 60
}

disk() {
    for block in /sys/block/vd*; do
        if [ "$(cat "$block/serial")" = "$1" ]; then
            echo "/dev/${block##*/}"
        fi
    done
}

insmod /virtio_blk.ko || fail "load virtio_blk"
mount -t ext4 -o noatime "$(disk root)" /root || fail "mount the root"
mount -t ext4 -o ro "$(disk modules)" /root/usr/lib/modules || fail "mount the modules"
mount --move /dev /root/dev
payload=$(disk payload)
# The payload's directories must not change the modes or the links of the root's.
chroot /root /usr/bin/tar -C / -xf "$payload" --no-overwrite-dir \
    --keep-directory-symlink || fail "unpack the payload"
mount --move /sys /root/sys
umount /proc
# shellcheck disable=SC1091 # comes with the payload
. /root/.guest/conf
exec switch_root /root "$GUEST_PID1"
