"""eventlet: green sockets, and its pool of threads."""

import hashlib

import eventlet
from eventlet import tpool
from eventlet.green import socket


def answer(connection):
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            stream.write(hashlib.sha256(line * 20).hexdigest().encode() + b"\n")
            stream.flush()


def serve(listener):
    while True:
        connection, _ = listener.accept()
        eventlet.spawn_n(answer, connection)


def ask(port, number):
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as stream:
        digits = []
        for turn in range(500):
            stream.write(b"%d %d\n" % (number, turn))
            stream.flush()
            digits.append(stream.readline()[:1])
        return b"".join(digits).decode()


def compute(limit):
    return sum(i * i for i in range(limit))


listener = eventlet.listen(("127.0.0.1", 0))
server = eventlet.spawn(serve, listener)
port = listener.getsockname()[1]
clients = [eventlet.spawn(ask, port, number) for number in range(20)]
sums = [tpool.execute(compute, 200000 + i) for i in range(40)]
answers = [client.wait() for client in clients]
server.kill()
tpool.killall()
print(hashlib.sha256("".join(answers).encode()).hexdigest(), sum(sums))
