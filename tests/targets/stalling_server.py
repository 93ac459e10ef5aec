"""A server on one event loop (asyncio, uvloop, trio, gevent, tornado) that stalls it as a client says, a line each.

Prints its port. Each line is answered by "done" once that is over.
"""

import functools
import sys

import plants


def handle(line):
    plants.PLANTS[line.decode().strip()]()
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


plants.start()
globals()["run_" + sys.argv[1]]()
