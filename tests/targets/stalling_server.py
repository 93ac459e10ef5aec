"""A server on one event loop (asyncio, uvloop, trio, gevent, tornado) that stalls it as a client says, a line each.

Prints its port. Each line is answered by "done" once that is over.
"""

import ctypes
import functools
import gc
import importlib
import os
import sys
import tempfile
import threading
import time

LONG = float(os.environ.get("STALL_SECONDS", "0.4"))
keep_gil = ctypes.PyDLL(None).usleep
lock = threading.Lock()
go, taken = threading.Event(), threading.Event()
task = []

modules = tempfile.mkdtemp()
sys.path.insert(0, modules)
gc.disable()
cycles = [[[]] for _ in range(300000)]
gc.enable()


def ends():
    return time.monotonic() + LONG


def block():
    time.sleep(LONG)


def compute():
    end = ends()
    while time.monotonic() < end:
        sum(range(1000))


def collect():
    end = ends()
    while time.monotonic() < end:
        gc.collect()


def bring_in():
    name = "slow_%d" % len(os.listdir(modules))
    with open(os.path.join(modules, name + ".py"), "w") as file:
        file.write(
            "import time\nend = time.monotonic() + %f\nwhile time.monotonic() < end:\n    sum(range(1000))\n" % LONG
        )
    importlib.invalidate_caches()
    __import__(name)


def helped(what):
    """Have the other thread begin something."""
    taken.clear()
    task.append(what)
    go.set()
    taken.wait()


def wait_for_lock():
    helped("keep_lock")
    with lock:
        pass


def wait_for_hog():
    helped("keep_gil")


def wait_for_turns():
    helped("spin")
    while task:
        os.getpgid(0)
        time.sleep(0)


def hog():
    keep_gil(int(LONG * 1e6))


def keep_lock():
    with lock:
        taken.set()
        time.sleep(LONG)


def spin():
    end = ends()
    while time.monotonic() < end:
        pass


def help_out():
    while True:
        go.wait()
        go.clear()
        what = task[0]
        if what == "keep_lock":
            keep_lock()
        else:
            taken.set()
            hog() if what == "keep_gil" else spin()
        task.clear()


PLANTS = {
    "call": block,
    "computing": compute,
    "collection": collect,
    "import": bring_in,
    "lock": wait_for_lock,
    "hog": wait_for_hog,
    "turns": wait_for_turns,
    "nothing": lambda: None,
}


def handle(line):
    PLANTS[line.decode().strip()]()
    return b"done\n"


def ready(port):
    print(port, flush=True)


def with_asyncio():
    import asyncio

    async def serve(reader, writer):
        while True:
            line = await reader.readline()
            if not line:
                break
            writer.write(handle(line))
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ready(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    return main()


def run_asyncio():
    import asyncio

    asyncio.run(with_asyncio())


def run_uvloop():
    import uvloop

    uvloop.run(with_asyncio())


def run_trio():
    import trio

    async def serve(stream):
        async for data in stream:
            await stream.send_all(handle(data))

    async def main():
        async with trio.open_nursery() as nursery:
            listen = functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
            (listener,) = await nursery.start(listen)
            ready(listener.socket.getsockname()[1])

    trio.run(main)


def run_gevent():
    from gevent.server import StreamServer

    def serve(socket, address):
        while True:
            data = socket.recv(100)
            if not data:
                break
            socket.sendall(handle(data))

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    ready(server.server_port)
    server.serve_forever()


def run_tornado():
    import tornado.ioloop
    import tornado.iostream
    import tornado.tcpserver

    class Server(tornado.tcpserver.TCPServer):
        async def handle_stream(self, stream, address):
            try:
                while True:
                    await stream.write(handle(await stream.read_until(b"\n")))
            except tornado.iostream.StreamClosedError:
                pass

    async def main():
        server = Server()
        server.listen(0, "127.0.0.1")
        ready(next(iter(server._sockets.values())).getsockname()[1])

    loop = tornado.ioloop.IOLoop.current()
    loop.add_callback(main)
    loop.start()


threading.Thread(target=help_out, name="helper", daemon=True).start()
globals()["run_" + sys.argv[1]]()
