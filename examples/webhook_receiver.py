"""What receives a WebhookSink's POSTs: check the signature, drop what came before, answer 2xx only when it is kept.

python examples/webhook_receiver.py 8090 please-rotate-me
"""

import hashlib
import hmac
import sys

from aiohttp import web


def receiver(secret: str) -> web.Application:
    """An application that accepts recordings signed with `secret`."""
    seen: set[str] = set()

    async def recording(request: web.Request) -> web.Response:
        body = await request.read()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, request.headers.get("X-Voxtra-Signature", "")):
            return web.Response(status=401, text="wrong signature")
        event = await request.json()
        delivery = request.headers["webhook-id"]  # the same on every attempt
        if event.get("type") != "ping" and delivery not in seen:  # `fastagi doctor --send-ping` is no recording
            seen.add(delivery)
            print(event["file_path"], flush=True)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/recordings", recording)
    return app


if __name__ == "__main__":
    web.run_app(receiver(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]))
