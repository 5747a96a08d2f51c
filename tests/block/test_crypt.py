# SPDX-License-Identifier: Apache-2.0
"""Encryption at rest, seen from outside: other people's implementations read what ours wrote, and nothing but the file of the key
holds the key."""
import hashlib
import os
import subprocess

import pytest

from conftest import program, tool

MIB = 1 << 20
SECTOR = 512
PASSPHRASE = b"of this test"


def make_key(folder, name="key", seed=b"1"):
    key = hashlib.sha512(seed).digest()
    path = folder / name
    path.write_bytes(key)
    path.chmod(0o400)
    return key, path


def pattern(seed, size):
    """Bytes that can be told from any others."""
    return b"".join(hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(size // 32))


def write(uri, off, data, tmp_path):
    source = tmp_path / "data"
    source.write_bytes(data)
    done = subprocess.run([tool("qemu-io"), "-f", "raw", uri, "-c", f"write -s {source} {off} {len(data)}", "-c", "flush"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "error" not in done.stdout + done.stderr, done.stdout + done.stderr


def xts(key, sector, data, encrypt=True):
    """Sectors from `sector` on, by libcrypto."""
    pytest.importorskip("cryptography", reason="python3-cryptography is not installed")
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    out = []
    for i in range(len(data) // SECTOR):
        cipher = Cipher(algorithms.AES(key), modes.XTS((sector + i).to_bytes(16, "little")))
        coder = cipher.encryptor() if encrypt else cipher.decryptor()
        out.append(coder.update(data[i * SECTOR:(i + 1) * SECTOR]) + coder.finalize())
    return b"".join(out)


def test_libcrypto_reads_it(blockd, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(8 * MIB))
    key, key_path = make_key(tmp_path)
    data = pattern("a", 2 * MIB)
    b = blockd(f"file:path={disk}", "--filter", f"crypt:key-file={key_path}")
    write(b.uri, 3 * MIB + SECTOR, data, tmp_path)
    assert b.stop() == 0
    found = disk.read_bytes()[3 * MIB + SECTOR:][:len(data)]
    assert xts(key, (3 * MIB + SECTOR) // SECTOR, found, encrypt=False) == data


def diffuse(block):
    step = hashlib.sha256().digest_size
    return b"".join(hashlib.sha256(i.to_bytes(4, "big") + block[at:at + step]).digest()[:len(block) - at]
                    for i, at in enumerate(range(0, len(block), step)))


def split(key, stripes):
    """LUKS' anti-forensic splitter."""
    last, out = bytes(len(key)), []
    for i in range(stripes - 1):
        stripe = os.urandom(len(key))
        out.append(stripe)
        last = diffuse(bytes(a ^ b for a, b in zip(last, stripe)))
    return b"".join(out) + bytes(a ^ b for a, b in zip(last, key))


def luks_header(key):
    """A LUKS version 1 header for a volume of this key: what stands before the data."""
    slots, stripes, iterations = 8, 4000, 1000
    material = (len(key) * stripes + 4095) // 4096 * 8  # sectors
    payload = 8 + slots * material
    salt, slot_salt = os.urandom(32), os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha256", key, salt, iterations, 20)
    header = b"LUKS\xba\xbe" + (1).to_bytes(2, "big")
    header += b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0") + b"sha256".ljust(32, b"\0")
    header += payload.to_bytes(4, "big") + len(key).to_bytes(4, "big") + digest + salt + iterations.to_bytes(4, "big")
    header += b"8ffae0d8-0bd5-4a1c-8c4a-3c8b5f3c2f11".ljust(40, b"\0")
    for slot in range(slots):
        header += (0x00AC71F3 if slot == 0 else 0x0000DEAD).to_bytes(4, "big") + iterations.to_bytes(4, "big")
        header += slot_salt if slot == 0 else bytes(32)
        header += (8 + slot * material).to_bytes(4, "big") + stripes.to_bytes(4, "big")
    derived = hashlib.pbkdf2_hmac("sha256", PASSPHRASE, slot_salt, iterations, len(key))
    return (header.ljust(8 * SECTOR, b"\0") + xts(derived, 0, split(key, stripes))).ljust(payload * SECTOR, b"\0")


def test_qemu_reads_it_as_luks(blockd, tmp_path):
    """The volume's bytes behind a LUKS header that names its key are a LUKS volume: QEMU's own implementation reads it."""
    disk, luks = tmp_path / "disk", tmp_path / "luks"
    disk.write_bytes(bytes(4 * MIB))
    key, key_path = make_key(tmp_path)
    b = blockd(f"file:path={disk}", "--filter", f"crypt:key-file={key_path}")
    data = pattern("q", 4 * MIB)
    write(b.uri, 0, data, tmp_path)
    assert b.stop() == 0
    luks.write_bytes(luks_header(key) + disk.read_bytes())
    secret, plain = tmp_path / "passphrase", tmp_path / "plain"
    secret.write_bytes(PASSPHRASE)
    subprocess.run([tool("qemu-img"), "convert", "--object", f"secret,id=s,file={secret}", "--image-opts",
                    f"driver=luks,key-secret=s,file.driver=file,file.filename={luks}", "-O", "raw", str(plain)], check=True)
    assert plain.read_bytes() == data


def everything(tmp_path, but):
    return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path not in but}


def test_neither_key_nor_data_is_seen(blockd, tmp_path):
    """Not in any file, log, command line, counter or answer; and with another key nothing can be read, nor does it fail."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(8 * MIB))
    key, key_path = make_key(tmp_path)
    control = tmp_path / "control"
    b = blockd(f"file:path={disk}", "--filter", "readahead", "--filter", f"snap:map={tmp_path}/changes", "--filter",
               f"cow:source=zero,map={tmp_path}/map", "--filter", f"crypt:key-file={key_path}", "--control", str(control))
    data = pattern("n", MIB)
    write(b.uri, MIB, data, tmp_path)
    (tmp_path / "data").unlink()
    said = b""
    scratch, kept = tmp_path / "scratch", tmp_path / "scratch-kept"
    scratch.touch(mode=0o600)
    kept.hardlink_to(scratch)  # it loses its name when it is opened
    for command in ("info", f"snap begin name=v,scratch={scratch},scratch-size=4M"):
        said += subprocess.run([program(), "--to", str(control), *command.split()], stdout=subprocess.PIPE, check=True).stdout
    write(b.uri, MIB, pattern("other", MIB), tmp_path)
    (tmp_path / "data").unlink()
    for command in ("stats", "metrics", "cow status", "snap status", "snap end name=v"):
        said += subprocess.run([program(), "--to", str(control), *command.split()], stdout=subprocess.PIPE, check=True).stdout
    assert b"size_bytes" in said and b"encrypted_bytes" in said and b"mallee_" in said
    said += open(f"/proc/{b.pid}/cmdline", "rb").read() + open(f"/proc/{b.pid}/environ", "rb").read()
    assert b.stop() == 0
    files = everything(tmp_path, [key_path])
    assert disk in files and tmp_path / "map" in files and len(files[kept]) >= MIB and any(files[kept])
    secrets = [key[i:i + 8] for i in range(0, 64, 8)] + [key.hex().encode()[:16], *(data[i:i + 16] for i in range(0, MIB, 4096))]
    for secret in secrets:
        assert secret not in said
        for path, content in files.items():
            assert secret not in content, path
    _, other = make_key(tmp_path, "other", b"2")
    b = blockd(f"file:path={disk}", "--filter", f"crypt:key-file={other}", name="b")
    copy = tmp_path / "copy"
    subprocess.run([tool("qemu-img"), "convert", "-f", "raw", "-O", "raw", b.uri, str(copy)], check=True)
    content = copy.read_bytes()
    assert len(content) == 8 * MIB and not any(secret in content for secret in secrets)


def test_process_is_sealed(tmp_path, blockd):
    """No core dump, and no other process of its user looks into it: /proc says so by giving what is there to root."""
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    _, key_path = make_key(tmp_path)
    for path in (disk, key_path):
        os.chown(path, 65534, 65534)
    os.chown(tmp_path, 65534, 65534)
    for folder in tmp_path.parents[:3]:
        if folder.stat().st_mode & 0o001 == 0 and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o011)
    sealed = blockd(f"file:path={disk}", "--filter", f"crypt:key-file={key_path}", "--user", "65534:65534")
    assert os.stat(f"/proc/{sealed.pid}/environ").st_uid == 0
    assert f"\nUid:\t{65534}\t" in open(f"/proc/{sealed.pid}/status").read()


@pytest.mark.parametrize("mode,size", [(0o440, 64), (0o404, 64), (0o400, 63), (0o400, 65)])
def test_bad_key_files_are_refused(tmp_path, mode, size):
    disk, key_path = tmp_path / "disk", tmp_path / "key"
    disk.write_bytes(bytes(MIB))
    key_path.write_bytes(pattern("k", 96)[:size])
    key_path.chmod(mode)
    done = subprocess.run([program(), "--back", f"file:path={disk}", "--filter", f"crypt:key-file={key_path}", "--front",
                           f"nbd:socket={tmp_path}/s"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert ("mode 0" if mode != 0o400 else f"has {size} bytes") in done.stderr
