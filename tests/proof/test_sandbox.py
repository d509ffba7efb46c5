"""What must work in a block's own process, and what must not get out of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from proof.page import normalise
from proof.sandbox import Job, Result, Sandbox

IGNORED = ("`torch.jit.script",)  # As in pyproject.toml.

# Each block prints `True` once or more, and nothing else.
WORKS = {
    "main guard": """
        if __name__ == "__main__":
            print(True)
        """,
    "its own module": """
        import sys

        print(sys.modules["__main__"].__dict__ is globals())
        print(sys.argv == [__file__])
        """,
    "pickle of a class": """
        import pickle


        class Point:
            def __init__(self, x):
                self.x = x


        print(pickle.loads(pickle.dumps(Point(3))).x == 3)
        print(Point.__module__ == "__main__")
        """,
    "saving a model": """
        import torch
        from torch import nn


        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(2, 2)


        net = Net()
        torch.save(net, "net.pt")
        torch.save(net.state_dict(), "state.pt")
        again = torch.load("net.pt", weights_only=False)
        print(torch.equal(again.layer.weight, net.layer.weight))
        print(list(torch.load("state.pt")) == ["layer.weight", "layer.bias"])
        """,
    "dataclass with later annotations": """
        from __future__ import annotations

        import dataclasses
        import typing


        @dataclasses.dataclass
        class Config:
            width: int = 64
            _: dataclasses.KW_ONLY
            other: Config | None = None


        print(Config(3, other=Config()).other.width == 64)
        print(typing.get_type_hints(Config)["width"] is int)
        print(typing.get_type_hints(Config)["other"] == Config | None)
        """,
    "source of functions and classes": """
        import inspect


        class Net:
            def forward(self, x):
                return x


        def double(x):

            return 2 * x


        print(inspect.getsource(double).endswith("return 2 * x\\n"))
        print(inspect.getsource(Net).startswith("class Net:"))
        print(inspect.getsource(Net.forward).count("\\n") == 2)
        """,
    "processes that spawn": """
        import torch.multiprocessing as mp


        def work(rank, queue):
            queue.put(rank)


        if __name__ == "__main__":
            queue = mp.get_context("spawn").SimpleQueue()
            mp.spawn(work, args=(queue,), nprocs=1)
            print(queue.get() == 0)
        """,
    "processes that fork": """
        import multiprocessing as mp


        def double(x):
            return 2 * x


        if __name__ == "__main__":
            with mp.get_context("fork").Pool(2) as pool:
                print(pool.map(double, [1, 2, 3]) == [2, 4, 6])
        """,
    "workers of a data loader": """
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        data = TensorDataset(torch.arange(8.0))
        batches = [x for (x,) in DataLoader(data, batch_size=2, num_workers=2)]
        print(torch.equal(torch.cat(batches), torch.arange(8.0)))
        """,
    "compile": """
        import torch


        @torch.compile(backend="eager")
        def double(x):
            return 2 * x


        print(torch.equal(double(torch.ones(2)), torch.full((2,), 2.0)))
        """,
    "export": """
        import torch
        from torch import nn

        net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        program = torch.export.export(net, (torch.ones(1, 2),))
        x = torch.ones(1, 2)
        print(torch.equal(program.module()(x), net(x)))
        """,
    "symbolic trace": """
        import torch
        from torch import fx, nn

        traced = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        print(len(list(traced.graph.nodes)) == 4)
        """,
    "script": """
        import torch


        @torch.jit.script
        def double(x):
            return 2 * x


        print(double(torch.ones(1)).item() == 2)
        """,
    "doctest": """
        import doctest


        def double(x):
            '''
            >>> double(2)
            4
            '''
            return 2 * x


        print(doctest.testmod() == (0, 1))
        """,
    "sockets of this machine": """
        import socket

        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as client:
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"x")
                    print(accepted.recv(1) == b"x")
        print(len(socket.getaddrinfo("localhost", 80)) > 0)
        """,
    "process group": """
        import os

        import torch
        import torch.distributed as dist

        path = os.path.abspath("rendezvous")
        dist.init_process_group(
            "gloo", init_method=f"file://{path}", rank=0, world_size=1
        )
        x = torch.ones(2)
        dist.all_reduce(x)
        print(torch.equal(x, torch.ones(2)))
        dist.destroy_process_group()
        """,
    "process group by environment": """
        import os

        import torch.distributed as dist

        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29411"}
        dist.init_process_group("gloo", rank=0, world_size=1)
        print(dist.get_world_size() == 1)
        dist.destroy_process_group()
        """,
    "Python in a process": """
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True
        )
        print(done.stdout == "42\\n")
        print(subprocess.run(["python", "-c", ""]).returncode == 0)
        """,
    "output past Python": """
        import os
        import subprocess
        import sys

        print("T", end="")
        sys.stdout.flush()
        os.write(1, b"ru")
        subprocess.run(["printf", "e"])
        print()
        """,
    "threads that end": """
        import threading

        thread = threading.Thread(target=print, args=(True,))
        thread.start()
        thread.join()
        """,
    "asyncio": """
        import asyncio


        async def main():
            await asyncio.sleep(0)
            print(True)


        asyncio.run(main())
        """,
    "files of its own": """
        import tempfile
        from pathlib import Path

        Path("x.txt").write_text("x")
        with tempfile.NamedTemporaryFile() as file:
            print(Path(file.name).parent == Path.cwd() == Path.home())
        """,
    "warnings that are caught": """
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning)
        print(len(caught) == 1)
        """,
    "what nobody raises": """
        try:
            raise SystemExit(3)
        except SystemExit as error:
            print(error.code == 3)
        """,
    "another folder": """
        import os

        os.mkdir("inner")
        os.chdir("inner")
        print(os.path.basename(os.getcwd()) == "inner")
        """,
    "a closed stdout": """
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()) as kept:
            print("inside")
        print(kept.getvalue() == "inside\\n")
        """,
}
# What a block may set that another must not see.
STATE = """
import os, random, socket, sys, warnings
import numpy, torch

