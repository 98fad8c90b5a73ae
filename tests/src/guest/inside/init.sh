#!/bin/bash
# PID 1 of the guest unless systemd is asked for: mounts what programs expect,
# runs the program, powers off.
# shellcheck source=/dev/null # comes with the payload
source /.guest/conf
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM="${GUEST_TERM:-linux}"

mount -t proc proc /proc
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mount -t tmpfs -o nosuid,nodev tmpfs /tmp
mkdir -p /dev/pts /dev/shm /run/lock /results
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    ln -snf "${link#*:}" "/dev/${link%%:*}"
done
echo guest > /proc/sys/kernel/hostname
busybox ifconfig lo up

if [[ $GUEST_MODE == udev ]]; then
    /usr/lib/systemd/systemd-udevd --daemon
    udevadm trigger --action=add
    udevadm settle --timeout=120
else
    # Nobody would answer libdevmapper's cookies.
    export DM_DISABLE_UDEV=1
fi

/.guest/run
busybox poweroff -f
