"""What the `etcd-client-py` library (Rust's etcd-client below) can do, one line a step. Arguments: host, port."""
import asyncio
import sys

from etcd_client import Client, Compare, CompareOp, ConnectOptions, EtcdLockOption, Txn, TxnOp


def say(step, *values):
    print(step, *values, flush=True)


async def main():
    async with Client([f"http://{sys.argv[1]}:{sys.argv[2]}"], ConnectOptions()).connect() as etcd:
        await etcd.put(b"a/1", b"one")
        for n in range(2, 5):
            await etcd.put(f"a/{n}".encode(), str(n).encode())
        say("get", bytes(await etcd.get(b"a/1")), await etcd.get(b"nothing"))
        say("prefix", sorted((bytes(key), bytes(value)) for key, value in await etcd.get_prefix(b"a/")))
        say("keys", sorted(bytes(key) for key in await etcd.keys_prefix(b"a/")))
        txn = Txn().when([Compare.value(b"a/1", CompareOp.EQUAL, b"one")]).and_then([TxnOp.put(b"t", b"yes")]).or_else([TxnOp.put(b"t", b"no")])
        answer = await etcd.txn(txn)
        say("transaction", answer.succeeded(), bytes(await etcd.get(b"t")))
        say("lease", await etcd.lease_grant(60))
        seen = []

        async def watch():
            async for event in etcd.watch_prefix(b"w/", ready_event=None):
                seen.append((str(event.event), bytes(event.key), bytes(event.value)))
                if len(seen) == 3:
                    return

        watcher = asyncio.create_task(watch())
        # The watch begins when its first answer comes; writes go on until it has seen enough.
        n = 0
        while not watcher.done():
            await etcd.put(f"w/{n % 2}".encode(), b"v")
            n += 1
            await asyncio.sleep(0.05)
        await watcher
        say("watch", len(seen), sorted({kind for kind, _, _ in seen}), sorted({value for _, _, value in seen}))
        say("delete", await etcd.delete(b"a/1"))
        await etcd.delete_prefix(b"a/")
        say("prefix gone", list(await etcd.get_prefix(b"a/")))
    async with Client([f"http://{sys.argv[1]}:{sys.argv[2]}"]).with_lock(EtcdLockOption(lock_name=b"mine", timeout=5.0, ttl=10)) as etcd:
        await etcd.put(b"under", b"lock")
        say("lock", bytes(await etcd.get(b"under")))


asyncio.run(main())
