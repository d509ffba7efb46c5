"""One block, one process, forked from a server that has imported torch, no more.

The fork server runs no operation of torch, since a fork after an OpenMP operation can
hang for ever. Everything below `confine` happens in the block's own process.
"""

from __future__ import annotations
import __future__

import ast
import base64
import contextlib
import ctypes
import linecache
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

if sys.platform != "win32":
    import fcntl
    import resource

# Torch imports its compiler with the first optimizer: as much again as torch itself.
PRELOAD = ["torch", "torch._dynamo", "numpy.random", "pytest"]
PRELOAD += ["proof.sandbox", "proof.warm"]
FUTURES = sum(
    getattr(__future__, f).compiler_flag for f in __future__.all_feature_names
)
SEPARATOR = "\x1e"
OUTPUT_LIMIT = 1 << 20
FILES_LIMIT = 4 << 20
GRACE = 5.0  # for a process to end that has said what came of its block
PARTING = 3.0  # for a thread or child to end that the block has told to


@dataclass(frozen=True)
class Job:
    """What one process is to run."""

    language: str
    parts: list[str]
    timeout: float
    memory: float
    seed: int
    ignored_warnings: tuple[str, ...] = ()
    clone_of: Path | None = None
    snippets: Path | None = None  # a folder that the block may import from
    keeps_files: bool = False


@dataclass
class Result:
    """What came of it; `line` counts lines of the whole code from 1, 0 if unknown."""

    outputs: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # what it wrote, in base64
    error_type: str = ""
    error: str = ""
    line: int = 0
    details: str = ""
    seconds: float = 0.0
    torch: str = ""


