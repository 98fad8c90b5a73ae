"""Ages the mounted XFS at argv[1], seed argv[2]: creates, grows, cuts, punches, clones,
renames, links, sets attributes and deletes, by chance."""
import ctypes, fcntl, os, random, stat, struct, sys

root, rng = sys.argv[1], random.Random(int(sys.argv[2]))
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
os.chdir(root)
dirs, files = ["."], []
for d, subdirs, names in os.walk("."):
    dirs += [os.path.join(d, s) for s in subdirs]
    paths = [os.path.join(d, n) for n in names]
    files += [p for p in paths if stat.S_ISREG(os.lstat(p).st_mode)]


def name():
    return os.path.join(rng.choice(dirs), "n" * rng.choice([0, 0, 3, 40, 150]) + str(rng.random()))


def create():
    p = name()
    with open(p, "wb") as f:
        f.write(rng.randbytes(rng.choice([0, 10, 4096, 30_000, 300_000])))
    files.append(p)


def touched(action):
    if files:
        p = rng.choice(files)
        fd = os.open(p, os.O_RDWR)
        try:
            action(p, fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)


def clone(p, fd, size):
    q = name()
    dst = os.open(q, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.ioctl(dst, 0x40049409, fd)
    except OSError:
        pass
    os.close(dst)
    files.append(q)


def link(p, fd, size):
    q = name()
    os.link(p, q)
    files.append(q)


def delete():
    if files:
        os.unlink(files.pop(rng.randrange(len(files))))


def attribute(p, fd, size):
    n = f"user.{rng.randrange(40)}"
    os.setxattr(fd, n, rng.randbytes(rng.choice([0, 5, 60, 900, 5000, 20_000])))
    if rng.random() < 0.3:
        os.removexattr(fd, n)


def directory():
    p = name()
    os.mkdir(p)
    dirs.append(p)


def rename():
    if files:
        i = rng.randrange(len(files))
        q = name()
        os.rename(files[i], q)
        files[i] = q


def hint(p, fd, size):
    """Extent size hints, of allocation and of copies on write (FS_IOC_FSSETXATTR)."""
    if size == 0 and os.fstat(fd).st_blocks == 0:
        flags = rng.choice([0x800, 0x10000, 0x10800])
        extent = 65536 if flags & 0x800 else 0
        cow = 131072 if flags & 0x10000 else 0
        try:
            fcntl.ioctl(fd, 0x401C5820, struct.pack("=IIIII8x", flags, extent, 0, 0, cow))
        except OSError:
            pass


acts = [
    (30, create), (20, delete), (3, directory), (8, rename),
    (12, lambda: touched(lambda p, fd, size: os.pwrite(fd, rng.randbytes(5000), rng.randrange(size + 100_000)))),
    (6, lambda: touched(lambda p, fd, size: os.ftruncate(fd, rng.randrange(size + 50_000)))),
    (8, lambda: touched(lambda p, fd, size: libc.fallocate(fd, 3, rng.randrange(size + 1), 9000))),
    (4, lambda: touched(lambda p, fd, size: libc.fallocate(fd, 1, size, 70_000))),
    (5, lambda: touched(clone)), (5, lambda: touched(link)), (9, lambda: touched(attribute)), (9, lambda: touched(hint)),
]
acts = [act for weight, act in acts for _ in range(weight)]
for _ in range(6000):
    rng.choice(acts)()
for _ in range(len(files) // 2):
    delete()
os.sync()
