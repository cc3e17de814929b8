"""Holds a session and prints what it receives, a line for each message: room, sender, data.

From the environment: URL, such as ws://127.0.0.1:8080/ws/general, and TOKEN_FILE, which holds a token. A program asks its
backend for one instead.
"""

import asyncio
import json
import os
import random
import sys

import websockets

URL = os.environ.get("URL", "ws://127.0.0.1:8080/ws/general")
# After these, and all above 4500, a session must not come back. 4500 is not among them: the next attempt brings a new token.
FINAL = {1000, 1002, 1003, 1007, 1009}


def token():
    with open(os.environ["TOKEN_FILE"]) as f:
        return f.read().strip()


class Session:
    last_id = ""  # of the last frame, whichever it was
    wait = 1.0  # before the next attempt, at most

    async def run(self):
        """One connection; returns the close code, 1006 if it broke."""
        try:
            # The library pings by itself and notices a dead connection.
            async with websockets.connect(
                f"{URL}?refuse=close&last_id={self.last_id}", subprotocols=["realtime", "bearer." + token()]
            ) as ws:
                while True:
                    await self.take(ws, json.loads(await ws.recv()))
        except websockets.ConnectionClosed as e:
            print("closed:", e, file=sys.stderr)
            return e.rcvd.code if e.rcvd else 1006
        except (OSError, asyncio.TimeoutError, websockets.InvalidHandshake) as e:
            print("closed:", e, file=sys.stderr)
            return 1006

    async def take(self, ws, frame):
        self.last_id = frame["id"]
        data = frame.get("data")
        if frame["type"] == "error":
            print("error:", data, file=sys.stderr)
            return
        if frame["type"] != "system":
            print(frame["room"], frame.get("from", ""), json.dumps(data, separators=(",", ":")), flush=True)
            return
        event = data.get("event") if isinstance(data, dict) else None
        if event == "welcome":
            self.wait = 1.0
        elif event == "gap":  # messages are missing here: fetch the state anew
            print("gap:", data, file=sys.stderr)
        elif event == "expiring":
            await ws.send(json.dumps({"type": "auth", "data": {"token": token()}}))


async def main():
    session = Session()
    while True:
        code = await session.run()
        if code > 4500 or code in FINAL:
            sys.exit(1)
        if code != 1012:  # 1012: come back at once
            await asyncio.sleep(random.random() * session.wait)
            session.wait = min(2 * session.wait, 30)


asyncio.run(main())
