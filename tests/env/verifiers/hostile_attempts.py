"""Attempts at what the sandbox forbids, each beside a harmless one that must succeed.

A program that is held looks like one that broke for another reason: both fail. So every attempt
prints a mark directly after the forbidden act, which nobody may see; and its harmless act, in the
same words and the same sandbox, prints the mark too, which everybody must see.

`{secret}`, `{port}`, `{pid}`, `{packages}` and `{repository}` are filled in by the tests.
"""

from __future__ import annotations

from typing import NamedTuple

MARK = "print('FOUND', flush=True)"
"""Flushed, because what is not dies with the process."""


class Attempt(NamedTuple):
    """A forbidden act and a harmless one, and what both need.

    Attributes:
        modules: that they import.
        forbidden: the act, one or more lines of a function.
        harmless: the same with another object.
        rest: lines after either, which raise if the act has not succeeded.
    """

    modules: str
    forbidden: str
    harmless: str
    rest: str = ""

    def program(self, act: str) -> str:
        """Return the program that does one of the two acts and then prints the mark."""
        body = "\n".join((act, *filter(None, [self.rest]), MARK))
        indented = body.replace("\n", "\n    ")
        return f"import {self.modules}\ndef f(n):\n    {indented}\n"


FREE = "assert ctypes.CDLL(None).access(b'/tmp', 0) == 0"
PAIR = "socket.socketpair()"
WALK = """found = []
for place, folders, files in os.walk('/'):
    folders[:] = [name for name in folders if 'lib' not in name]
    found += [name for name in files if name == wanted]
assert found"""
KILL = """hit = 0
for number in numbers:
    try: os.kill(number, signal); hit += 1
    except OSError: pass
assert hit"""
WRITE = """hit = 0
for number in numbers:
    try: os.write(number, b'passed'); hit += 1
    except OSError: pass
assert hit"""
START = """child = os.posix_spawn(path, [path, '--version'], {{}})
assert os.waitpid(child, 0)[1] == 0"""

