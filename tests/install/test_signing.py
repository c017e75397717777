"""What `--sign` does: for Windows a real signature, by a certificate of its own; for macOS what Apple's tools are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from installers.tools import BuildError
from installers.windows import layout, msi, setup
from tests.install.making import making
from tests.install.wineprefix import fresh
from tests.windows import fixture

ROOT = Path(__file__).parent.parent.parent
HANG = 300
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
needs_wine = pytest.mark.skipif(fixture.missing() is not None, reason=fixture.missing() or "")
needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("makensis", "wixl", "msibuild", "osslsigncode"))), reason="no makensis, wixl or osslsigncode"
)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a test, for code; signed by itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(key, hashes.SHA256())
    )
    found = tmp_path / "certificate.pem"
    found.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = tmp_path / "key.pem"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    monkeypatch.setenv("WHERRY_CERTIFICATE", str(found))
    monkeypatch.setenv("WHERRY_KEY", str(secret))
    return found


def signed_by(certificate: Path, file: Path) -> bool:
    words = ["osslsigncode", "verify", "-CAfile", certificate, "-in", file]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@needs_wine
@needs_tools
def test_all_for_windows_is_signed_and_installs(certificate: Path, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.mkdir()
    source = fixture.windows().folder / "python"
    context = making(
        tmp_path / "made",
        pythons={layout.TARGET: source},
        qemus={layout.TARGET: qemu},
        sign=ROOT / "installers/windows/sign.sh",
    )
    made = {item.path.suffix: item.path for item in [*setup.build_all(context), *msi.build_all(context)]}
    assert signed_by(certificate, made[".exe"])
    assert signed_by(certificate, made[".msi"])
    with zipfile.ZipFile(made[".zip"]) as archive:
        archive.extractall(tmp_path / "folder")
    for name in ("bin/wherry.exe", "python/wherry.exe", "python/python.exe"):
        assert signed_by(certificate, tmp_path / "folder" / name), name
    [library] = (path for path in source.glob("python3*.dll") if path.name != "python3.dll")
    assert (tmp_path / "folder/python" / library.name).read_bytes() == library.read_bytes(), "its makers have signed it"
    (tmp_path / "windows").mkdir()
    with fresh(tmp_path / "windows") as computer:
        home = computer.local / "Programs/Wherry"
        computer.run([made[".exe"], "/S"], timeout=HANG)
        assert signed_by(certificate, home / "uninstall.exe")
        assert computer.run([home / "bin/wherry.exe", "--version"], timeout=HANG) == (0, f"wherry {context.version}\n")


@needs_tools
def test_without_a_key_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHERRY_CERTIFICATE", raising=False)
    file = tmp_path / "setup.exe"
    file.write_bytes(b"MZ")
    context = making(tmp_path / "made", sign=ROOT / "installers/windows/sign.sh")
    with pytest.raises(BuildError, match="WHERRY_CERTIFICATE"):
        context.signed("file", file)
    assert file.read_bytes() == b"MZ"


SIGNS = """#!/bin/sh
for last; do :; done
case $1 in
extract-signature)
    [ -d "$(dirname "$last")" ] && [ ! -e "$last" ] || exit 9
    ls -ld "$(dirname "$last")" | cut -c 1-10 >>"$SAID"
    exit 1
    ;;
esac
[ -z "$FAILS" ] || exit 1
cp "$WHERRY_KEY" "$last"
"""


@pytest.mark.parametrize("fails", ["", "yes"])
def test_nothing_is_written_where_others_may_write_and_nothing_stays(fails: str, tmp_path: Path) -> None:
    """Also after a failure, in a folder for temporary files that all have."""
    programs, root, shared, said = (tmp_path / name for name in ("bin", "root", "tmp", "said"))
    for folder in (programs, root, shared):
        folder.mkdir()
    shared.chmod(0o1777)
    (programs / "osslsigncode").write_text(SIGNS)
    (programs / "osslsigncode").chmod(0o755)
    (root / "a program.exe").write_text("not signed")
    (tmp_path / "key").write_text("signed")
    environment = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(shared), "SAID": str(said), "FAILS": fails,
        "WHERRY_CERTIFICATE": "none", "WHERRY_KEY": str(tmp_path / "key"),
    }  # fmt: skip
    done = subprocess.run([ROOT / "installers/windows/sign.sh", "tree", root], env=environment, check=False)
    assert (done.returncode == 0, (root / "a program.exe").read_text()) == (not fails, "not signed" if fails else "signed")
    assert said.read_text() == "drwx------\n"
    assert list(shared.iterdir()) == []


APPLE = """#!/bin/sh
echo "${0##*/} $*" >>"$SAID"
case ${0##*/} in productsign) for last; do :; done; echo signed >"$last" ;; esac
[ "${0##*/} $1" != "$FAILS" ]
"""


@pytest.mark.skipif(shutil.which("file") is None, reason="no file")
@pytest.mark.parametrize("fails", ["", "codesign --force", "xcrun notarytool"])
def test_what_apples_tools_are_told(fails: str, tmp_path: Path) -> None:
    programs, root, said = tmp_path / "bin", tmp_path / "root of it", tmp_path / "said"
    for folder in (programs, root / "bin"):
        folder.mkdir(parents=True)
    for name in ("codesign", "productsign", "xcrun", "spctl"):
        (programs / name).write_text(APPLE)
        (programs / name).chmod(0o755)
    for name in ("bin/qemu-system-aarch64", "a.dylib"):
        (root / name).write_bytes(bytes.fromhex("cffaedfe0c00000100000000020000000000000000000000") + bytes(8))
    (root / "bin/wherry").write_text("#!/bin/sh\n")
    package = tmp_path / "wherry.pkg"
    package.write_text("not signed\n")
    environment = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "SAID": str(said), "FAILS": fails,
        "WHERRY_APPLICATION_IDENTITY": "A: b (C)", "WHERRY_INSTALLER_IDENTITY": "I: b (C)", "WHERRY_NOTARY_PROFILE": "p",
    }  # fmt: skip
    script = ROOT / "installers/macos/sign.sh"
    codes = [
        subprocess.run([script, *words], env=environment, check=False).returncode
        for words in (("tree", root), ("file", package))
    ]
    lines = said.read_text().splitlines()
    common = "codesign --force --timestamp --options runtime --sign A: b (C)"
    entitled = f"{common} --entitlements {ROOT}/installers/macos/hypervisor.plist {root}/bin/qemu-system-aarch64"
    if fails.startswith("codesign"):
        assert codes == [1, 0], "the build ends there"
        return
    assert sorted(lines[:2]) == sorted([f"{common} {root}/a.dylib", entitled])
    assert lines[2] == f"productsign --timestamp --sign I: b (C) {package} {package}.signed"
    assert lines[3] == f"xcrun notarytool submit --keychain-profile p --wait {package}"
    if fails:
        assert codes == [0, 1]
        assert len(lines) == 4, "no ticket for what the notary has refused"
    else:
        assert lines[4:] == [f"xcrun stapler staple {package}", f"spctl --assess --type install {package}"]
        assert (codes, package.read_text()) == ([0, 0], "signed\n")
