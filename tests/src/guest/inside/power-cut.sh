#!/bin/bash
# Asks the host to kill this machine at once, as a power cut would.
for entry in /sys/class/virtio-ports/*; do
    if [[ -e $entry/name && $(< "$entry/name") == csnap.control ]]; then
        echo power-cut > "/dev/${entry##*/}"
    fi
done
# Nothing may run between the request and the cut.
sleep 60
