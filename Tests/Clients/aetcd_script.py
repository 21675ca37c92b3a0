"""What the `aetcd` library can do, one line a step. Arguments: host, port."""
import asyncio
import sys

import aetcd


def say(step, *values):
    print(step, *values, flush=True)


async def main():
    async with aetcd.Client(host=sys.argv[1], port=int(sys.argv[2]), timeout=10) as client:
        await client.put(b"a/1", b"one")
        found = await client.get(b"a/1")
        say("get", found.value, found.version, found.lease)
        say("missing", await client.get(b"nothing"))
        for n in range(2, 6):
            await client.put(f"a/{n}".encode(), str(n).encode())
        say("prefix", [(kv.key, kv.value) for kv in await client.get_prefix(b"a/")])
        say("range", [(kv.key, kv.value) for kv in await client.get_range(b"a/2", b"a/4", sort_order="descend", sort_target="key")])
        say("replace", await client.replace(b"a/1", b"one", b"eins"), await client.replace(b"a/1", b"one", b"zwei"))
        deleted = await client.delete(b"a/5", prev_kv=True)
        say("delete", deleted.prev_kv.value if deleted else None)
        done, results = await client.transaction(
            compare=[client.transactions.value(b"a/1") == b"eins"],
            success=[client.transactions.put(b"t", b"yes"), client.transactions.get(b"a/2")],
            failure=[client.transactions.put(b"t", b"no")])
        say("transaction", done, len(results))
        lease = await client.lease(60)
        await client.put(b"leased", b"v", lease=lease)
        say("lease", lease.ttl, await lease.keys())
        await lease.refresh()
        await lease.revoke()
        say("revoked", await client.get(b"leased"))

        watch = await client.watch_prefix(b"w/")

        async def write():
            for n in range(3):
                await client.put(f"w/{n}".encode(), str(n).encode())
            await client.delete(b"w/1")

        writer = asyncio.create_task(write())
        seen = []
        async for event in watch:
            seen.append((str(event.kind), event.kv.key, event.kv.value))
            if len(seen) == 4:
                await watch.cancel()
                break
        await writer
        say("events", seen)
        async with client.lock(b"mine", ttl=20) as lock:
            say("lock", await lock.is_acquired())
        status = await client.status()
        say("status", bool(status.version), status.db_size > 0)
        say("members", [member.name async for member in client.members()])
        say("prefix gone", (await client.delete_prefix(b"a/")) is not None)


asyncio.run(main())
