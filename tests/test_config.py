from __future__ import annotations

import re
from typing import Any

import pytest

from launcher import config_keys
from launcher.config import GIB, MIB, MachineConfig, Shares, format_size, from_toml_values, parse_size, to_toml_values
from launcher.errors import Usage, WherryError
from launcher.store import check_name


def config(**values: Any) -> MachineConfig:
    return MachineConfig(**{"arch": "amd64", "cpus": 2, "memory": GIB, "iso": "0" * 64, **values})


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * GIB), ("512M", 512 * MIB), ("1.5g", GIB * 3 // 2), ("2GiB", 2 * GIB), ("1T", 1024 * GIB), (" 4 GB ", 4 * GIB)],
)
def test_a_size_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8", "G", "-1G", "8X", "", "1G2", "0x10G"])
def test_no_size(text: str) -> None:
    with pytest.raises(Usage, match="is not a size"):
        parse_size(text)


def test_a_bare_number_is_told_how_to_be_written() -> None:
    with pytest.raises(Usage, match="write 8G"):
        parse_size("8")


@pytest.mark.parametrize("size", [512 * MIB, GIB, 100 * GIB, 1024 * GIB, 1536 * MIB])
def test_sizes_survive_the_file(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("name", ["default", "a", "x-1", "0", "a" * 31, "con"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "..", "a" * 32, "a b", "ä", "a.b", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Usage):
        check_name(name)


@pytest.mark.parametrize("access", ["none", (8080,), (80, 5432)])
def test_host_access_survives_the_file(access: str | tuple[int, ...]) -> None:
    values = to_toml_values(config(host_access=access))
    assert values["host_access"] == (list(access) if isinstance(access, tuple) else access)
    assert from_toml_values(values).host_access == access


@pytest.mark.parametrize("access", [True, 80, ["80"], [True], {}])
def test_host_access_of_the_wrong_type(access: Any) -> None:
    with pytest.raises(Usage, match="wrong type"):
        from_toml_values({**to_toml_values(config()), "host_access": access})


@pytest.mark.parametrize(
    ("set_to", "accel", "minutes"),
    [
        ("auto", "tcg,thread=single", 5),
        ("auto", "kvm", 0),
        ("auto", "whpx,kernel-irqchip=off", 0),
        ("auto", "", 0),
        (0, "tcg", 0),
        (9, "hvf", 9),
    ],
)
def test_after_how_long_it_suspends_itself(set_to: int | str, accel: str, minutes: int) -> None:
    """By itself only where that was seen to hold."""
    wanted = from_toml_values(to_toml_values(config(idle_suspend=set_to)))
    assert wanted.idle_suspend == set_to and wanted.idle_minutes(accel) == minutes
    assert config_keys.parse("idle_suspend", str(set_to)) == set_to


@pytest.mark.parametrize("value", ["never", -1, 10081, True])
def test_no_time_after_which_it_suspends_itself(value: Any) -> None:
    with pytest.raises(Usage, match="idle_suspend"):
        from_toml_values({**to_toml_values(config()), "idle_suspend": value})


def test_the_file_gives_back_the_config() -> None:
    wanted = config(memory=1536 * MIB, engine={"registry-mirrors": ["http://10.0.2.2:5000"]}, stop_seconds=5)
    assert from_toml_values(to_toml_values(wanted)) == wanted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"arch": "mips"}, "architecture"),
        ({"cpus": 0}, "cpus"),
        ({"memory": MIB}, "memory"),
        ({"disk": MIB}, "disk"),
        ({"stop_seconds": 0}, "stop_seconds"),
        ({"accel": "xen"}, "accel"),
        ({"host_access": "some"}, "host_access"),
        ({"host_access": ()}, "host_access"),
        ({"host_access": (0,)}, "0 is no port"),
        ({"engine": {"hosts": ["tcp://0.0.0.0"]}}, "hosts cannot be set"),
        ({"engine": {"data-root": "/x"}}, "data-root cannot be set"),
        ({"engine": {"containerd": "/x"}}, "containerd cannot be set"),
    ],
)
def test_values_that_cannot_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Usage, match=words):
        config(**values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "made by a newer wherry"),
        ({"version": 0}, "version 0"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"cpus": "2"}, "wrong type"),
        ({"cpus": True}, "wrong type"),
        ({"memory": 5}, "wrong type"),
        ({"engine": []}, "wrong type"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WherryError, match=words):
        from_toml_values({**to_toml_values(config()), **change})


def test_a_file_with_a_key_missing() -> None:
    values = to_toml_values(config())
    del values["arch"]
    with pytest.raises(WherryError, match="incomplete: arch is missing"):
        from_toml_values(values)


def test_publish_address() -> None:
    assert config().published == ("127.0.0.1", "::1")
    assert config(publish_address="0.0.0.0, ::").published == ("0.0.0.0", "::")
    with pytest.raises(Usage, match="'localhost' is no IP address"):
        config(publish_address="127.0.0.1,localhost")


def test_shares_survive_the_file() -> None:
    assert "shares" not in to_toml_values(config())
    wanted = config(shares=Shares(home=False, folders=("/srv/x:ro", r"C:\x"), hidden=("~/a", "-~/.kube"), events=False))
    assert to_toml_values(wanted)["shares"] == {
        "home": False, "folders": ["/srv/x:ro", r"C:\x"], "hidden": ["~/a", "-~/.kube"], "events": False,
    }  # fmt: skip
    assert from_toml_values(to_toml_values(wanted)) == wanted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"home": "yes"}, "shares.home = 'yes' has the wrong type"),
        ({"home": 1}, "wrong type"),
        ({"folders": "/srv"}, "shares.folders = '/srv' has the wrong type"),
        ({"folders": [1]}, "wrong type"),
        ({"folders": ["srv/x"]}, "shares.folders: 'srv/x' is no whole path"),
        ({"folders": ["/srv/a\nb"]}, "no whole path"),
        ({"hidden": ["x"]}, "shares.hidden: 'x' is no whole path"),
        ({"hidden": ["-x"]}, "no whole path"),
        ({"folder": []}, "unknown key 'shares.folder', shares.folders is the nearest"),
    ],
)
def test_shares_that_cannot_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Usage, match=re.escape(words)):
        from_toml_values({**to_toml_values(config()), "shares": values})


@pytest.mark.parametrize(("key", "example"), [("folders", ":ro"), ("hidden", "-~/.kube")])
def test_what_a_path_of_a_key_looks_like(key: str, example: str) -> None:
    with pytest.raises(Usage) as caught:
        from_toml_values({**to_toml_values(config()), "shares": {key: ["x"]}})
    assert example in str(caught.value.hint) and (":ro" in str(caught.value.hint)) == (key == "folders")


@pytest.mark.parametrize("text", ["/srv/x:ro, ~/y", '["/srv/x:ro", "~/y"]'])
def test_folders_in_the_words_of_a_command_line(text: str) -> None:
    assert config_keys.parse("shares.folders", text) == ["/srv/x:ro", "~/y"]


@pytest.mark.parametrize(
    ("here", "memory"), [(1.4, 1.0), (3, 2), (8, 2), (15.5, 3.5), (16, 4), (256, 64)]
)  # in GB: a quarter, 2 at least, no more than there is
def test_memory_of_a_new_machine(monkeypatch: pytest.MonkeyPatch, here: float, memory: float) -> None:
    import psutil

    from launcher.machine import create

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": int(here * GIB)}))
    assert create.default_memory() == memory * GIB
