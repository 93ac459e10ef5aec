"""gevent: a patched server and its clients, and the pool of threads beside the hub."""

from gevent import monkey

monkey.patch_all()

import hashlib
import socket

import gevent
from gevent.server import StreamServer
from gevent.threadpool import ThreadPool


def answer(connection, address):
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            stream.write(hashlib.sha256(line * 20).hexdigest().encode() + b"\n")
            stream.flush()


def ask(port, number):
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as stream:
        digits = []
        for turn in range(900):
            stream.write(b"%d %d\n" % (number, turn))
            stream.flush()
            digits.append(stream.readline()[:1])
        return b"".join(digits).decode()


def compute(limit):
    return sum(i * i for i in range(limit))


server = StreamServer(("127.0.0.1", 0), answer)
server.start()
clients = [gevent.spawn(ask, server.server_port, number) for number in range(20)]
pool = ThreadPool(3)
sums = pool.map(compute, [200000 + i for i in range(40)])
gevent.joinall(clients, raise_error=True)
server.stop()
print(hashlib.sha256("".join(one.value for one in clients).encode()).hexdigest(), sum(sums))
