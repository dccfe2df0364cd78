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

    def wait_for(self, text, count=1):
        end = time.time() + 30
        with self.changed:
            while sum(text in line for line in self.lines) < count:
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
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
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
    time.sleep(0.3)
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
    time.sleep(0.3)
    call.cancel()
    said.wait_for("ended the client is gone", gone + 3)
    channel.close()
    server.stdin.close()
    server.wait(30)


def its_server():
    ends, ended = [], threading.Condition()

    def over(what):
        with ended:
            ends.append(what)
            ended.notify_all()

    def unary(message, context):
        if message == b"left":
            return str(int(context.time_remaining() * 1000)).encode()
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(30)
        over("wait")
        return b""

    def upload(messages, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        try:
            for _ in messages:
                pass
            # Its iterator may end as if the upload were complete: then its context knows better.
            over("upload cut" if gone.wait(10) else "upload taken for complete")
        except Exception:
            over("upload cut")
        return b""

    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "client": grpc.stream_unary_rpc_method_handler(upload),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    subprocess.run([FOREIGN, "grpc", str(port)], check=True, timeout=120)
    end = time.time() + 30
    with ended:
        while ends.count("wait") < 2 or "upload cut" not in ends:
            assert "upload taken for complete" not in ends, ends
            assert time.time() < end, ends
            ended.wait(end - time.time())
    print("grpcio: its server's contexts end with our deadline and our cancel, a cut upload's too")
    server.stop(0)


its_client()
its_server()
