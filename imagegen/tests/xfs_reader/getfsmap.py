"""What FS_IOC_GETFSMAP says of the file system mounted at argv[1], for each following
argument START-END in bytes: one line of JSON, a list of [start, length, owner, offset,
flags]."""
import fcntl, json, os, struct, sys

FSMAP = struct.Struct("=IIQQQQQQQ")
GETFSMAP = 0xC0C0583B
SPECIAL, LAST, COUNT = 0x10, 0x20, 1000
NAMES = {
    (0, 1): "free space", (0, 2): "unknown", (88, 1): "static fs metadata",
    (88, 2): "journalling log", (88, 3): "per-AG metadata", (88, 4): "inode btree",
    (88, 5): "inodes", (88, 6): "refcount btree", (88, 7): "cow reservation",
}


def query(fd, start, end):
    number = os.fstat(fd).st_dev
    major, minor = os.major(number), os.minor(number)
    device = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12  # new_encode_dev
    low = FSMAP.pack(device, 0, start, 0, 0, 0, 0, 0, 0)
    high = FSMAP.pack(device, 0xFFFFFFFF, end - 1, 2**64 - 1, 2**64 - 1, 0, 0, 0, 0)
    rows = []
    while True:
        head = struct.pack("=IIII6Q", 0, 0, COUNT, 0, *[0] * 6)
        buffer = bytearray(head + low + high + bytes(COUNT * FSMAP.size))
        fcntl.ioctl(fd, GETFSMAP, buffer)
        entries = struct.unpack_from("=I", buffer, 12)[0]
        if entries == 0:
            return rows
        for i in range(entries):
            at = len(head) + 2 * FSMAP.size + i * FSMAP.size
            device, flags, physical, owner, offset, length, *_ = FSMAP.unpack_from(buffer, at)
            if flags & SPECIAL:
                owner = NAMES[owner >> 32, owner & 0xFFFFFFFF]
            rows.append([physical, length, owner, offset, flags & 0xF])
        if flags & LAST:
            return rows
        low = FSMAP.pack(device, flags, physical, *FSMAP.unpack_from(buffer, at)[3:])


fd = os.open(sys.argv[1], os.O_RDONLY)
for word in sys.argv[2:]:
    start, end = map(int, word.split("-"))
    print(json.dumps(query(fd, start, end)))
