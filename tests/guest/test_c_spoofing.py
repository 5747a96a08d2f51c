# SPDX-License-Identifier: Apache-2.0
"""A guest that lies about its MAC address, its IPv4 address or another's ARP: nothing of it passes its tap. Each test sees the
honest frames pass first, so that silence means something."""
import contextlib
import socket
import time

ETH_P_ALL = 3


@contextlib.contextmanager
def frames_on(interface):
    """All frames that arrive at the interface, as a list that fills when the block ends."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((interface, 0))
    s.setblocking(False)
    seen = []
    try:
        yield seen
        time.sleep(0.5)
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.append(s.recv(65535))
    finally:
        s.close()


def source_mac(frame):
    return frame[6:12].hex(":")


def is_arp(frame):
    return frame[12:14] == b"\x08\x06"


def arp_claim(frame):
    """(MAC, address) that an ARP frame claims for its sender."""
    return frame[22:28].hex(":"), socket.inet_ntoa(frame[28:32])


def ipv4_source(frame):
    return socket.inet_ntoa(frame[26:30]) if frame[12:14] == b"\x08\x00" else None


def bridge(guest):
    return "mlb" + guest.cloud_id


def test_mac_address(second):
    mac = second.description["NetworkInterfaces"][0]["MacAddress"]
    false_mac = "02:de:ad:be:ef:01"
    gateway = second.ssh("ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'")
    with frames_on(bridge(second)) as honest:
        second.ssh(f"ping -c 1 -W 2 {gateway}")
    assert any(source_mac(f) == mac for f in honest)
    # The connection that gives this order cannot live through it: the guest puts itself right again.
    with frames_on(bridge(second)) as spoofed:
        second.ssh(f"""cat > /tmp/lie <<'END'
            ip link set eth0 address {false_mac}
            ip neigh flush dev eth0
            ping -c 3 -W 1 {gateway} > /tmp/lie.out 2>&1
            ip link set eth0 address {mac}
            echo done >> /tmp/lie.out
END
            setsid sh /tmp/lie < /dev/null > /dev/null 2>&1 &""")
        time.sleep(6)
    second.wait_ssh()
    assert not [f for f in spoofed if source_mac(f) == false_mac]
    assert "100% packet loss" in second.ssh("cat /tmp/lie.out")


def test_address(first, second):
    other = first.address
    gateway = second.ssh("ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'")
    with frames_on(bridge(second)) as honest:
        second.ssh(f"ping -c 1 -W 2 {gateway}")
    assert any(ipv4_source(f) == second.address for f in honest)
    with frames_on(bridge(second)) as spoofed:
        out = second.ssh(f"""
            ip addr add 198.51.100.7/32 dev eth0
            ping -c 2 -W 1 -I 198.51.100.7 {gateway}
            ip addr del 198.51.100.7/32 dev eth0
            true""")
    assert "100% packet loss" in out
    assert not [f for f in spoofed if ipv4_source(f) in ("198.51.100.7", other)]


def test_arp(first, second):
    mac, own = second.description["NetworkInterfaces"][0]["MacAddress"], second.address
    with frames_on(bridge(second)) as honest:
        second.ssh(f"arping -c 2 -A -I eth0 {own}; true")
    assert (mac, own) in [arp_claim(f) for f in honest if is_arp(f)]
    with frames_on(bridge(second)) as spoofed:
        second.ssh(f"ip addr add {first.address}/32 dev eth0; arping -c 2 -A -I eth0 {first.address}; "
                   f"ip addr del {first.address}/32 dev eth0; true")
    assert (mac, first.address) not in [arp_claim(f) for f in spoofed if is_arp(f)]


def test_guests_do_not_reach_services_of_the_host(second):
    """A server of the host on all addresses: not for guests."""
    server = socket.create_server(("0.0.0.0", 0))
    try:
        port = server.getsockname()[1]
        gateway = second.ssh("ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'")
        with socket.create_connection((gateway, port), 5):  # from the host itself it answers
            pass
        done = second.ssh(f"timeout 6 nc -w 3 {gateway} {port} < /dev/null", check=False)
        assert done.returncode != 0
    finally:
        server.close()
