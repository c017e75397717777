"""Starting and stopping: once, ten at a time, half-way, after a crash. Done-when 3 and 4."""

from __future__ import annotations

import base64
import http.server
import io
import json
import re
import signal
import statistics
import subprocess
import tarfile
import threading
from pathlib import Path

import psutil
import pytest

from tests.loopback import free_port
from tests.vm.driver import SOAK, START_SECONDS, Driver, Home, answers, in_turn

pytestmark = pytest.mark.vm


def keeper_of(home: Home) -> psutil.Process:
    return next(process for process in home.processes() if "launcher.keeper" in process.cmdline())


def qemu_of(home: Home) -> psutil.Process:
    return next(process for process in home.processes() if process.name().startswith("qemu-system"))


def test_ten_at_once_make_one_machine(driver: Driver) -> None:
    crowd = [driver.popen("up", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(10)]
    results = in_turn(crowd, START_SECONDS)
    assert [result for result in results if result[0] != 0] == []
    assert len(json.loads(driver.wherry("list", "--json").stdout)["data"]) == 1
    assert len([process for process in driver.processes() if process.name().startswith("qemu-system")]) == 1
    # Ten stops agree as well.
    crowd = [driver.popen("stop", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(10)]
    results = in_turn(crowd, START_SECONDS)
    assert [result for result in results if result[0] != 0] == []
    assert driver.processes() == []
    assert driver.wherry("status").returncode == 3


def test_everything_survives_a_restart(driver: Driver, tmp_path: Path) -> None:
    driver.up()
    port = free_port()
    web = ("-p", f"{port}:80", "wherry.internal/hello", "httpd", "-f", "-p", "80", "-h", "/www")
    driver.docker("run", "-d", "--name", "keeps-going", "--restart", "always", *web)
    driver.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "sh", "-c", "echo precious > /data/file")

    project = tmp_path / "twins"
    project.mkdir()
    (project / "compose.yaml").write_text(
        "services:\n"
        + "".join(
            f"  {name}:\n    image: wherry.internal/hello\n    pull_policy: never\n"
            f"    restart: always\n    stop_grace_period: 1s\n"
            f"    environment: {{WHO: '{name}-${{TAG}}'}}\n    command: sleep 100000\n"
            for name in ("one", "two")
        )
    )
    done = driver.wherry("compose", "up", "-d", cwd=project, env={"TAG": "1"}, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert f"containers see a copy of it, as it is now.   wherry share add {project}" in done.stderr.decode()

    context = tmp_path / "context"
    context.mkdir()
    (context / "big").write_bytes(b"0123456789abcdef" * 500_000)
    (context / "secret.env").write_text("no")
    (context / ".dockerignore").write_text("*.env\n")
    (context / "Dockerfile").write_text("FROM wherry.internal/hello\nCOPY . /context/\nRUN ls /context > /list\n")
    done = driver.wherry("docker", "build", "-t", "built", ".", cwd=context, timeout=900)
    assert done.returncode == 0, done.stderr.decode()
    # The build's copy is gone, the project's stays while its containers may need it.
    assert len(driver.ssh("ls /var/lib/wherry/work").split()) == 1

    done = driver.wherry("restart", timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr.decode()

    driver.wait_until(lambda: driver.container_state("keeps-going") == "running", "the restart policy holds")
    driver.wait_until(lambda: answers(port), "its port is there again")
    assert driver.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "cat", "/data/file") == "precious\n"
    listed = driver.docker("run", "--rm", "--pull", "never", "built", "cat", "/list").split()
    assert sorted(listed) == [".dockerignore", "Dockerfile", "big"] or sorted(listed) == ["Dockerfile", "big"]
    assert driver.docker("run", "--rm", "built", "sh", "-c", "wc -c < /context/big").strip() == "8000000"
    for name in ("one", "two"):
        assert driver.docker("exec", f"twins-{name}-1", "sh", "-c", "echo $WHO") == f"{name}-1\n"
    done = driver.wherry("compose", "down", cwd=project, env={"TAG": "1"}, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert driver.ssh("ls /var/lib/wherry/work").split() == []


def test_starts_and_stops_in_a_row(driver: Driver) -> None:
    """No start needs a second try, no stop is a forced one, the disk is clean each time."""
    count = 20 if SOAK else 1
    seconds = []
    for _ in range(count):
        driver.up()
        status = driver.status()
        seconds.append(status["timeline"][-1][1])
        assert status["restarts"] == {}
        assert driver.wherry("stop", timeout=180).returncode == 0
        assert b"wherry-stop off" in driver.wherry("logs", "serial", "-n", "3").stdout
        assert driver.processes() == []
    print(f"{count} starts: median {statistics.median(seconds):.1f} s, slowest {max(seconds):.1f} s")


def test_stopping_while_it_starts(driver: Driver) -> None:
    """The power button is obeyed while the engine is still starting, and the disk is clean afterwards."""
    with driver.popen("up", stderr=subprocess.PIPE) as starting:
        driver.wait_until(lambda: "ssh" in [stage for stage, _ in driver.status_or_none().get("timeline", [])], "ssh is up")
        done = driver.wherry("stop", timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        assert starting.wait(60) != 0
    log = driver.wherry("logs", "serial").stdout.decode()
    begin = float(re.findall(r"wherry-stop begin ([\d.]+)", log)[-1])
    off = float(re.findall(r"wherry-stop off ([\d.]+)", log)[-1])
    assert "wherry-stop unmount" in log
    print(f"begun {begin}, off {off}")
    driver.up()


def test_the_container_gets_its_time_to_stop(driver: Driver) -> None:
    driver.up()
    driver.docker(
        "run", "-d", "--name", "slow", "--stop-timeout", "20", "-v", "out:/out", "wherry.internal/hello",
        "sh", "-c", "trap 'sleep 4; echo done > /out/file; exit 0' TERM; while :; do sleep 0.2; done",
    )  # fmt: skip
    assert driver.wherry("stop", timeout=180).returncode == 0
    driver.up()
    assert driver.docker("run", "--rm", "-v", "out:/out", "wherry.internal/hello", "cat", "/out/file") == "done\n"


def test_a_dead_keeper_is_replaced_and_containers_go_on(driver: Driver) -> None:
    driver.up()
    driver.docker("run", "-d", "--name", "witness", "wherry.internal/hello", "sleep", "100000")
    started = driver.docker("inspect", "--format", "{{.State.StartedAt}}", "witness")
    qemu = qemu_of(driver).pid
    keeper = keeper_of(driver)
    keeper.kill()
    keeper.wait(60)
    listed = json.loads(driver.wherry("list", "--json").stdout)["data"][0]
    assert listed["status"] == "broken"
    assert "go on" in listed["problem"]
    driver.up()
    assert qemu_of(driver).pid == qemu
    assert driver.docker("inspect", "--format", "{{.State.StartedAt}}", "witness") == started
    assert driver.wherry("stop", timeout=180).returncode == 0
    assert driver.processes() == []


def test_a_keeper_that_dies_in_a_start_costs_one_more_start(driver: Driver) -> None:
    with driver.popen("up", stderr=subprocess.DEVNULL) as starting:
        driver.wait_until(lambda: bool(driver.status_or_none().get("timeline")), "the guest speaks")
        keeper = keeper_of(driver)
        keeper.kill()
        keeper.wait(60)
        assert starting.wait(60) != 0
    driver.up()
    assert driver.wherry("run", "wherry/hello", "true").returncode == 0
    assert len([process for process in driver.processes() if process.name().startswith("qemu-system")]) == 1


def test_a_dead_qemu_is_started_again_once(driver: Driver) -> None:
    driver.up()
    driver.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "sh", "-c", "echo precious > /data/file; sync")
    before, told = qemu_of(driver), driver.mended()
    before.kill()
    # Nobody asks: what comes next waits for the machine.
    assert driver.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "cat", "/data/file") == "precious\n"
    assert qemu_of(driver).pid != before.pid
    said = driver.status()
    assert said["restarts"]["qemu-ended"] == 1
    assert any("signal 9" in note and "started again" in note for note in said["notes"])
    driver.wait_for_mended("started again", told)
    # The second time in a row is a failure; the next command starts it.
    qemu_of(driver).kill()
    driver.wait_until(lambda: driver.wherry("status").returncode == 3, "the end is noticed")
    assert "signal 9" in driver.status()["last_error"]["message"]
    driver.up()
    assert driver.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "cat", "/data/file") == "precious\n"


def test_sigterm_to_the_keeper_is_a_clean_stop(driver: Driver) -> None:
    driver.up()
    keeper = keeper_of(driver)
    keeper.send_signal(signal.SIGTERM)
    keeper.wait(120)
    assert driver.processes() == []
    assert b"wherry-stop off" in driver.wherry("logs", "serial").stdout
    assert driver.wherry("status").returncode == 3


def test_the_words_of_a_life(driver: Driver) -> None:
    assert driver.wherry("status").returncode == 3
    assert driver.wherry("stop").returncode == 3
    assert driver.wherry("init", "--cpus", "1", "--memory", "1G", "--disk", "20G", timeout=300).returncode == 0
    assert driver.wherry("init").returncode == 6
    assert driver.wherry("stop").returncode == 0
    assert driver.wherry("up", "--disk", "30G").returncode == 2
    assert driver.wherry("up", "--memory", "8").returncode == 2
    driver.up("--memory", "1536M")
    assert driver.ssh("nproc").strip() == "1"
    assert driver.status()["memory"] == 1536 << 20
    assert 19 < int(driver.ssh("df -k /var/lib/wherry | tail -n 1 | awk '{print $2}'")) / (1 << 20) < 20
    assert driver.wherry("delete", "--yes").returncode == 6
    assert driver.wherry("delete").returncode == 6
    assert driver.wherry("stop", "--force", timeout=60).returncode == 0
    assert driver.wherry("delete").returncode == 6
    assert driver.wherry("delete", "--yes").returncode == 0
    assert json.loads(driver.wherry("list", "--json").stdout)["data"] == []


def test_engine_settings_and_a_rejected_one(driver: Driver) -> None:
    assert driver.wherry("init", timeout=300).returncode == 0
    config = driver.path / "home" / "machines" / "default" / "machine.toml"
    text = config.read_text().replace("[engine]\n", "")
    config.write_text(text + '\n[engine]\ndebug = true\nlabels = ["a=b"]\n')
    driver.up()
    assert "a=b" in driver.docker("info", "--format", "{{.Labels}}")
    assert driver.wherry("stop", timeout=120).returncode == 0
    config.write_text(text + "\n[engine]\nno-such-key = true\n")
    done = driver.up()
    assert b"no-such-key" in done.stderr
    assert "a=b" in driver.docker("info", "--format", "{{.Labels}}")


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as a login asks for: /v2/ behind a user name and a password."""

    def do_GET(self) -> None:
        right = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"ana:secret").decode()
        self.send_response(200 if right else 401)
        if not right:
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
        pass


def test_a_login_is_private_and_kept(driver: Driver) -> None:
    assert driver.wherry("init", timeout=300).returncode == 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            place = f"10.0.2.2:{server.server_port}"
            config = driver.path / "home" / "machines" / "default" / "machine.toml"
            config.write_text(config.read_text().replace("[engine]\n", "") + f'\n[engine]\ninsecure-registries = ["{place}"]\n')
            driver.up()
            login = ["docker", "login", "-u", "ana", "--password-stdin", place]
            assert driver.wherry(*login, input=b"wrong").returncode == 1
            done = driver.wherry(*login, input=b"secret")
            assert done.returncode == 0, done.stderr.decode()
        finally:
            server.shutdown()
            thread.join()
    assert driver.ssh("stat -c %a /run/wherry/home/.docker/config.json") == "600\n"
    assert driver.wherry("restart", timeout=START_SECONDS).returncode == 0
    assert place in json.loads(driver.ssh("cat /run/wherry/home/.docker/config.json"))["auths"]


def test_two_machines_side_by_side_one_of_them_arm64(driver: Driver) -> None:
    driver.up()
    driver.up("arm", "--arch", "arm64")
    assert driver.wherry("--machine", "arm", "ssh", "uname -m").stdout == b"aarch64\n"
    done = driver.wherry("--machine", "arm", "run", "wherry/hello", "uname", "-m", timeout=600)
    assert (done.returncode, done.stdout) == (0, b"aarch64\n"), done.stderr
    assert driver.wherry("run", "wherry/hello", "uname", "-m").stdout == b"x86_64\n"
    assert driver.wherry("stop", "arm", timeout=300).returncode == 0
    log = driver.wherry("logs", "serial", "arm").stdout.decode()
    assert "wherry-stop off" in log
    assert driver.status()["status"] == "running"


def test_a_dockerfile_outside_of_its_context(machine: Driver, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM wherry.internal/hello\nCOPY here /here\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "here").write_text("inside")
    done = machine.wherry("docker", "build", "-t", "beside", "-f", "../Dockerfile", ".", cwd=inner)
    assert done.returncode == 0, done.stderr.decode()
    assert machine.docker("run", "--rm", "beside", "cat", "/here") == "inside"


def test_a_context_from_stdin(machine: Driver) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        data = b"FROM wherry.internal/hello\nRUN echo from-stdin > /where\n"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    done = machine.wherry("docker", "build", "-t", "piped", "-", input=buffer.getvalue(), timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert machine.docker("run", "--rm", "piped", "cat", "/where") == "from-stdin\n"
