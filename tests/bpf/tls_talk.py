"""A TLS server and a client of CPython's asyncio (memory BIOs), as programs: what was said on each connection is printed.

serve PORT CERT KEY            answers a line `N` with N random bytes, on and on; at a client's end prints {port, read, wrote}
ask PORT CERT HOW_MANY N,N,…   that many connections on one loop, each asking for these; prints {port, read, wrote} of each
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import sys


async def serve(port: int, cert: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read, wrote = hashlib.sha256(), hashlib.sha256()
        try:
            while line := await reader.readline():
                read.update(line)
                data = os.urandom(int(line))
                wrote.update(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        _say(writer.get_extra_info("peername")[1], read, wrote)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=context)
    print("listening", flush=True)
    await server.serve_forever()


async def ask(port: int, cert: str, how_many: int, sizes: list[int]) -> None:
    context = ssl.create_default_context(cafile=cert)

    async def one() -> None:
        read, wrote = hashlib.sha256(), hashlib.sha256()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        for size in sizes:
            line = b"%d\n" % size
            wrote.update(line)
            writer.write(line)
            read.update(await reader.readexactly(size))
        own = writer.get_extra_info("sockname")[1]
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        _say(own, read, wrote)

    await asyncio.gather(*(one() for _ in range(how_many)))


def _say(port: int, read: hashlib._Hash, wrote: hashlib._Hash) -> None:
    print(json.dumps({"port": port, "read": read.hexdigest(), "wrote": wrote.hexdigest()}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2]), *sys.argv[3:]))
    else:
        asyncio.run(ask(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), [int(size) for size in sys.argv[5].split(",")]))
