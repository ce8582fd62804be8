def read_from(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        connection.connect(address)
        return secrets_in(connection.recv(100))


@attack()
def metadata_address():
    return read_from(socket.AF_INET, ("169.254.169.254", 80))


@attack()
def loopback_service():
    return read_from(socket.AF_INET, ("127.0.0.1", 8080))


@attack()
def loopback_service_over_ipv6():
    return read_from(socket.AF_INET6, ("::1", 8080))


@attack()
def name_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(3)
        asking.sendto(b"?", ("127.0.0.1", 53))
        return secrets_in(asking.recv(100))


@attack()
def socket_past_the_library():
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    return [family for family in (2, 10) if call(number, family, 1, 0)[0] >= 0]


@attack()
def socket_with_bits_that_the_kernel_drops():
    # The kernel uses 32 bits of the family. A filter that compares 64 bits does not match.
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    return [family for family in (2, 10) if call(number, family | 1 << 32, 1, 0)[0] >= 0]


@attack(control="none")
def socket_by_the_x32_table():
    return [family for family in (2, 10) if call(0x40000000 + 41, family, 1, 0)[0] >= 0]


@attack()
def other_families():
    opened = []
    for family in range(1, 46):
        if family == socket.AF_UNIX:
            continue
        for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            opened.append((family, kind))
    return opened


@attack(control="root")
def raw_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return True


@attack()
def socketpair_of_the_internet():
    # The kernel refuses all families but AF_UNIX and AF_TIPC; its error shows that it was reached.
    number = {"x86_64": 53, "aarch64": 199}[platform.machine()]
    room = (ctypes.c_int * 2)()
    _, error = call(number, 2, 1, 0, ctypes.addressof(room))
    return error == errno.EOPNOTSUPP


@attack()
def child_process():
    code = "import socket; print(socket.create_connection(('127.0.0.1', 8080), 3).recv(100))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, timeout=60)
    return secrets_in(done.stdout)


@attack()
def shell_device():
    line = "exec 3<>/dev/tcp/127.0.0.1/8080 && cat <&3"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60)
    return secrets_in(done.stdout)


@attack()
def abstract_socket():
    return read_from(socket.AF_UNIX, "\0sandbox-stand-in")


@attack()
def path_socket():
    return read_from(socket.AF_UNIX, TESTBED["folder"] + "/stand-in.sock")


@attack()
def path_socket_through_proc():
    return first_success(
        (where, lambda: read_from(socket.AF_UNIX, f"/proc/{where}/root{TESTBED['folder']}/stand-in.sock"))
        for where in ("self", "1", TESTBED["worker"], TESTBED["sibling"])
    )


@attack()
def the_workers_own_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(TESTBED["socket"])
        return True
