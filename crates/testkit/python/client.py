"""A Matrix client driven over JSON lines: one request a line on stdin, one answer a line on stdout.

A request is {"id", "call", "args"}; its answer {"id", "ok"} or {"id", "error": {"errcode", "message",
"http_status"}}. Requests run side by side, so that one that waits stops no other. The client is
matrix-nio, follows /sync by itself from the log-in on, and outlives restarts of its homeserver. It
ends when stdin closes.
"""

import asyncio
import hashlib
import hmac
import json
import sys
from urllib.parse import quote

from aiohttp import ClientError, ClientSession
from nio import AsyncClient, AsyncClientConfig, EncryptionError, ErrorResponse, MegolmEvent
from nio import MessageDirection, RoomVisibility, SyncResponse, ToDeviceMessage
from nio.store import SqliteMemoryStore

LINE_BYTES_MAX = 64 * 1024 * 1024
SYNC_WAIT_MS = 10_000
RETRY_PAUSE_S = 0.1
PAGE_EVENTS = 100
# Small enough that a long absence leaves a gap, which the client then fills as real ones do.
SYNC_FILTER = {"room": {"timeline": {"limit": 30}}}


class Refused(Exception):
    """The homeserver answered with an error."""

    def __init__(self, errcode, message, http_status):
        super().__init__(message)
        self.answer = {"errcode": errcode, "message": message, "http_status": http_status}