class Sandbox:
    """Starts processes for blocks; may be called from several threads at once."""

    def __init__(self, seed: int) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context(
            "forkserver" if forks else "spawn"
        )
        if forks:
            self.context.set_forkserver_preload(PRELOAD)
        # Read once, when the server starts: every block inherits them.
        os.environ["PYTHONHASHSEED"] = str(seed)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.processes: set[Any] = set()
        # Starting a process asks after all others, and of two threads that ask after
        # one process at once, one is told that it ended with 255, whatever it did.
        self.lock = threading.Lock()

    def run(self, job: Job) -> Result:
        """Run the job to its end, whatever that is."""
        receiver, sender = self.context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(
            prefix="block-", ignore_cleanup_errors=True
        ) as home:
            process = self.context.Process(target=_main, args=(sender, job, home))
            with self.lock:
                process.start()
            self.processes.add(process)
            sender.close()
            ended_well = False
            try:
                if not receiver.poll(job.timeout):
                    limit = f"still running after its limit of {job.timeout:g} s"
                    return Result(error_type="TimeLimit", error=limit)
                result: Result = receiver.recv()
                ended_well = self._exit_code(process, GRACE) == 0
                return result
            except EOFError:
                code = self._exit_code(process, None)
                return Result(error_type="Died", error=_death(code))
            finally:
                receiver.close()
                if not ended_well:
                    _kill(process, home)
                self._exit_code(process, None)
                self.processes.discard(process)

    def _exit_code(self, process: Any, timeout: float | None) -> int | None:
        """Wait for the process to end, and ask after it alone."""
        wait([process.sentinel], timeout)
        with self.lock:
            return process.exitcode  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End what still runs."""
        for process in list(self.processes):
            process.kill()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the block's process was killed by {signal.Signals(-code).name}"
    return f"the block ended its own process with exit code {code}"


def _kill(process: Any, home: str) -> None:
    """Kill the process and all that descends from it."""
    family = []
    if not wait([process.sentinel], 0):
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    # A child that left the session of a process that died: its folder gives it away.
    for stranger in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if stranger.cwd() == home or stranger.environ().get("HOME") == home:
                family.append(stranger)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _main(sender: Connection, job: Job, home: str) -> None:
    """Run in the block's process: confine it, run the block, say what came of it."""
    confine(job, home)
    if job.clone_of:
        command = ["git", "clone", "--quiet", str(job.clone_of), "clone"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    if job.snippets:
        Path(job.snippets.name).symlink_to(job.snippets)
    found = {path.name for path in Path(home).iterdir()}
    started = time.perf_counter()
    result = _run_python(job) if job.language == "python" else _run_shell(job)
    result.seconds = time.perf_counter() - started
    if job.keeps_files and not result.error_type:
        _keep_files(Path(home), found, result)
    if not result.error_type and (left := _left_behind()):
        result.error_type, result.error = "LeftBehind", left
    # As a plain string: to unpickle a TorchVersion, the receiver would import torch.
    result.torch = str(getattr(sys.modules.get("torch"), "__version__", ""))
    sender.send(result)
    sender.close()
    sys.stdout.flush()
    os._exit(1 if result.error_type == "LeftBehind" else 0)


def confine(job: Job, home: str) -> None:
    """Shut the process in: its folder, its memory, its network, its random numbers."""
    import numpy.random
    import torch

    multiprocessing.set_start_method(None, force=True)
    os.chdir(home)
    os.environ |= {"HOME": home, "TMPDIR": home}
    tempfile.tempdir = None
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    os.environ["PATH"] = os.pathsep.join(path)
    if sys.platform != "win32":
        os.setsid()
        limit = int(job.memory * 2**30)
        with contextlib.suppress(ValueError):  # macOS knows the limit and refuses it.
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not to outlive the server
        libc.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans are ours to find
        _cut_network(libc)
    _guard_network()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
        stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    torch.default_generator.manual_seed(job.seed)
    numpy.random.seed(job.seed)
    random.seed(job.seed)


def _cut_network(libc: ctypes.CDLL) -> None:
    """Give the process a network of its own, loopback only, where that is allowed."""
    new_user, new_network = 0x10000000, 0x40000000
    if libc.unshare(new_network) and libc.unshare(new_user | new_network):
        return
    request = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
    with (
        contextlib.suppress(PermissionError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle,
    ):
        fcntl.ioctl(handle, 0x8914, request)  # SIOCSIFFLAGS


def _guard_network() -> None:
    """Name the network as what is wrong, before the operating system says less."""
    here = {
        None,
        "",
        b"",
        "localhost",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        socket.gethostname(),
    }
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def check(host: object) -> None:
        if host not in here:
            raise PermissionError(f"code of a page must not use the network ({host})")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            check(address[0])
        connect(self, address)

    def guarded_look_up(host: Any, *args: Any, **options: Any) -> Any:
        check(host)
        return look_up(host, *args, **options)

    socket.socket.connect = guarded_connect  # type: ignore[assignment,method-assign]
    socket.getaddrinfo = guarded_look_up


def _run_python(job: Job) -> Result:
    """Run the parts one after the other, as one script called block.py would run."""
    path, code = os.path.abspath("block.py"), "".join(job.parts)
    Path(path).write_text(code, "utf-8")
    linecache.checkcache(path)
    main = types.ModuleType("__main__")
    main.__file__ = path
    sys.modules["__main__"] = main
    sys.argv[:] = [path]
    outside = {"", os.getcwd(), str(Path(__file__).resolve().parent.parent)}
    sys.path[:] = [os.getcwd(), *(entry for entry in sys.path if entry not in outside)]
    unseen: list[BaseException] = []  # errors in threads and destructors
    threading.excepthook = lambda args: unseen.append(args.exc_value or SystemExit())
    sys.unraisablehook = lambda args: unseen.append(args.exc_value or SystemExit())
    result = Result()
    warnings.resetwarnings()
    warnings.simplefilter("error")
    for message in job.ignored_warnings:
        warnings.filterwarnings("ignore", message=message)
    try:
        flags = compile(code, path, "exec", dont_inherit=True).co_flags & FUTURES
        statements, end = ast.parse(code, path).body, 0
        for part in job.parts:
            end += part.count("\n")
            body = [s for s in statements if end - part.count("\n") < s.lineno <= end]
            tree = ast.Module(body, [])
            exec(compile(tree, path, "exec", flags, dont_inherit=True), main.__dict__)
            if unseen:
                raise unseen[0]
            result.outputs.append(_taken_output())
    except BaseException as error:  # SystemExit too: a page must not end the process
        result.outputs.append(_taken_output())
        _describe(error, path, result)
    return result


def _keep_files(home: Path, found: set[str], result: Result) -> None:
    """Take what the block wrote into its folder, for the page to show and offer."""
    size = 0
    for path in sorted(home.iterdir()):
        if path.is_file() and path.name not in {*found, "block.py"}:
            size += path.stat().st_size
            if size > FILES_LIMIT:
                result.error_type = "TooMuch"
                result.error = f"its files are larger than {FILES_LIMIT >> 20} MiB"
                return
            result.files[path.name] = base64.b64encode(path.read_bytes()).decode()


def _describe(error: BaseException, path: str, result: Result) -> None:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    result.error_type = module + kind.__qualname__
    result.error = "its message cannot be shown: its __str__ raises"
    with contextlib.suppress(Exception):
        result.error = str(error)
    with contextlib.suppress(Exception):
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame.lineno for frame in frames if frame.filename == path]
        result.line = (inside or [getattr(error, "lineno", 0)])[-1] or 0
        shown = traceback.TracebackException.from_exception(error, limit=-12)
        here = os.path.dirname(__file__)
        kept = [frame for frame in shown.stack if not frame.filename.startswith(here)]
        shown.stack = traceback.StackSummary.from_list(kept)
        result.details = "".join(shown.format())


def _run_shell(job: Job) -> Result:
    """Run the parts as one script that stops at the first command that fails."""
    # Each part says that its end was reached: `exit 0` must not skip the rest.
    reached = f"printf '\\{ord(SEPARATOR):o}'\n"
    code = "".join(part + reached for part in job.parts)
    # In the script, since bash takes no PS4 from the environment of root.
    options = "set -exo pipefail" if job.language == "bash" else "set -ex"
    script = Path("block.sh").absolute()
    script.write_text(f"PS4='{SEPARATOR}$LINENO '; {options}; {code}", "utf-8")
    command = [job.language, str(script)]
    done = subprocess.run(command, cwd="clone" if job.clone_of else None, check=False)
    outputs = _taken_output().split(SEPARATOR)
    result = Result(outputs=outputs[: len(job.parts)])
    if done.returncode:
        result.error_type = "ExitCode"
        result.error = f"the command ended with exit code {done.returncode}"
    elif len(outputs) <= len(job.parts):
        result.error_type = "EarlyExit"
        result.error = "the script ended before its last line"
    if result.error_type:
        said = _written(2)
        # bash repeats the first character of PS4 in subshells; dash has no $LINENO.
        trace = re.compile(rf"^{SEPARATOR}+(\d*) .*\n?", re.MULTILINE)
        named = re.findall(r"block\.sh: (?:line )?(\d+): ", said)
        numbers = [int(number) for number in named or trace.findall(said) if number]
        result.line = _line_without_marks(numbers[-1], job.parts) if numbers else 0
        result.details = outputs[-1][-4000:] + trace.sub("", said)[-4000:]
    return result


def _line_without_marks(number: int, parts: list[str]) -> int:
    end = 0
    for marks, part in enumerate(parts):
        end += part.count("\n") + 1
        if number <= end:
            return number - marks
    return 0


def _written(descriptor: int) -> str:
    """Read all that was written there; the folder may have been left meanwhile."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode("utf-8", "replace")


def _taken_output() -> str:
    """Take what has been printed since the last call, by whatever way."""
    sys.stdout.flush()
    text = _written(1)
    os.ftruncate(1, 0)
    if len(text) > OUTPUT_LIMIT:
        text = text[:OUTPUT_LIMIT] + "\n[output cut]\n"
    return text


def _left_behind() -> str:
    """Name a thread or a process that the block left running, if there is one."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(PARTING)
            if thread.is_alive():
                return f"it left a thread running ({thread.name}): join or stop it"
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return _child_left_behind()
    return ""


def _child_left_behind() -> str:
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    own = getattr(getattr(tracker, "_resource_tracker", None), "_pid", None)
    children = psutil.Process().children(recursive=True)
    children = [child for child in children if child.pid != own]
    _, alive = psutil.wait_procs(children, PARTING)
    message = ""
    for child in alive:
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE:
                command = " ".join(child.cmdline())[:80]
                message = f"it left a process running ({command}): wait for or stop it"
                child.kill()
    return message
