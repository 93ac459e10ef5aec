"""A pool of client threads asks a threaded HTTP server, both in this process: they wait for sockets, not for the GIL.

The server takes 100 ms for an answer, asleep as if it asked a database. The requests overlap, since a thread that waits
for a socket or sleeps has no GIL.

What to look for: a request is a handful of holds of some 100 us, on the client's and on the server's thread, with long
gaps in between. Where several requests begin at once there are short waits. More clients do more, until the holds add
up to one core.

Truth: verdict = io-bound-handoff
Truth: held_share <= 0.3
Truth: wait_share <= 0.05
Truth: blocked_share >= 0.7
Truth: holds(client*) >= 100
"""

import argparse
import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers after a while, with as many bytes as the path says."""

    seconds = 0.1

    def do_GET(self):
        """Answer one request."""
        time.sleep(self.seconds)
        body = b"x" * int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Print nothing."""


def ask(port):
    """Make one request, and return the length of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/5000")
    length = len(connection.getresponse().read())
    connection.close()
    return length


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=4, help="threads that ask (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=60, help="of all of them (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.1, help="for an answer (default: %(default)s)")
    options = parser.parse_args()

    Handler.seconds = options.seconds
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,), name="server")
    start = time.perf_counter()
    serving.start()
    with ThreadPoolExecutor(options.clients, thread_name_prefix="client") as pool:
        lengths = list(pool.map(ask, [server.server_address[1]] * options.requests))
    server.shutdown()
    serving.join()
    server.server_close()
    seconds = time.perf_counter() - start
    print("thread_pool_http: %d answers, %d bytes in %.2f s" % (len(lengths), sum(lengths), seconds))


if __name__ == "__main__":
    main()
