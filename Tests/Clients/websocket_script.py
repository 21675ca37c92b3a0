"""Speaks with the JSON gateway of a server over WebSockets and prints what it hears: PORT [AUTHORITY]."""
import base64
import json
import socket
import ssl
import struct
import sys
import urllib.request

port = int(sys.argv[1])
context = None
if len(sys.argv) > 2:
    context = ssl.create_default_context(cafile=sys.argv[2])
scheme = "https" if context else "http"


def post(path, body, **headers):
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request, context=context, timeout=20))


class Socket:
    def __init__(self, path, *fields):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        key = base64.b64encode(b"0123456789abcdef").decode()
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *fields]
        self.socket.sendall("".join(line + "\r\n" for line in lines + [""]).encode())
        self.bytes = b""
        while b"\r\n\r\n" not in self.bytes:
            self.more()
        head, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        print(path, lines[0], *sorted(line for line in lines if line.lower().startswith("sec-")))

    def more(self):
        part = self.socket.recv(65536)
        if not part:
            raise EOFError
        self.bytes += part

    def take(self, count):
        while len(self.bytes) < count:
            self.more()
        part, self.bytes = self.bytes[:count], self.bytes[count:]
        return part

    def send(self, text, opcode=1, final=True, mask=b"\x01\x02\x03\x04"):
        body = text if isinstance(text, bytes) else text.encode()
        length = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + struct.pack(">H", len(body))
        self.socket.sendall(bytes([opcode | (0x80 if final else 0)]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)))
        return self

    def hear(self, count=1):
        for _ in range(count):
            opcode, length = self.take(2)
            if length == 126:
                length = struct.unpack(">H", self.take(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.take(8))[0]
            body = self.take(length)
            print(" ", opcode & 15, body.decode() if opcode & 15 != 8 else struct.unpack(">H", body[:2])[0])
        return self


watch = '{"create_request":{"key":"YQ=="}}'
first = Socket("/v3/watch").send(watch).hear().send('{"create_request":{"key":"Yg==","watch_id":7}}').hear()
post("/v3/kv/put", {"key": "YQ==", "value": "PGI+"})
post("/v3/kv/put", {"key": "Yg==", "value": base64.b64encode(b"x" * 100_000).decode()})
first.hear(2).send('{"cancel_request":{"watch_id":"7"}}').hear()
first.send("hello", opcode=9).hear()
first.send(struct.pack(">H", 1000), opcode=8).hear()
Socket("/v3beta/watch?x=1").send(watch + ' {"create_request":{"watch_id":9}}').hear(2)
Socket("/v3/watch").send('{"create_request":').send('{"key":"YQ=="}}').hear()
Socket("/v3/watch").send('{"create_', final=False).send('request":{"key":', opcode=0, final=False).send('"YQ=="}}', opcode=0).hear()
Socket("/v3/watch").send(watch.encode(), opcode=2).hear()
Socket("/v3/watch").send("!").hear()
post("/v3/lease/grant", {"TTL": 500, "ID": 77})
Socket("/v3/lease/keepalive").send('{"ID":77}').hear().send('{"ID":78}').hear()
