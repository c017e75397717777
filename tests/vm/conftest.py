"""One machine is booted and shared by the tests that leave it as it was; the others make their own home."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.driver import Driver, Home


@pytest.fixture(scope="session")
def machine() -> Iterator[Driver]:
    driver = Driver()
    try:
        # A registry on this computer, without TLS, is what the engine's own default calls insecure.
        assert driver.wherry("init").returncode == 0
        assert driver.wherry("config", "set", "engine.insecure-registries=['10.0.2.2/32']").returncode == 0
        assert driver.wherry("config", "set", "ssh_agent=true").returncode == 0
        # It waits for its next test for as long as the others take.
        assert driver.wherry("config", "set", "idle_suspend=0").returncode == 0
        driver.up()
        yield driver
    finally:
        driver.close()


@pytest.fixture
def home() -> Iterator[Home]:
    fresh = Home()
    try:
        yield fresh
    finally:
        fresh.close()


@pytest.fixture
def driver() -> Iterator[Driver]:
    """A machine of its own, not started, for tests that break it."""
    fresh = Driver()
    try:
        yield fresh
    finally:
        fresh.close()