class RecordedClient:
    """A logged-in client and everything that /sync has told it."""

    def __init__(self):
        self.nio = None
        self.follower = None
        self.since = None
        self.timelines = {}
        self.invites = {}
        self.to_device = []
        self.unread = []
        self.version = 0
        self.changed = asyncio.Condition()

    # --- Calls -----------------------------------------------------------------------------------

    async def register(self, homeserver, shared_secret, user, password, admin):
        url = f"{homeserver}/_synapse/admin/v1/register"
        async with ClientSession() as http:
            async with http.get(url) as answer:
                nonce = (await answer.json())["nonce"]
            rank = "admin" if admin else "notadmin"
            message = "\0".join([nonce, user, password, rank]).encode()
            mac = hmac.new(shared_secret.encode(), message, hashlib.sha1).hexdigest()
            body = {"nonce": nonce, "username": user, "password": password, "mac": mac}
            async with http.post(url, json={**body, "admin": admin}) as answer:
                told = await answer.json()
                if answer.status != 200:
                    raise Refused(told.get("errcode"), told.get("error"), answer.status)
        return told["user_id"]

    async def login(self, homeserver, user, password, encrypting):
        config = AsyncClientConfig(
            encryption_enabled=encrypting,
            store=SqliteMemoryStore,
            store_sync_tokens=False,
            max_timeout_retry_wait_time=0.3,
            backoff_factor=0.05,
        )
        self.nio = AsyncClient(homeserver, user, config=config)
        told = answered(await self.nio.login(password))
        if encrypting:
            answered(await self.nio.keys_upload())
        self.follower = asyncio.create_task(self.follow())
        return {
            "user_id": told.user_id,
            "device_id": told.device_id,
            "access_token": told.access_token,
        }

    async def create_room(self, name, invite, room_version, alias, public):
        visibility = RoomVisibility.public if public else RoomVisibility.private
        created = await self.nio.room_create(
            visibility, alias=alias, name=name, room_version=room_version, invite=invite
        )
        return answered(created).room_id

    async def invite(self, room, user):
        answered(await self.nio.room_invite(room, user))

    async def join(self, room):
        return answered(await self.nio.join(room)).room_id

    async def join_through(self, room, servers):
        """Joins by way of these servers, tried in their order."""
        named = [(name, server) for server in servers for name in ("server_name", "via")]
        return (await self.post(f"join/{quote(room, safe='')}", {}, named))["room_id"]

    async def has_event(self, room, event):
        """Asks the homeserver itself, whatever /sync has told so far."""
        url = f"{self.nio.homeserver}/_matrix/client/v3/rooms/{quote(room, safe='')}/event/{quote(event, safe='')}"
        token = {"Authorization": f"Bearer {self.nio.access_token}"}
        async with ClientSession(headers=token) as http:
            async with http.get(url) as answer:
                return answer.status == 200

    async def query_devices(self, user):
        """Asks for the devices of a user whom the homeserver may have to ask another for."""
        return await self.post("keys/query", {"device_keys": {user: []}})

    async def leave(self, room):
        answered(await self.nio.room_leave(room))

    async def send(self, room, type, content):
        sent = await self.nio.room_send(room, type, content, ignore_unverified_devices=True)
        return answered(sent).event_id

    async def knows_encrypted(self, room):
        known = self.nio.rooms.get(room)
        if known is None or not known.encrypted or self.nio.should_query_keys:
            return False
        others = [user for user in known.users if user != self.nio.user_id]
        return all(any(self.nio.device_store.active_user_devices(user)) for user in others)

    async def rotate_room_key(self, room):
        self.nio.invalidate_outbound_session(room)

    async def put_state(self, room, type, state_key, content):
        return answered(await self.nio.room_put_state(room, type, content, state_key)).event_id

    async def redact(self, room, event):
        return answered(await self.nio.room_redact(room, event)).event_id

    async def put_alias(self, room, alias):
        answered(await self.nio.room_put_alias(alias, room))

    async def members(self, room):
        return sorted(member.user_id for member in answered(await self.nio.joined_members(room)).members)

    async def profile(self, user):
        told = answered(await self.nio.get_profile(user))
        return {"displayname": told.displayname, "avatar_url": told.avatar_url}

    async def send_to_device(self, type, user, device, content):
        answered(await self.nio.to_device(ToDeviceMessage(type, user, device, content)))

    async def wait_for_change(self, after, timeout_ms):
        """Returns the version of what is known, as soon as it is above `after` or the time is over."""
        async with self.changed:
            try:
                newer = self.changed.wait_for(lambda: self.version > after)
                await asyncio.wait_for(newer, timeout_ms / 1000)
            except asyncio.TimeoutError:
                pass
        return self.version

    async def timeline(self, room):
        return self.timelines.get(room, [])

    async def invited_to(self):
        return self.invites

    async def received_to_device(self):
        return self.to_device

    # --- What nio has no call for -------------------------------------------------------------------

    async def post(self, path, body, params=()):
        url = f"{self.nio.homeserver}/_matrix/client/v3/{path}"
        token = {"Authorization": f"Bearer {self.nio.access_token}"}
        async with ClientSession(headers=token) as http:
            async with http.post(url, params=list(params), json=body) as answer:
                told = await answer.json()
                if answer.status != 200:
                    raise Refused(told.get("errcode"), told.get("error"), answer.status)
        return told

    # --- Following /sync ---------------------------------------------------------------------------

    async def follow(self):
        while True:
            try:
                # A sync that could not be taken in as a whole is asked for again.
                self.nio.next_batch = self.since
                told = await self.nio.sync(SYNC_WAIT_MS, SYNC_FILTER)
                if isinstance(told, SyncResponse):
                    await self.keep_keys()
                    await self.take(told)
                    continue
            except (ClientError, OSError, asyncio.TimeoutError, Refused) as error:
                print(f"sync: {error!r}", file=sys.stderr)
            await asyncio.sleep(RETRY_PAUSE_S)

    async def keep_keys(self):
        """Does for the keys of its own and other devices what a client does after each sync."""
        if self.nio.should_upload_keys:
            answered(await self.nio.keys_upload())
        if self.nio.should_query_keys:
            answered(await self.nio.keys_query())

    async def take(self, told):
        news = {}
        self.read_late()
        for room, joined in told.rooms.join.items():
            news[room] = [self.readable(room, event) for event in joined.timeline.events]
            if joined.timeline.limited and joined.timeline.prev_batch:
                gap = await self.fill_gap(room, joined.timeline.prev_batch)
                # Pages follow the room's graph and syncs the order of arrival, so that they may overlap.
                newer = {event["event_id"] for event in news[room]}
                gap = [event for event in gap if event["event_id"] not in newer]
                news[room] = gap + news[room]
        for room, events in news.items():
            self.timelines.setdefault(room, []).extend(events)
            self.invites.pop(room, None)
        for room, invited in told.rooms.invite.items():
            self.invites[room] = [event.source for event in invited.invite_state]
        self.to_device.extend(event.source for event in told.to_device_events)
        self.since = told.next_batch
        async with self.changed:
            self.version += 1
            self.changed.notify_all()

    def readable(self, room, event):
        """The event as the user reads it; one whose key is not there yet is read later, in its place."""
        source = dict(event.source)
        # What was encrypted has lost the envelope of its event.
        for member in ("event_id", "sender"):
            source.setdefault(member, getattr(event, member, ""))
        if isinstance(event, MegolmEvent):
            event.room_id = room
            self.unread.append((event, source))
        return source

    def read_late(self):
        unread, self.unread = self.unread, []
        for event, source in unread:
            try:
                source.update(self.nio.decrypt_event(event).source)
            except EncryptionError:
                self.unread.append((event, source))

    async def fill_gap(self, room, start):
        """Pages back from `start` to what is known of the room, or to its beginning."""
        known = {event.get("event_id") for event in self.timelines.get(room, [])}
        gap = []
        while start:
            page = await self.nio.room_messages(
                room, start, direction=MessageDirection.back, limit=PAGE_EVENTS
            )
            page = answered(page)
            for event in page.chunk:
                if event.source.get("event_id") in known:
                    return gap[::-1]
                gap.append(self.readable(room, event))
            start = page.end if page.chunk else None
        return gap[::-1]


def answered(response):
    """The response, unless it is an error."""
    if not isinstance(response, ErrorResponse):
        return response
    transport = response.transport_response
    http_status = transport.status if transport is not None else None
    raise Refused(response.status_code, response.message, http_status)


async def answer(client, line):
    request = json.loads(line)
    try:
        ok = await getattr(client, request["call"])(**request["args"])
        told = {"id": request["id"], "ok": ok}
    except Refused as refused:
        told = {"id": request["id"], "error": refused.answer}
    except Exception as error:  # Whatever it is, the test must hear of it.
        told = {"id": request["id"], "error": {"errcode": None, "message": repr(error), "http_status": None}}
    # One write of one line: answers of requests that run side by side never mix.
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def main():
    requests = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    client = RecordedClient()
    running = set()
    while line := await requests.readline():
        task = asyncio.create_task(answer(client, line))
        running.add(task)
        task.add_done_callback(running.discard)
    if client.follower:
        client.follower.cancel()
    if client.nio:
        await client.nio.close()


asyncio.run(main())
