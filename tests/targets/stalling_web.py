"""A web server that stalls as it is asked: GET /call, /lock and so on are answered by "done" once that is over.

stalling_web.py aiohttp|uvicorn|tornado|gevent: serves on the unix socket "socket". As a module it has an application
for gunicorn, `told_flask`.
"""

import sys

import plants


def handle(plant):
    plants.PLANTS[plant]()
    return "done\n"


def flask():
    from flask import Flask

    app = Flask(__name__)

    @app.get("/<plant>")
    def answer(plant):
        return handle(plant)

    plants.start()
    return app


def told_flask():
    from giltrace.integrations.requests import WSGI

    app = flask()
    app.wsgi_app = WSGI(app.wsgi_app)
    return app


def run_aiohttp():
    from aiohttp import web

    async def answer(request):
        return web.Response(text=handle(request.match_info["plant"]))

    app = web.Application()
    app.add_routes([web.get("/{plant}", answer)])
    plants.start()
    web.run_app(app, path="socket", print=None)


def run_uvicorn():
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/{plant}", response_class=PlainTextResponse)
    async def answer(plant: str):
        return handle(plant)

    plants.start()
    uvicorn.run(app, uds="socket", loop="uvloop", log_level="warning")


def run_tornado():
    import asyncio

    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_unix_socket
    from tornado.web import Application, RequestHandler

    class Handler(RequestHandler):
        async def get(self, plant):
            await answer(self, plant)

    async def answer(handler, plant):
        handler.write(handle(plant))

    async def main():
        HTTPServer(Application([("/(.*)", Handler)])).add_socket(bind_unix_socket("socket"))
        await asyncio.Event().wait()

    plants.start()
    asyncio.run(main())


def run_gevent():
    import socket

    from gevent.pywsgi import WSGIServer
    from gevent.socket import socket as Socket

    place = Socket(socket.AF_UNIX)
    place.bind("socket")
    place.listen()
    WSGIServer(place, flask(), log=None).serve_forever()


if __name__ == "__main__":
    globals()["run_" + sys.argv[1]]()
