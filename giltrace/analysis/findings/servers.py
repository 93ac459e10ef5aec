"""How a server that runs this process is told to use more processes: advice in the words of its command line."""

from __future__ import annotations

from giltrace.timeline.model import Process

#: By what the path of a file of its worker contains that runs there; the outer one first where one runs the other.
_SERVERS = (
    ("/gunicorn/workers/", "gunicorn --workers N"),
    ("/uvicorn/server.py", "uvicorn --workers N"),
    ("/hypercorn/", "hypercorn --workers N"),
    ("/celery/worker/", "celery worker --pool prefork --concurrency N"),
    ("/dramatiq/worker.py", "dramatiq --processes N"),
    ("/huey/consumer.py", "huey_consumer --worker-type process --workers N"),
    ("/distributed/worker.py", "workers of one thread each: threads_per_worker=1, or dask worker --nthreads 1"),
    ("/daphne/server.py", "several daphne processes behind a proxy"),
    ("/grpc/_server.py", "several server processes on one port, with the option grpc.so_reuseport"),
    ("/grpc/aio/_server.py", "several server processes on one port, with the option grpc.so_reuseport"),
    ("/waitress/task.py", "several waitress processes behind a proxy, or gunicorn --workers N"),
    ("/aiohttp/web_", "several processes on one port: web.run_app(..., reuse_port=True)"),
    ("/tornado/httpserver.py", "several processes: tornado.process.fork_processes(N)"),
    ("/werkzeug/serving.py", "a server for production, such as gunicorn --workers N"),
    ("/django/core/servers/basehttp.py", "a server for production, such as gunicorn --workers N"),
)


def more_processes(process: Process) -> str:
    """What to call or set so that this server has more processes; empty where none is known."""
    if process.stacks is None:
        return ""
    files = [text for text in process.stacks.table.strings if "/" in text]
    return next((told for part, told in _SERVERS if any(part in file for file in files)), "")
