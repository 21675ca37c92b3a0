"""What the `etcd3` library can do, one line a step: the same against real etcd and against ours. Arguments: host, port."""
import sys
import threading
import time

import etcd3

client = etcd3.client(host=sys.argv[1], port=int(sys.argv[2]), timeout=10)


def say(step, *values):
    print(step, *values, flush=True)


def refused(step, call):
    try:
        say(step, "no error:", call())
    except Exception as error:
        say(step, error.code().name, error.details()) if hasattr(error, "details") else say(step, type(error).__name__, error)


def pairs(found):
    return [(value, meta.key, meta.version) for value, meta in found]


say("put", client.put("a/1", "one").header.revision > 0)
say("prev", client.put("a/1", "uno", prev_kv=True).prev_kv.value)
say("get", client.get("a/1")[0], client.get("a/1")[1].version)
say("missing", client.get("nothing"))
for n in range(2, 6):
    client.put(f"a/{n}", f"value {n}")
say("prefix", pairs(client.get_prefix("a/")))
say("descending", pairs(client.get_prefix("a/", sort_order="descend", sort_target="key")))
say("keys only", pairs(client.get_prefix("a/", keys_only=True)))
say("range", pairs(client.get_range("a/2", "a/4")))
say("all", len(list(client.get_all())))
say("replace", client.replace("a/1", "uno", "eins"), client.replace("a/1", "uno", "zwei"), client.get("a/1")[0])
say("put if not exists", client.put_if_not_exists("a/1", "x"), client.put_if_not_exists("b/1", "y"))
say("delete", client.delete("b/1"), client.delete("b/1"))
done, results = client.transaction(
    compare=[client.transactions.value("a/1") == "eins", client.transactions.version("a/2") > 0],
    success=[client.transactions.put("t", "yes"), client.transactions.get("a/1"), client.transactions.delete("a/5")],
    failure=[client.transactions.put("t", "no")])
say("transaction", done, len(results), [value for value, _ in results[1]])
done, results = client.transaction(
    compare=[client.transactions.create("a/1") == 0], success=[], failure=[client.transactions.get("t")])
say("other branch", done, [value for value, _ in results[0]])

lease = client.lease(60)
client.put("leased", "v", lease=lease)
say("lease", lease.granted_ttl, 0 < lease.remaining_ttl <= 60, lease.keys)
say("refresh", [answer.TTL for answer in lease.refresh()])
lease.revoke()
say("revoked", client.get("leased"))
refused("revoked again", lease.revoke)

events, cancel = client.watch("w/1")
client.put("w/1", "first")
client.put("w/1", "second")
client.delete("w/1")
for _ in range(3):
    event = next(events)
    say("event", type(event).__name__, event.key, event.value)
cancel()
seen = []
arrived = threading.Event()


def collect(response):
    seen.extend((event.key, event.value) for event in response.events)
    if len(seen) >= 4:
        arrived.set()


number = client.add_watch_prefix_callback("w/", collect, prev_kv=True)
for n in range(4):
    client.put(f"w/{n}", str(n))
say("callback", arrived.wait(10), seen)
client.cancel_watch(number)
revision = client.get("a/1")[1].mod_revision
events, cancel = client.watch_prefix("a/", start_revision=1)
say("history", [(next(events).key) for _ in range(5)])
cancel()

with client.lock("mine", ttl=20) as lock:
    say("lock", lock.is_acquired())
say("unlocked", client.lock("mine", ttl=5).acquire(timeout=5))

client.compact(client.get("a/1")[1].mod_revision)
status = client.status()
say("status", bool(status.version), status.db_size > 0, status.raft_index > 0, status.leader.name)
say("members", [(member.name, len(member.client_urls)) for member in client.members])
say("hash", client.hash() is not None)
say("alarms", list(client.list_alarms()))
say("create alarm", [alarm.alarm_type for alarm in client.create_alarm()])
refused("no space", lambda: client.put("x", "y"))
say("disarm", len(client.disarm_alarm()))
say("defragment", client.defragment())
say("prefix gone", client.delete_prefix("a/").deleted)
