"""What the `etcd3gw` library can do, over the JSON gateway, one line a step. Arguments: host, port."""
import sys
import threading

import etcd3gw

client = etcd3gw.client(host=sys.argv[1], port=int(sys.argv[2]), timeout=10, api_path="/v3/")


def say(step, *values):
    print(step, *values, flush=True)


def pairs(found):
    return [(value, meta["key"], meta["version"]) for value, meta in found]


say("status", sorted(client.status()))
say("members", [member["name"] for member in client.members()])
say("put", client.put("a/1", "one"), client.put("a/2", "two"), client.put("a/10", b"\x00\xff"))
say("get", client.get("a/1"), client.get("nothing"))
say("metadata", pairs(client.get("a/1", metadata=True)))
say("prefix", pairs(client.get_prefix("a/")), pairs(client.get_prefix("a/", sort_order="descend")))
say("all", len(client.get_all()))
say("create", client.create("c", "1"), client.create("c", "2"))
say("replace", client.replace("c", "1", "3"), client.replace("c", "1", "4"), client.get("c"))
say("delete", client.delete("c"), client.delete("c"))
lease = client.lease(ttl=60)
say("lease", 0 < lease.ttl() <= 60, client.put("leased", "v", lease=lease), lease.keys())
say("refresh", lease.refresh())
say("revoke", lease.revoke(), client.get("leased"))
answer = client.transaction({
    "compare": [{"key": "YS8x", "result": "EQUAL", "target": "VALUE", "value": "b25l"}],
    "success": [{"request_put": {"key": "dA==", "value": "eWVz"}}, {"request_range": {"key": "YS8y"}}],
    "failure": [{"request_put": {"key": "dA==", "value": "bm8="}}]})
say("transaction", answer["succeeded"], [sorted(part) for part in answer["responses"]])

events, cancel = client.watch("w")
seen = []
ready = threading.Event()


def read():
    for event in events:
        seen.append((event.get("type", "PUT"), event["kv"]["key"], event["kv"].get("value")))
        if len(seen) == 3:
            break
    ready.set()


reader = threading.Thread(target=read, daemon=True)
reader.start()
client.put("w", "1")
client.put("w", "2")
client.delete("w")
say("watch", ready.wait(10), seen)
cancel()
with client.lock("mine", ttl=20) as lock:
    say("lock", lock.is_acquired())
say("prefix gone", client.delete_prefix("a/"))
