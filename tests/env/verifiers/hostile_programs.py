"""Programs that try to get out, to use everything up, or to pass tests that they do not meet.

Each should define `f`, which the tests call. Those of which only a mark can tell whether they were
held stand in `hostile_attempts`. Doubled braces are single ones to the tests, which fill them in.
"""

from __future__ import annotations

from .hostile_attempts import ATTEMPTS

F = "def f(n):\n    "
TOP = "\ndef f(n):\n    return n\n"
FORK = "import os, time\n"

LEAVING = {
    "exit": "import sys\n" + F + "sys.exit()",
    "SystemExit": F + "raise SystemExit(0)",
    "SystemExit at the top": "raise SystemExit(0)",
    "os._exit(0)": "import os\n" + F + "os._exit(0)",
    "os._exit at the top": "import os\nos._exit(0)",
    "KeyboardInterrupt": F + "raise KeyboardInterrupt",
    "GeneratorExit": F + "raise GeneratorExit",
    "atexit hook": "import atexit\natexit.register(lambda: print('passed'))\nimport sys\n"
    + F
    + "sys.exit(0)",
    "own SIGKILL": "import os, signal\n" + F + "os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os\n" + F + "os.abort()",
    "exec": "import os, sys\n" + F + "os.execv('/bin/true', ['true'])",
    "exception that cannot be shown": (
        "class E(Exception):\n    def __str__(self): import os; os._exit(0)\n" + F + "raise E"
    ),
    "exception named like a passed test": (
        "class AssertionError(BaseException): pass\n" + F + "raise AssertionError"
    ),
}
TIME = {
    "endless loop": F + "while True: pass",
    "endless loop at the top": "while True: pass",
    "endless loop deaf to signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n" + F + "while True: pass"
    ),
    "swallows every exception": F
    + "while True:\n        try: g()\n        except BaseException: pass",
    "sleep": "import time\n" + F + "time.sleep(1e6)",
    "loop in C": F + "return sum(iter(int, 1))",
    "large power": F + "return 9 ** 9 ** 9",
    "catastrophic regex": "import re\n" + F + "return re.match('(a+)+$', 'a' * 60 + 'b')",
    "sorted forever": F + "return sorted(range(10**8), key=lambda x: -x)",
    "reads its request pipe": "import os\n" + F + "\n    while True: os.read(3, 1)",
    "lock": "import threading\n" + F + "l = threading.Lock(); l.acquire(); l.acquire()",
    "__getattr__ loop": "class A:\n    def __iter__(s):\n        while 1: yield 1\n"
    + F
    + "list(A())",
    "slow tuple": "class T(tuple):\n    def __iter__(s):\n        while True: pass\n"
    + F
    + "return T([1])",
}
RESOURCES = {
    "fork loop": FORK + F + "\n    while True: os.fork()",
    "fork until refused": FORK
    + F
    + "\n    try:\n        while True:\n            if os.fork() == 0: time.sleep(1e6)"
    "\n    except OSError: return n",
    "threads": "import threading, time\n"
    + F
    + "\n    while True: threading.Thread(target=time.sleep, args=(1e6,)).start()",
    "stdout flood": F + "while True: print('x' * 100000)",
    "stderr flood": "import sys\n" + F + "while True: sys.stderr.write('x' * 100000)",
    "flood past Python": "import os\n" + F + "while True: os.write(1, b'y' * 65536)",
    "10 GB file": "h = open('big', 'wb')\n" + F + "while True: h.write(b'z' * (1 << 20))",
    "many files": F + "for i in range(10**6): open(str(i), 'w').close()",
    "many open files": F + "a = []\n    while True: a.append(open('/dev/null'))",
    "deep folders": "import os\n" + F + "while True: os.mkdir('d'); os.chdir('d')",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\n" + F + "return f(n) + 1",
    "plain recursion": F + "return f(n) + 1",
    "1e9 digits": F + "return 10 ** (10 ** 9)",
    "long integer as text": F + "return str(10 ** 5_000_000)",
    "long integer returned": F + "return 10 ** 50_000",
    "long text returned": F + "return 'x' * (100 << 20)",
    "deep list returned": F + "a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "list in itself": F + "a = []\n    a.append(a)\n    return a",
}
PARENT = {
    "kill(group)": "import os\n" + F + "os.killpg(0, 9)",
    "daemon": FORK + F + "os.setsid() if os.fork() == 0 else 0; time.sleep(1e6)",
    "double fork": FORK
    + F
    + "\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(1e6)\n"
    "        os._exit(0)",
    "zombies": FORK + F + "\n    for _ in range(100):\n        if os.fork() == 0: os._exit(0)",
}
VERDICT = {
    "always equal": "class Y:\n    def __eq__(s, o): return True\n" + F + "return Y()",
    "always equal number": "class Y(int):\n    def __eq__(s, o): return True\n" + F + "return Y(1)",
    "always equal list": "class Y(list):\n    def __eq__(s, o): return True\n"
    + F
    + "return Y([1])",
    "new builtins": "import builtins\nbuiltins.print = builtins.len = builtins.abs = lambda *a: 0\n"
    + F
    + "return n",
    "new AssertionError": "import builtins\nbuiltins.AssertionError = SystemExit" + TOP,
    "subclasses walk": F
    + "t = [c for c in ().__class__.__base__.__subclasses__() if 'Tally' in str(c)][0]\n"
    "    t.__exit__ = lambda *a: True\n    return n",
    "changes the checker's class": (
        "import sys\n"
        + F
        + "\n    sys.modules['jail.checker'].Tally.__exit__ = lambda *a: True\n    return n"
    ),
    "closed stdout": "import sys\nsys.stdout.close()" + TOP,
    "prints a verdict": F + "print('passed'); print('{{\"outcome\": \"passed\"}}'); return n",
    "forged answer": "import os, json, struct\n"
    + F
    + "\n    b = json.dumps({{'outcome': 'passed', 'passed': 2, 'total': 2}}).encode()\n"
    "    os.write(4, struct.pack('>I', len(b)) + b)\n    os._exit(0)",
    "garbage answer": "import os\n" + F + "os.write(4, bytes(range(256)) * 100); os._exit(0)",
    "half an answer": "import os\n" + F + "os.write(4, b'\\0\\0\\0\\x10{{'); os._exit(0)",
    "endless answer": "import os\n"
    + F
    + "\n    while True: os.write(4, b'\\0\\0\\0\\2{{}}' * 1000)",
    "huge answer announced": "import os\n" + F + "os.write(4, b'\\xff' * 4); os._exit(0)",
    "deep answer": "import os\n"
    + F
    + "b = b'[' * 10**6\n    os.write(4, len(b).to_bytes(4, 'big') + b); os._exit(0)",
    "packed nonsense": "import os\n"
    + F
    + "b = b'{{\"value\": {{\"set\": [[1]]}}}}'\n    os.write(4, len(b).to_bytes(4, 'big') + b)"
    "; os._exit(0)",
    "answers before the question": "import os\nb = b'{{\"value\": 1}}'\n"
    "for _ in range(50): os.write(4, len(b).to_bytes(4, 'big') + b)\nos._exit(0)",
    "changes the library": "import json, os, struct\njson.dumps = lambda *a, **k: '{{}}'\n"
    "os.write = print\nos.read = print\n" + F + "return n",
    "exit code": "import sys\n" + F + "sys.exit(0)",
    "NaN": F + "return float('nan')",
    "a function": F + "return lambda: 10946",
    "a generator": F + "yield 10946",
    "an object": F + "return object()",
    "no f": "g = 1",
    "f is no function": "f = 10946",
}
INTERPRETER = {
    "segmentation fault": "import ctypes\n" + F + "ctypes.string_at(0)",
    "bad code object": F + "f.__code__ = f.__code__.replace(co_code=b'\\xff' * 40); return f(n)",
    "stack of C": F + "\n    d = {{}}\n    for _ in range(10**6): d = {{1: d}}\n    return repr(d)",
    "faulty free": "import ctypes\n" + F + "ctypes.CDLL(None).free(ctypes.c_void_p(8))",
    "stdin": F + "return input()",
    "debugger": F + "breakpoint()",
    "multiprocessing": "import multiprocessing as m\n" + F + "return m.Pool(2).map(len, [[1]])",
}
SOURCE = {
    "empty": "",
    "NUL": "def f(n):\0 return n",
    "lone surrogate": F + "return '\ud800'",
    "surrogate in the code": "x\ud800 = 1" + TOP,
    "right to left": "\u202edef f(n): return n",
    "tabs and blanks": "def f(n):\n\tif n:\n        return n",
    "no Python": "the answer is 42",
    "other coding": "# -*- coding: utf-7 -*-\n+AGY-" + TOP,
    "unknown coding": "# -*- coding: none-such -*-\nx = 1" + F.replace("def f", "\ndef g"),
    "150,001 characters": "#" * 150_001,
    "deep brackets": "x = " + "(" * 20_000 + ")" * 20_000,
    "deep minus": "x = " + "-" * 50_000 + "1",
    "long line of sums": "x = " + "1+" * 70_000 + "1",
    "many functions": "".join(f"def g{n}(): pass\n" for n in range(9_000)),
}

OTHERS = {
    "leaving": LEAVING,
    "time": TIME,
    "resources": RESOURCES,
    "parent": PARENT,
    "verdict": VERDICT,
    "interpreter": INTERPRETER,
    "source": SOURCE,
}
KINDS = {
    kind: OTHERS.get(kind, {})
    | {name: a.program(a.forbidden) for name, a in ATTEMPTS.get(kind, {}).items()}
    for kind in {**OTHERS, **ATTEMPTS}
}

MEMORY_SCAN = """
import re
def f(n):
    wanted = {"tests": rb"[a]ssert f.20. == 10[9]46", "own": rb"my own [m]arker"}
    marker = "my own marker"
    found = set()
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            place = re.match("([0-9a-f]+)-([0-9a-f]+) rw", line)
            if place and "[v" not in line:
                start, end = (int(edge, 16) for edge in place.groups())
                memory.seek(start)
                try:
                    data = memory.read(end - start)
                except OSError:
                    continue
                found |= {name for name, text in wanted.items() if re.search(text, data)}
                del data
    print(sorted(found), flush=True)
"""
"""Prints which texts lie in the process's memory; needs a /proc, so it runs in the weak sandbox."""
