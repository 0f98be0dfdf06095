"""Requests of httpx over HTTP/2, a hundred at once; says as JSON what came. Arguments: URL, file of authorities."""

import asyncio
import collections
import json
import ssl
import sys

import httpx

base, authorities = sys.argv[1:]
extensions = {"sni_hostname": "a.test"}
fields = {"Host": "a.test"}
# The address is not in the certificate.
trust = ssl.create_default_context(cafile=authorities)
trust.check_hostname = False


async def ask() -> dict:
    async with httpx.AsyncClient(http1=False, http2=True, verify=trust, timeout=20) as client:
        # The first makes the connection, which the others share.
        await client.get(f"{base}/", headers=fields, extensions=extensions)
        many = [client.get(f"{base}/{n}", headers=fields, extensions=extensions) for n in range(100)]
        replies = await asyncio.gather(*many)
        body = b"\x07" * (1 << 20)
        upload = await client.post(f"{base}/up", content=body, headers=fields, extensions=extensions)
        down = await client.get(f"{base}/down/chunked/1000000", headers=fields, extensions=extensions)
    return {
        "statuses": collections.Counter(reply.status_code for reply in replies),
        "versions": sorted({reply.http_version for reply in replies}),
        "upload": upload.text,
        "down": len(down.content),
    }


print(json.dumps(asyncio.run(ask())))