print(torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
print(torch.are_deterministic_algorithms_enabled(), torch.tensor(1 / 3))
print(torch.rand(1), random.random(), numpy.random.rand(), hash("a"))
print(sorted(os.environ), sorted(os.listdir()), sys.getrecursionlimit())
print(sorted(n for n in globals() if n[0] != "_"), len(warnings.filters))
"""
STAIN = """
import os, random, sys, warnings
import numpy, torch

torch.set_default_dtype(torch.float64)
torch.set_num_threads(2)
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True)
torch.set_printoptions(precision=2)
torch.manual_seed(7), random.seed(7), numpy.random.seed(7)
os.environ["STAIN"] = "1"
open(os.path.join(os.environ["HOME"], "stain"), "w").close()
sys.setrecursionlimit(999)
warnings.simplefilter("ignore")
torch.nn.Linear.forward = None
stain = 1
"""


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(0)


def job(*parts: str, language: str = "python", timeout: float = 60) -> Job:
    code = [normalise(dedent(part)) for part in parts]
    return Job(language, code, timeout, 8, 0, IGNORED)


@pytest.fixture(scope="module")
def working(sandbox: Sandbox) -> Iterator[dict[str, Future[Result]]]:
    """All blocks of `WORKS` at once, as pytest runs them."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(sandbox.run, job(WORKS[name])) for name in WORKS}


@pytest.mark.parametrize("name", WORKS)
def test_works(working: dict[str, Future[Result]], name: str) -> None:
    result = working[name].result()
    assert not result.error_type, result.details or result.error
    assert set(result.outputs[0].splitlines()) == {"True"}, result.outputs


def test_nothing_leaks_from_block_to_block(sandbox: Sandbox) -> None:
    before = sandbox.run(job(STATE))
    stained = sandbox.run(job(STAIN))
    after = sandbox.run(job(STATE))
    assert not before.error_type, before.details
    assert not stained.error_type, stained.details
    home = Path(before.outputs[0]).name
    assert home
    assert before.outputs == after.outputs
    assert os.environ.get("STAIN") is None