FILES = {
    "/etc/passwd": Attempt("os", "open('/etc/passwd').read()", "open(os.__file__).read()"),
    "secret file": Attempt(
        "os", "open({secret!r}).read()", "open('own', 'w').close(); open('own').read()"
    ),
    "secret through a link": Attempt(
        "os",
        "os.symlink({secret!r}, 'link'); open('link').read()",
        "open('own', 'w').close(); os.symlink('own', 'link'); open('link').read()",
    ),
    "walk of all files": Attempt(
        "os", "wanted = 'secret'", "wanted = 'own'; open('own', 'w').close()", WALK
    ),
    "writes into the library": Attempt(
        "os", "open(os.__file__, 'a').write('#')", "open('own', 'a').write('#')"
    ),
    "plants a module": Attempt(
        "os",
        "open(os.path.dirname(os.__file__) + '/planted.py', 'w').write('x = 1')",
        "open(os.getcwd() + '/planted.py', 'w').write('x = 1')",
    ),
    "device": Attempt(
        "os, stat", "os.mknod('d', 0o600 | stat.S_IFBLK, os.makedev(8, 0))", "os.mkfifo('d')"
    ),
    "mount": Attempt(
        "ctypes", "assert ctypes.CDLL(None).mount(b'p', b'/tmp', b'proc', 0, 0) == 0", FREE
    ),
    "chroot": Attempt("os", "os.chroot('/tmp')", "os.chdir('/tmp')"),
    "installed packages": Attempt(
        "sys",
        "sys.path.insert(0, {packages!r})",
        "sys.path.insert(0, '.'); open('numpy.py', 'w').close()",
        "import numpy",
    ),
    "the tests' own data": Attempt(
        "sys",
        "sys.path.insert(0, {repository!r})",
        "sys.path.insert(0, '.'); open('maporl_env.py', 'w').close()",
        "import maporl_env",
    ),
    "setuid program": Attempt(
        "os, glob", "path = '/bin/su'", "path = glob.glob('/lib*/ld-linux*')[0]", START
    ),
    "graphics card": Attempt("os", "open('/dev/nvidia0').read()", "open('/dev/null').read()"),
}
PARENT = {
    "environment": Attempt(
        "os", "os.environ['CANARY']", "os.environ['OWN'] = ''; os.environ['OWN']"
    ),
    "/proc/1/environ": Attempt("os", "open('/proc/1/environ').read()", "open('/dev/null').read()"),
    "/proc/self/mem": Attempt("os", "open('/proc/self/mem', 'wb')", "open('/dev/null', 'wb')"),
    "parent's memory": Attempt(
        "os", "open('/proc/%d/mem' % os.getppid(), 'rb')", "open('/dev/zero', 'rb')"
    ),
    "caller's memory": Attempt("os", "open('/proc/{pid}/mem', 'rb')", "open('/dev/zero', 'rb')"),
    "ptrace": Attempt("ctypes", "assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0", FREE),
    "kill(-1)": Attempt("os", "os.kill(-1, 9)", "os.kill(os.getpid(), 0)"),
    "kill(parent)": Attempt("os", "os.kill(os.getppid() or 2, 9)", "os.kill(os.getpid(), 0)"),
    "reaches its caller": Attempt("os", "os.kill({pid}, 0)", "os.kill(os.getpid(), 0)"),
    "kill every number": Attempt(
        "os", "numbers, signal = range(2, 32768), 9", "numbers, signal = (1,), 0", KILL
    ),
    "outlives its supervisor": Attempt(
        "ctypes",
        "assert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0",
        "assert ctypes.CDLL(None).prctl(15, b'x', 0, 0, 0) == 0",
    ),
    "other descriptors": Attempt("os", "numbers = range(5, 1000)", "numbers = (1,)", WRITE),
    "new user namespace": Attempt(
        "ctypes", "assert ctypes.CDLL(None).unshare(0x10000000) == 0", FREE
    ),
    "priority": Attempt("os", "os.nice(-20)", "os.nice(0)"),
    "raises its limits": Attempt(
        "resource as r",
        "r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))",
        "r.setrlimit(r.RLIMIT_CORE, (0, 0))",
    ),
    "host name": Attempt("socket", "socket.sethostname('x')", "socket.gethostname()"),
}
NETWORK = {
    "loopback": Attempt("socket", "socket.create_connection(('127.0.0.1', {port}), 1)", PAIR),
    "reward server": Attempt(
        "urllib.request",
        "urllib.request.urlopen('http://127.0.0.1:{port}/score')",
        "urllib.request.urlopen('data:,score')",
    ),
    "name service": Attempt(
        "socket",
        "socket.getaddrinfo('example.com', 80)",
        "socket.getaddrinfo('127.0.0.1', 80, flags=socket.AI_NUMERICHOST)",
    ),
    "datagrams": Attempt("socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", PAIR),
    "unix socket": Attempt("socket", "socket.socket(socket.AF_UNIX)", PAIR),
    "listens": Attempt("socket", "socket.create_server(('127.0.0.1', 0))", PAIR),
    "raw socket": Attempt("socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", PAIR),
}
MEMORY = {
    "10 GB list": Attempt("os", "size = 10 << 30", "size = 1 << 20", "a = [0] * (size // 8)"),
    "memory step by step": Attempt(
        "os", "steps = 300", "steps = 3", "a = [bytearray(1 << 20) for _ in range(steps)]"
    ),
    "memory by doubling text": Attempt(
        "os", "times = 30", "times = 20", "s = 'a'\nfor _ in range(times): s += s"
    ),
    "shared memory": Attempt("mmap", "size = 10 << 30", "size = 1 << 20", "mmap.mmap(-1, size)"),
    "memory file": Attempt("os", "os.memfd_create('x')", "open('x', 'w')"),
    "zip bomb": Attempt(
        "zlib", "size = 1 << 29", "size = 1 << 20", "zlib.decompress(zlib.compress(bytes(size)))"
    ),
    "100 files open": Attempt(
        "os", "count = 100", "count = 10", "a = [open('/dev/null') for _ in range(count)]"
    ),
    "100 MB file": Attempt(
        "os",
        "count = 100",
        "count = 2",
        "h = open('big', 'wb')\nfor _ in range(count): h.write(bytes(1 << 20))",
    ),
    "2,000 files": Attempt(
        "os", "count = 2000", "count = 20", "for i in range(count): open(str(i), 'w').close()"
    ),
    "100 processes": Attempt(
        "os, time",
        "count = 100",
        "count = 2",
        "for _ in range(count):\n    if os.fork() == 0: time.sleep(9)",
    ),
}
PROGRAMS = {
    "subprocess": Attempt(
        "glob, subprocess",
        "command = ['id']",
        "command = [*glob.glob('/lib*/ld-linux*'), '--version']",
        "subprocess.run(command, check=True)",
    ),
    "os.system": Attempt(
        "os", "status = os.system('id > /dev/null')", "status = 0", "assert status == 0"
    ),
}
VERDICT = {
    "frames": Attempt(
        "sys",
        "wanted = 'ASSERT F(20)'.lower()",
        "wanted = 'OWN MARKER'.lower(); seen = [wanted]",
        "frame, texts = sys._getframe(), []\n"
        "while frame:\n"
        "    texts += map(repr, [*frame.f_locals.values(), *frame.f_globals.values()])\n"
        "    frame = frame.f_back\n"
        "assert any(wanted in text for text in texts if text != repr(wanted))",
    ),
    "gc walk": Attempt(
        "gc",
        "wanted = 'ASSERT F(20)'.lower()",
        "wanted = 'OWN MARKER'.lower(); seen = [wanted]",
        "assert any(\n"
        "    wanted in str(o) for o in gc.get_objects() if isinstance(o, (dict, list, tuple))\n"
        ")",
    ),
}

ATTEMPTS = {
    "files": FILES,
    "parent": PARENT,
    "network": NETWORK,
    "resources": MEMORY,
    "interpreter": PROGRAMS,
    "verdict": VERDICT,
}
