"""What the kernel says about the mounted tree at argv[1], one JSON object a line, for
comparison with the reader."""
import hashlib, json, os, stat, sys

root = sys.argv[1]


def describe(path):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    content = ""
    if kind == stat.S_IFLNK:
        content = os.readlink(path)
    elif kind == stat.S_IFREG:
        with open(path, "rb") as f:
            digest = hashlib.sha256()
            digest.update(f.read(4 << 20))
            f.seek(max(s.st_size - 100_000, 0))
            digest.update(f.read(100_000))
            content = digest.hexdigest()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    digest = hashlib.sha256()
    for n in names:
        digest.update(n.encode() + b"\0" + os.getxattr(path, n, follow_symlinks=False))
    rdev = [os.major(s.st_rdev), os.minor(s.st_rdev)] if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) else [0, 0]
    return {
        "path": os.path.relpath(path, root), "ino": s.st_ino, "mode": s.st_mode,
        "nlink": s.st_nlink, "uid": s.st_uid, "gid": s.st_gid, "size": s.st_size,
        "mtime": s.st_mtime_ns, "blocks": s.st_blocks, "content": content,
        "xattrs": len(names), "digest": digest.hexdigest(), "rdev": rdev,
    }


def walk(path):
    print(json.dumps(describe(path)))
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in sorted(os.listdir(path)):
            walk(os.path.join(path, name))


walk(root)