def test_nothing_leaks_into_the_folder_of_the_run(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import os\n\nopen('junk.txt', 'w').close()\nprint(os.getcwd())"
    result = sandbox.run(job(code))
    folder = Path(result.outputs[0].strip())
    assert folder.is_absolute()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_parts_share_names_and_have_outputs_of_their_own(sandbox: Sandbox) -> None:
    first = "def f():\n    return 1\n\n\nprint('one')\n"
    second = "x = f()\n"
    third = "print('three', x)\nimport inspect\nprint(inspect.getsource(f))\n"
    result = sandbox.run(job(first, second, third))
    assert result.outputs == ["one\n", "", "three 1\ndef f():\n    return 1\n\n"]
    assert result.torch.startswith("2.13.0")
    assert type(result.torch) is str, "else pytest imports torch to unpickle it"
    assert result.seconds > 0


def test_parts_of_a_shell_block_share_names(sandbox: Sandbox) -> None:
    parts = ["x=1\necho one\n", "y=$x\n", "echo three $y\necho not this >&2\n"]
    for shell in ("bash", "sh"):
        result = sandbox.run(job(*parts, language=shell))
        assert result.outputs == ["one\n", "", "three 1\n"]
        assert not result.error_type


def test_error_in_a_later_part(sandbox: Sandbox) -> None:
    result = sandbox.run(job("print('one')", "print('two')\n\nraise KeyError(1)"))
    assert (result.error_type, result.error) == ("KeyError", "1")
    assert result.line == 4
    assert result.outputs == ["one\n", "two\n"]
    assert "raise KeyError(1)" in result.details
    assert "sandbox.py" not in result.details


def test_error_of_a_type_with_a_module(sandbox: Sandbox) -> None:
    result = sandbox.run(job("import json\n\njson.loads('{')\n"))
    assert result.error_type == "json.decoder.JSONDecodeError"
    assert result.line == 3
    result = sandbox.run(job("class MyError(Exception): ...\n\n\nraise MyError('x')\n"))
    assert result.error_type == "__main__.MyError"


def test_error_that_cannot_be_written_down(sandbox: Sandbox) -> None:
    code = """
        class Bad(Exception):
            def __str__(self):
                raise KeyError("in __str__")


        raise Bad
        """
    result = sandbox.run(job(code))
    assert result.error_type == "__main__.Bad"
    assert result.line == 6


def test_much_output_is_cut(sandbox: Sandbox) -> None:
    result = sandbox.run(job("for _ in range(3000):\n    print('x' * 1000)\n"))
    assert not result.error_type
    assert len(result.outputs[0]) < 1.1 * 2**20
    assert result.outputs[0].endswith("[output cut]\n")


def test_output_that_is_not_text(sandbox: Sandbox) -> None:
    result = sandbox.run(job("import os\nos.write(1, b'\\xff\\x00')\nprint('é')\n"))
    assert not result.error_type
    assert result.outputs[0].endswith("é\n")


LEFT = {
    "child": """
        import pathlib, subprocess

        child = subprocess.Popen(["sleep", "300"])
        pathlib.Path({path!r}).write_text(str(child.pid))
        """,
    "child of a block that hangs": """
        import pathlib, subprocess, time

        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        pathlib.Path({path!r}).write_text(str(child.pid))
        time.sleep(60)
        """,
    "child of a block that died": """
        import os, pathlib, subprocess

        child = subprocess.Popen(["sleep", "300"])
        pathlib.Path({path!r}).write_text(str(child.pid))
        os._exit(0)
        """,
    "orphan": """
        import subprocess

        code = (
            "import os, subprocess, sys; os.setsid();"
            "child = subprocess.Popen(['sleep', '300'], start_new_session=True);"
            "open(sys.argv[1], 'w').write(str(child.pid)); os._exit(0)"
        )
        subprocess.run(["python", "-c", code, {path!r}], check=True)
        """,
    "orphan of a block that died": """
        import os, pathlib, subprocess

        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        pathlib.Path({path!r}).write_text(str(child.pid))
        os._exit(0)
        """,
}


@pytest.mark.parametrize("name", LEFT)
def test_no_process_survives(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    path = tmp_path / "pid"
    limit = 1.5 if "hangs" in name else 60
    result = sandbox.run(job(LEFT[name].format(path=str(path)), timeout=limit))
    assert result.error_type in {"LeftBehind", "TimeLimit", "Died"}
    pid = int(path.read_text())
    try:
        until = time.monotonic() + 1
        while psutil.pid_exists(pid) and time.monotonic() < until:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.02)
        else:
            assert not psutil.pid_exists(pid)
    finally:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


def test_a_run_goes_on_after_a_block_that_kills_its_parent(sandbox: Sandbox) -> None:
    result = sandbox.run(job("import os\n\nos.kill(os.getppid(), 9)\n"))
    assert result.outputs == [""] or result.error_type
    assert sandbox.run(job("print(1)")).outputs == ["1\n"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has network namespaces")
def test_network_is_cut_below_python(sandbox: Sandbox) -> None:
    code = """
        import ctypes, os, socket, struct

        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        address = struct.pack("<H", socket.AF_INET) + struct.pack(">H", 80)
        address += socket.inet_aton("192.0.2.1") + bytes(8)
        print(libc.connect(handle, address, len(address)) == -1)
        print(os.strerror(ctypes.get_errno()))
        """
    assert sandbox.run(job(code)).outputs == ["True\nNetwork is unreachable\n"]
