"""Fills the mounted XFS at argv[1] with every form of inode and tree, mixed with
deletions; argv[2] scales it, argv[3] seeds it. Used by the tests of the reader."""
import ctypes, fcntl, os, random, socket, struct, sys

root, scale = sys.argv[1], float(sys.argv[2])
rng = random.Random(int(sys.argv[3]))
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
block = max(os.statvfs(root).f_bsize, 4096)


def at(*parts):
    return os.path.join(root, *parts)


def count(n):
    return max(3, int(n * scale))


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def write(path, size):
    with open(path, "wb") as f:
        f.write(rng.randbytes(size))


def directories():
    for n in [0, 1, 3, 12, 40, 90, 300, 1200, 6000]:
        n = count(n) if n > 300 else n
        d = at(f"d{n}")
        if os.path.exists(d):
            continue
        os.mkdir(d)
        for i in range(n):
            name = f"entry-{i}" + "x" * rng.choice([0, 1, 7, 30, 200 if n < 1000 else 9])
            p = os.path.join(d, name)
            kind = i % 40
            if kind == 0:
                os.mkdir(p)
            elif kind == 1:
                os.symlink("t" * rng.choice([1, 20, 300, 1000]), p)
            elif kind == 2:
                os.mkfifo(p)
            elif kind == 3:
                os.mknod(p, 0o020600, os.makedev(1, 3))
            elif kind == 4:
                os.mknod(p, 0o060600, os.makedev(7, 300))
            else:
                os.close(os.open(p, os.O_CREAT | os.O_WRONLY))
        names = os.listdir(d)
        rng.shuffle(names)
        for name in names[: n // 3]:
            p = os.path.join(d, name)
            os.rmdir(p) if os.path.isdir(p) and not os.path.islink(p) else os.unlink(p)
        for name in names[n // 3 : n // 3 + n // 8]:
            os.rename(os.path.join(d, name), os.path.join(d, "moved-" + name[:100]))
    s = socket.socket(socket.AF_UNIX)
    os.chdir(root)
    s.bind("a-socket")
    s.close()
    for i, size in enumerate([1, 50, 300, 400, 500, 900, 1023]):
        os.symlink("s" * size, at(f"link{i}"))
    deep = root
    for i in range(60):
        deep = os.path.join(deep, f"deep{i}")
        os.mkdir(deep)


def files():
    os.mkdir(at("files"))
    for i in range(count(300)):
        write(at("files", f"f{i}"), rng.choice([0, 1, 100, 5000, 70000]))
    for i in range(count(100)):
        os.unlink(at("files", f"f{3 * i % count(300)}")) if os.path.exists(
            at("files", f"f{3 * i % count(300)}")
        ) else None
    for i in range(count(40)):
        f = f"f{3 * i + 1}"
        if os.path.exists(at("files", f)):
            os.link(at("files", f), at("files", f"hard{i}"))
    fragmented = count(2400)
    with open(at("fragmented"), "wb") as f:
        f.write(rng.randbytes(block) * fragmented)
        f.flush()
        os.fsync(f.fileno())
        for i in range(0, fragmented, 2):
            fallocate(f.fileno(), 3, i * block, block)
    with open(at("sparse"), "wb") as f:
        for i in range(20):
            f.seek(i * 900_000_007)
            f.write(b"data")
    with open(at("unwritten"), "wb") as f:
        fallocate(f.fileno(), 0, 0, 3_000_000)
        f.seek(1_000_000)
        f.write(rng.randbytes(200_000))
        fallocate(f.fileno(), 1, 8_000_000, 100_000)
    with open(at("truncated"), "wb") as f:
        f.write(rng.randbytes(3_000_000))
        f.flush()
        os.fsync(f.fileno())
        f.truncate(1_234_567)


def reflinks():
    clone, clone_range = 0x40049409, 0x4020940D
    original = at("original")
    write(original, 2_000_000)
    src = os.open(original, os.O_RDONLY)
    os.fsync(src)
    for i in range(6):
        dst = os.open(at(f"clone{i}"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.ioctl(dst, clone, src)
        except OSError:
            os.close(dst)
            os.unlink(at(f"clone{i}"))
            return
        for _ in range(count(20)):
            os.pwrite(dst, rng.randbytes(100), rng.randrange(2_000_000))
        where = rng.randrange(16) * 65536
        target = rng.randrange(100) * 65536
        fcntl.ioctl(dst, clone_range, struct.pack("qQQQ", src, where, 65536 * 2, target))
        os.fsync(dst)
        os.close(dst)
    os.close(src)
    os.unlink(at("clone2"))


def attributes():
    for n, size in [(1, 10), (3, 40), (20, 30), (3, 3000), (count(400), 60), (4, 60_000)]:
        p = at(f"attrs-{n}-{size}")
        write(p, 10)
        for i in range(n):
            os.setxattr(p, f"user.name-{i}", rng.randbytes(size))
            os.setxattr(p, f"trusted.t{i}", b"trusted")
        for i in range(0, n, 5):
            os.removexattr(p, f"user.name-{i}")
    os.setxattr(at("d3"), "security.test", b"x" * 50)
    many = at("many-names")
    write(many, 1)
    os.mkdir(at("names"))
    for i in range(count(600)):
        os.link(many, at("names", f"name-{i}-" + "n" * rng.randrange(60)))


directories()
files()
reflinks()
attributes()
os.sync()
