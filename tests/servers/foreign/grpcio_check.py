"""Python's grpcio against us, both ways: its client and our server, our client and its server."""
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc

FOREIGN = sys.argv[1]


class Lines:
    """What a process says, as it comes."""

    def __init__(self, process):
        self.process, self.lines, self.changed = process, [], threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.strip())
                self.changed.notify_all()

    def wait_for(self, text, count=1, exactly=False):
        end = time.time() + 30
        with self.changed:
            while sum(text == line if exactly else text in line for line in self.lines) < count:
                left = end - time.time()
                assert left > 0, f"{text!r} is missing: {self.lines}"
                self.changed.wait(left)
            return next(line for line in self.lines if text in line)


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def its_client():
    server = subprocess.Popen([FOREIGN, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = Lines(server)
    port = said.wait_for("ports ").split()[1]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)])
    unary = channel.unary_unary("/test/unary")
    stream = channel.unary_stream("/test/server")
    upload = channel.stream_unary("/test/client")

    left = int(unary(b"left", timeout=60))
    assert 20_000 < left <= 60_000, left
    said.wait_for("ended the response is complete")
    assert unary(b"left") == b"no deadline"
    print("grpcio: its timeout arrives here")

    exceeded = grpc.StatusCode.DEADLINE_EXCEEDED
    assert code_of(lambda: unary(b"wait", timeout=0.3)) == exceeded
    assert code_of(lambda: list(stream(b"", timeout=0.3))) == exceeded
    print("grpcio: its deadline is exceeded, in a stream too")

    assert code_of(lambda: unary(b"missing")) == grpc.StatusCode.NOT_FOUND
    gone = sum("ended the client is gone" in line for line in said.lines)
    call = unary.future(b"wait")
    # The third without a deadline: the others were "left" and "missing".
    said.wait_for("begun", 3, exactly=True)
    call.cancel()
    messages = stream(b"")
    next(messages)
    messages.cancel()
    said.wait_for("ended the client is gone", gone + 2)
    print("grpcio: its cancel ends our context")

    def endless():
        yield b"1"
        yield b"2"
        time.sleep(60)

    call = upload.future(endless())
    said.wait_for("upload begun")
    call.cancel()
    said.wait_for("ended the client is gone", gone + 3)
    channel.close()
    server.stdin.close()
    server.wait(30)


def its_server():
    # What is said to our client, which waits for it: each handler that has begun, and that it is over.
    client, lock = None, threading.Lock()

    def say(what):
        with lock:
            client.stdin.write(what + "\n")
            client.stdin.flush()

    def ended(context, timeout):
        gone = threading.Event()
        # It says no if that is over already.
        return not context.add_callback(gone.set) or gone.wait(timeout)

    def unary(message, context):
        if message == b"left":
            return str(int(context.time_remaining() * 1000)).encode()
        say(f"begun {message.decode()}")
        if ended(context, 30):
            say(f"over {message.decode()}")
        return b""

    def upload(messages, context):
        try:
            for count, _ in enumerate(messages):
                if count == 2:
                    say("begun upload")
            # Its iterator may end as if the upload were complete: then its context knows better.
            say("over upload" if ended(context, 10) else "upload taken for complete")
        except Exception:
            say("over upload")
        return b""

    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "client": grpc.stream_unary_rpc_method_handler(upload),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    client = subprocess.Popen([FOREIGN, "grpc", str(port)], stdin=subprocess.PIPE, text=True)
    server.start()
    assert client.wait(120) == 0
    print("grpcio: its server's contexts end with our deadline and our cancel, a cut upload's too")
    server.stop(0)


its_client()
its_server()
